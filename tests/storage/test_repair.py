"""`fastlog log repair`: each kind of damage is told of, costs what was said and no more, and the log is whole afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastlog.native.logtool import LogError
from fastlog.protocol.records import build_placeholder, iter_batches
from fastlog.storage.directory import META, DirectoryError
from fastlog.storage.epochs import Epochs, load_epochs
from fastlog.storage.inspect import check
from fastlog.storage.repair import carry_out, find_repairs, hold
from tests.storage.build import Expected, batch, read_all, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore

SEGMENT = 30_000
BATCHES = 40
Made = tuple["Path", Expected]


@pytest.fixture
def made(open_store: Callable[..., LocalStore], tmp_path: Path) -> Made:
    """A data directory with a log of several segments, closed in order, one record a batch."""
    path = tmp_path / "data/t-0"
    path.parent.mkdir()
    (path.parent / META).write_text("cluster.id=c\n")
    (path.parent / ".kafka_cleanshutdown").write_text("{}")
    store = open_store()
    log = store.open(path, segment_bytes=SEGMENT)
    expected = Expected()
    for _ in range(BATCHES):
        data = batch(1, 3000)
        assert log.append(data, -1).error == 0
        expected.add(data)
    store.close()
    epochs = Epochs()
    epochs.assign(0, 0)
    epochs.save(str(path))
    assert not list(check(path.parent))
    assert not list(find_repairs(path.parent))
    return path, expected


def repair(path: Path) -> list[str]:
    """Does all that is to be done; what was said of segments."""
    found = list(find_repairs(path.parent))
    again = list(find_repairs(path.parent))
    assert [repair.what for repair in found] == [repair.what for repair in again], "looking changed something"
    carry_out(found)
    assert not list(find_repairs(path.parent))
    assert not list(check(path.parent))
    return [f"{repair.path.name} {repair.what}" for repair in found if repair.path.suffix == ".log"]


def offsets(open_store: Callable[..., LocalStore], path: Path, *, end: int = BATCHES) -> list[int]:
    """Those that still have a record, as an unclean start and then readers find them; the log goes on."""
    store = open_store()
    log = store.open(path, segment_bytes=SEGMENT)
    assert (log.positions.log_start, log.positions.log_end, log.opened.lost_bytes) == (0, end, 0)
    data = read_all(log, 0)
    batches = split(data)
    assert [int.from_bytes(b[:8], "big") + int.from_bytes(b[23:27], "big") + 1 for b in batches[:-1]] == [
        int.from_bytes(b[:8], "big") for b in batches[1:]
    ], "a hole"
    assert log.append(batch(1, 10), -1).base_offset == end
    store.close()
    return [record.offset for found in iter_batches(data) for record in found.records]


def files(path: Path) -> list[Path]:
    return sorted(path.glob("*.log"))


def test_a_damaged_batch_costs_its_own_records(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    for file in (files(path)[1], files(path)[-1]):
        data = bytearray(file.read_bytes())
        data[len(split(bytes(data))[0]) + 500] ^= 4
        file.write_bytes(data)
    lost = [int(file.stem) + 1 for file in (files(path)[1], files(path)[-1])]
    said = repair(path)
    assert [f"records of offsets {n} to {n} are lost" in line for n, line in zip(lost, said, strict=True)] == [True, True], said
    assert offsets(open_store, path) == [n for n in range(BATCHES) if n not in lost]


def test_lengths_that_lead_nowhere_are_passed_over(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    file = files(path)[1]
    data = bytearray(file.read_bytes())
    data[8:12] = b"\x7f\xff\xff\xff"
    file.write_bytes(data)
    repair(path)
    assert offsets(open_store, path) == [n for n in range(BATCHES) if n != int(file.stem)]


def test_a_missing_segment_leaves_no_hole(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    gone = files(path)[2]
    first, after = int(gone.stem), int(files(path)[3].stem)
    for file in path.glob(f"{gone.stem}.*"):
        file.unlink()
    assert [f"no file has offsets {first} to {after - 1}" in line for line in repair(path)] == [True]
    assert offsets(open_store, path) == [n for n in range(BATCHES) if not first <= n < after]


def test_the_end_is_cut_where_nothing_follows(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    last = files(path)[-1]
    batches = split(last.read_bytes())
    last.write_bytes(b"".join(batches)[:-7])
    with pytest.raises(LogError, match="fastlog log repair"):
        open_store().open(path, segment_bytes=SEGMENT)
    assert [f"records from offset {BATCHES - 1} on are lost" in line for line in repair(path)] == [True]
    assert offsets(open_store, path, end=BATCHES - 1) == list(range(BATCHES - 1))


def test_an_end_that_is_missing_as_a_whole_is_told(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    last = files(path)[-1]
    last.write_bytes(b"".join(split(last.read_bytes())[:-1]))
    (found,) = [repair for repair in find_repairs(path.parent) if repair.path.suffix == ".snapshot"]
    assert found.what == f"the log ends at offset {BATCHES - 1}; records up to {BATCHES} were there and are lost"
    repair(path)
    assert offsets(open_store, path, end=BATCHES - 1) == list(range(BATCHES - 1))


def test_what_a_crash_leaves_is_the_next_starts(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    (path.parent / ".kafka_cleanshutdown").unlink()
    with files(path)[-1].open("ab") as file:
        file.write(b"torn" + bytes(4096))
    assert not list(find_repairs(path.parent))


def test_indexes_snapshots_and_epochs_are_made_anew(open_store: Callable[..., LocalStore], made: Made) -> None:
    path, _ = made
    index = files(path)[1].with_suffix(".index")
    index.write_bytes(b"\0\0\0\1" + b"\0\0\7\7" + index.read_bytes()[8:])
    snapshot = min(path.glob("*.snapshot"))
    snapshot.write_bytes(snapshot.read_bytes()[:-1] + b"x")
    (path / "leader-epoch-checkpoint").write_text("rubbish")
    assert repair(path) == []
    assert not index.exists()
    assert load_epochs(str(path)).entries == [(0, 0)]
    assert offsets(open_store, path) == list(range(BATCHES))


def test_what_is_changed_is_kept(made: Made, tmp_path: Path) -> None:
    path, _ = made
    file = files(path)[1]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    carry_out(list(find_repairs(path.parent)), tmp_path / "kept")
    assert (tmp_path / "kept/t-0" / file.name).read_bytes() == data
    assert not (path.parent / ".kafka_cleanshutdown").exists()


def test_it_must_be_a_data_directory(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="no data directory"):
        hold(tmp_path)


def test_placeholders_have_as_many_offsets_as_a_batch_can() -> None:
    (found,) = iter_batches(build_placeholder(5, 5 + 2**31 - 1, leader_epoch=3, timestamp_ms=7))
    assert (found.base_offset, found.last_offset, found.leader_epoch, found.max_timestamp, found.records) == (5, 5 + 2**31 - 2, 3, 7, ())
    for end in (5, 5 + 2**31):
        with pytest.raises(ValueError, match="offsets"):
            build_placeholder(5, end, leader_epoch=3, timestamp_ms=7)
