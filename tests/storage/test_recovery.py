"""What opening finds after an end that was not clean, or was, or was tampered with."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from fastlog.native.logtool import LogError
from tests.storage.build import Expected, batch, check, count_of, read_all, segment_names, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore

INCONSISTENT_TOPIC_ID = 103
STORAGE_ERROR = 56


@pytest.fixture
def crashed(open_store: Callable[..., LocalStore], tmp_path: Path) -> tuple[Path, Expected]:
    """A log of three segments whose process died; all of it was durable."""
    store = open_store()
    path = tmp_path / "t-0"
    log = store.open(path, segment_bytes=60_000)
    expected = Expected()
    for i in range(30):
        data = batch(2, 2500, timestamp=1000 + i)
        expected.add(data)
        log.append(data)
    store.run(0.1)
    store.crash()
    assert len(segment_names(path)) == 3
    return path, expected


def last_segment(path: Path) -> Path:
    return path / segment_names(path)[-1]


def inside(path: Path, expected: Expected) -> list[tuple[int, bytes, int]]:
    """(base offset, bytes, file position) of the last segment's batches."""
    base = int(last_segment(path).stem)
    found = []
    at = 0
    for offset, data in expected.batches:
        if offset >= base:
            found.append((offset, data, at))
            at += len(data)
    return found


def patch(file: Path, at: int, data: bytes) -> None:
    with file.open("r+b") as f:
        f.seek(at)
        f.write(data)


def test_nothing_is_lost(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    store = open_store()
    log = store.open(path, leader_epoch=0)
    assert log.opened == (0, "", True, 0, 0)
    check(log, expected)
    assert last_segment(path).stat().st_size == sum(len(data) for _, data, _ in inside(path, expected))
    data = batch(5)
    expected.add(data)
    log.append(data)
    check(log, expected)
    store.close()
    store = open_store()
    log = store.open(path, clean=True)
    assert log.opened == (0, "", False, 0, 0)
    check(log, expected)
    store.close()


@pytest.mark.parametrize("how", ["cut", "cut in the header", "zeroed", "garbage", "flipped", "length", "offset"])
def test_a_torn_tail_is_cut(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected], how: str) -> None:
    """Damage in the last batch but two: that and what follows is gone, said with its size; then the log goes on."""
    path, expected = crashed
    file = last_segment(path)
    offset, data, at = inside(path, expected)[-3]
    match how:
        case "cut":
            with file.open("r+b") as f:
                f.truncate(at + len(data) - 7)
        case "cut in the header":
            with file.open("r+b") as f:
                f.truncate(at + 30)
        case "zeroed":
            patch(file, at + 1000, bytes(len(data) - 1000))
        case "garbage":
            patch(file, at, b"\xa5" * len(data))
        case "flipped":
            patch(file, at + 200, bytes([data[200] ^ 1]))
        case "length":
            patch(file, at + 8, b"\x7f\xff\xff\xff")
        case "offset":
            patch(file, at, (offset + 1).to_bytes(8, "big"))
    expected.cut(offset)
    lost = len(file.read_bytes()[at:].rstrip(b"\0"))
    store = open_store()
    log = store.open(path)
    assert log.opened.recovered
    assert log.opened.lost_bytes == lost
    assert f"offset {offset}" in log.opened.why
    check(log, expected)
    assert file.stat().st_size == at
    for _ in range(3):
        data = batch(1, 2000)
        expected.add(data)
        log.append(data)
    check(log, expected)
    store.crash()
    store = open_store()
    log = store.open(path)
    assert log.opened.lost_bytes == 0
    check(log, expected)
    store.close()


def test_stale_batches_behind_the_end(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    """Whole batches of an earlier life of the same blocks: with other offsets they don't pass; and nothing past the end stays."""
    path, expected = crashed
    file = last_segment(path)
    found = inside(path, expected)
    end = found[-1][2] + len(found[-1][1])
    stale = found[0][1] + stored(found[1][1], expected.end)
    patch(file, end, stale)
    store = open_store()
    log = store.open(path)
    assert log.opened.lost_bytes == len(stale.rstrip(b"\0"))
    check(log, expected)
    data = batch(count_of(found[0][1]), 2500)
    while len(data) != len(found[0][1]):
        data = batch(count_of(found[0][1]), 2500)
    expected.add(data)
    log.append(data)  # of the stale batch's size and offsets, so that the one behind it would continue the log
    store.crash()
    store = open_store()
    log = store.open(path)
    check(log, expected)
    store.close()


def test_damage_in_an_unsealed_segment_drops_those_behind(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    names = segment_names(path)
    middle = path / names[1]
    (path / names[2]).with_suffix(".snapshot").unlink()  # as if its sealing had not got so far
    patch(middle, 100, bytes([middle.read_bytes()[100] ^ 1]))
    lost = sum((path / name).stat().st_size for name in names[1:])
    store = open_store()
    log = store.open(path)
    assert 0 < log.opened.lost_bytes <= lost
    expected.cut(int(middle.stem))
    check(log, expected)
    assert segment_names(path) == names[:2]
    data = batch()
    expected.add(data)
    log.append(data)
    check(log, expected)
    store.close()


def test_sealed_segments_are_not_scanned(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    """The time of recovery is bounded by what was not sealed; damage in old segments is found by whoever reads them."""
    path, expected = crashed
    first = path / segment_names(path)[0]
    patch(first, 200, bytes([first.read_bytes()[200] ^ 1]))
    store = open_store()
    log = store.open(path)
    assert log.opened.lost_bytes == 0
    assert log.positions.log_end == expected.end
    store.close()


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, bytes(4096), b"\0\0\0\5\0\0\0\0" * 9, b"abc"], ids=range(5))
def test_indexes_are_not_trusted(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected], content: bytes) -> None:
    path, expected = crashed
    for clean in (False, True, True):
        for name in segment_names(path):
            (path / name).with_suffix(".index").write_bytes(content)
            (path / name).with_suffix(".timeindex").write_bytes(content)
        store = open_store()
        log = store.open(path, clean=clean)
        check(log, expected, max_bytes=7000)
        for i in (0, 7, 29):
            assert log.find_time(1000 + i).offset == max(0, 2 * i - 1)
        store.close()


def test_clean_is_believed_only_when_it_fits(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    store = open_store()
    log = store.open(path, clean=True)  # the file has zeroes past the end
    assert log.opened.recovered
    check(log, expected)
    store.close()


def test_provisional_segment_with_batches(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    """A crash between a roll and the rename: the provisional file continues the log."""
    path, expected = crashed
    (path / "next.segment").unlink(missing_ok=True)
    last = last_segment(path)
    last.rename(path / "next.segment")
    store = open_store()
    log = store.open(path)
    assert log.opened.lost_bytes == 0
    check(log, expected)
    assert last_segment(path) == last
    store.close()


@pytest.mark.parametrize("content", [b"", bytes(70_000), b"\x11" * 5000], ids=range(3))
def test_provisional_segment_without_batches(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected], content: bytes) -> None:
    path, expected = crashed
    (path / "next.segment").write_bytes(content)
    store = open_store()
    log = store.open(path)
    assert log.opened.lost_bytes == (len(content) if any(content) else 0)
    check(log, expected)
    assert not (path / "next.segment").exists()
    store.close()


def test_snapshots_past_the_end_go(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    (path / f"{expected.end + 5:020}.snapshot").write_bytes(b"\0\1" + bytes(8))
    (path / f"{expected.end - 1:020}.snapshot").write_bytes(b"nonsense")
    store = open_store()
    store.open(path)
    assert not (path / f"{expected.end + 5:020}.snapshot").exists()
    store.close()
    assert (path / f"{expected.end:020}.snapshot").exists()


def test_leftovers_are_removed(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    for name in (f"{9:020}.log.deleted", f"{0:020}.index.tmp", f"{0:020}.log.cleaned"):
        (path / name).write_bytes(b"x")
    store = open_store()
    log = store.open(path)
    check(log, expected)
    store.close()
    assert not [p for p in path.iterdir() if p.suffix in {".deleted", ".tmp", ".cleaned"}]


def test_the_epoch_is_never_below_the_last_batchs(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected]) -> None:
    path, expected = crashed
    store = open_store()
    log = store.open(path, leader_epoch=12)
    log.append(batch())
    store.crash()
    store = open_store()
    log = store.open(path, leader_epoch=3)
    assert log.positions.leader_epoch == 12
    assert log.positions.log_end == expected.end + 1
    store.close()


def test_an_empty_log(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    path = tmp_path / "t-0"
    store = open_store()
    store.open(path)
    store.crash()
    for clean in (False, True, False):
        store = open_store()
        log = store.open(path, clean=clean)
        assert log.positions[:4] == (0, 0, 0, 0)
        store.close()
    (path / f"{0:020}.log").unlink()
    (path / "next.segment").write_bytes(b"")
    store = open_store()
    assert store.open(path).append(batch()).base_offset == 0
    store.close()


def test_refusals(open_store: Callable[..., LocalStore], crashed: tuple[Path, Expected], tmp_path: Path) -> None:
    path, _ = crashed
    store = open_store()
    with pytest.raises(LogError, match="exists already") as failed:
        store.open(path, create=True)
    assert failed.value.code == STORAGE_ERROR
    with pytest.raises(LogError, match="another topic") as failed:
        store.open(path, topic_id=bytes(15) + b"\1")
    assert failed.value.code == INCONSISTENT_TOPIC_ID
    with pytest.raises(LogError) as failed:
        store.open(tmp_path / "missing" / "t-0", create=False)
    assert failed.value.code == STORAGE_ERROR
    (path / f"{0:020}.log.swap").write_bytes(b"")
    with pytest.raises(LogError, match="compaction"):
        store.open(path)
    store.close()


def test_adopts_what_another_broker_wrote(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A directory with only `.log` files, as after a copy: all else is made from them, compaction's gaps included."""
    path = tmp_path / "t-0"
    path.mkdir()
    expected = Expected()
    for _ in range(10):
        expected.add(batch(3, 400))
    kept = [pair for i, pair in enumerate(expected.batches) if i not in {1, 4}]
    (path / f"{0:020}.log").write_bytes(b"".join(data for base, data in kept if base < 15))
    (path / f"{15:020}.log").write_bytes(b"".join(data for base, data in kept if base >= 15))
    store = open_store()
    log = store.open(path, clean=True)
    assert log.positions[:4] == (0, 30, 30, 30)
    assert read_all(log, 0) == b"".join(data for _, data in kept)
    assert log.read(4).data[:8] == (6).to_bytes(8, "big")  # the next batch after the gap
    assert log.read(13).data[:8] == (15).to_bytes(8, "big")  # which may be in the next segment
    store.close()


@pytest.mark.parametrize("clean", [True, False])
def test_segments_without_a_batch(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    """Kafka's cleaner leaves such ones where all records of a segment were superseded."""
    path = tmp_path / "t-0"
    path.mkdir()
    expected = Expected()
    for i in range(10):
        expected.add(batch(3, 400, timestamp=1000 + 100 * i))
    kept = [pair for pair in expected.batches if pair[0] in {6, 24, 27}]
    for base, following in ((0, 6), (6, 12), (12, 18), (18, 24), (24, None)):
        held = b"".join(data for offset, data in kept if base <= offset < (following or 30))
        (path / f"{base:020}.log").write_bytes(held)
        times = [(1002 + 100 * (offset // 3), offset + 2 - base) for offset, _ in kept if following and base <= offset < following]
        (path / f"{base:020}.index").write_bytes(b"")
        (path / f"{base:020}.timeindex").write_bytes(b"".join(struct.pack(">qI", *entry) for entry in times))
        (path / f"{base:020}.snapshot").write_bytes(b"\0\1" + (0x48674BC7).to_bytes(4, "big") + bytes(4))
    (path / f"{0:020}.snapshot").unlink()
    store = open_store()
    log = store.open(path, clean=clean)
    assert log.opened.lost_bytes == 0
    assert log.positions[:4] == (0, 30, 30, 30)
    assert read_all(log, 0) == b"".join(data for _, data in kept)
    for offset in range(28):
        assert log.read(offset).data[:8] == min(base for base, _ in kept if base + 2 >= offset).to_bytes(8, "big")
    assert [log.find_time(timestamp).offset for timestamp in (0, 1203, 1800, 1803)] == [6, 24, 24, 27]
    assert log.append(batch(1)).base_offset == 30
    store.close()


def test_copies_of_every_prefix(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Cut at any byte, a segment opens with the whole batches before the cut."""
    store = open_store()
    log = store.open(tmp_path / "t-0")
    expected = Expected()
    for i in range(6):
        data = batch(1, 5 * i)
        expected.add(data)
        log.append(data)
    store.close()
    whole = (tmp_path / "t-0" / f"{0:020}.log").read_bytes()
    ends = []
    at = 0
    for _, data in expected.batches:
        at += len(data)
        ends.append(at)
    store = open_store()
    for cut in range(0, len(whole), 7):
        path = tmp_path / f"c-{cut}"
        shutil.copytree(tmp_path / "t-0", path, ignore=shutil.ignore_patterns("*.snapshot"))
        (path / f"{0:020}.log").write_bytes(whole[:cut])
        log = store.open(path, partition=cut, clean=cut % 2 == 0)
        assert log.positions.log_end == sum(end <= cut for end in ends)
        log.close()
    store.close()


@pytest.mark.parametrize("clean", [False, True])
def test_a_log_that_lost_what_was_durable_is_not_opened(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    """Somebody removed a segment from the middle, or cut the last one: nothing behind it is dropped, and the reason is named."""
    store = open_store()
    log = store.open(tmp_path / "t-0", segment_bytes=30_000)
    for _ in range(40):
        log.append(batch(1, 3000))
    store.close()
    middle = sorted((tmp_path / "t-0").glob("*.log"))[2]
    for file in (tmp_path / "t-0").glob(f"{middle.stem}.*"):
        file.unlink()
    last = max((tmp_path / "t-0").glob("*.log"))
    last.write_bytes(last.read_bytes()[:-100])
    (tmp_path / "t-0" / middle.name).with_suffix(".index").unlink(missing_ok=True)
    before = {file.name: file.read_bytes() for file in (tmp_path / "t-0").iterdir()}
    store = open_store()
    with pytest.raises(LogError, match=r"was stored durably up to 40: a segment is missing or damaged.*fastlog log repair"):
        store.open(tmp_path / "t-0", segment_bytes=30_000, clean=clean)
    assert {file.name: file.read_bytes() for file in (tmp_path / "t-0").iterdir()} == before


def test_a_segment_gone_from_the_middle_hides_nothing_behind_it(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0", segment_bytes=30_000)
    for _ in range(40):
        log.append(batch(1, 3000))
    store.close()
    for file in sorted((tmp_path / "t-0").glob("*.snapshot"))[:-1]:
        file.unlink()
    middle = sorted((tmp_path / "t-0").glob("*.log"))[2]
    for file in (tmp_path / "t-0").glob(f"{middle.stem}.*"):
        file.unlink()
    store = open_store()
    with pytest.raises(LogError, match=rf"breaks off at offset {int(middle.stem)} .no segment goes on there."):
        store.open(tmp_path / "t-0", segment_bytes=30_000)
