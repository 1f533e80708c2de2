"""Long active segments: index entries that left memory, and recovery from a checkpoint inside the segment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.storage.build import Expected, batch, check, read_all, reference_indexes, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

MIB = 1 << 20


def probe(log: LocalLog, expected: Expected) -> None:
    """Reads and finds times all over the log."""
    for base, data in expected.batches[::377]:
        assert log.read(base, 1).data == data
        timestamp = int.from_bytes(data[35:43], "big")
        assert log.find_time(timestamp) == (0, base, timestamp)
    assert log.find_time(-3).offset == expected.end - 1


@pytest.mark.parametrize("clean", [True, False])
def test_index_entries_leave_memory(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    """With an entry for every batch: the files get what memory does not keep, and hold the same in the end."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 * MIB)
    log = store.open(path, index_interval_bytes=0)
    expected = Expected()
    for i in range(6000):
        data = batch(1, 20, timestamp=1000 + i)
        expected.add(data)
        log.append(data, 1)
    store.run(0.05)
    assert (path / f"{0:020}.index").stat().st_size >= 2048 * 8
    probe(log, expected)
    store.close() if clean else store.crash()
    store = open_store(memory=4 * MIB)
    log = store.open(path, index_interval_bytes=0, clean=clean)
    probe(log, expected)
    for i in range(3000):
        data = batch(1, 20, timestamp=8000 + i)
        expected.add(data)
        log.append(data, 1)
    probe(log, expected)
    check(log, expected)
    log.roll()
    probe(log, expected)
    store.close()
    offsets, times = reference_indexes(expected.batches, 0, 0)
    assert (path / f"{0:020}.index").read_bytes() == offsets
    assert (path / f"{0:020}.timeindex").read_bytes() == times


def test_recovery_starts_at_the_checkpoint(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    path = tmp_path / "t-0"
    store = open_store(memory=16 * MIB)
    log = store.open(path)
    data = batch(1, MIB - 1000)
    assert store.pump([log], data, 200, acks=1, in_flight=4) == 0
    for i in range(3):
        log.append(batch(1, producer_id=4, producer_epoch=0, base_sequence=i))
    store.run(0.1)
    snapshots = [int(p.stem) for p in path.glob("*.snapshot")]
    assert len(snapshots) == 1
    assert 120 < snapshots[0] < 150
    store.crash()

    file = path / f"{0:020}.log"
    with file.open("r+b") as f:
        f.seek(50 * len(data) + 1000)  # what is durable is not read again
        f.write(b"damage")
    store = open_store(memory=16 * MIB)
    log = store.open(path)
    assert log.opened.recovered
    assert log.opened.lost_bytes == 0
    assert log.positions.log_end == 203
    assert log.append(batch(1, producer_id=4, producer_epoch=0, base_sequence=2)).base_offset == 202
    assert len(split(read_all(log, 150))) == 53
    store.crash()

    with file.open("r+b") as f:
        f.seek(170 * len(data) + 1000)  # what follows is
        f.write(b"damage")
    store = open_store(memory=16 * MIB)
    log = store.open(path)
    assert log.positions.log_end == 170
    assert log.append(batch(1, producer_id=4, producer_epoch=0, base_sequence=0)).base_offset == 170
    store.close()
    assert [int(p.stem) for p in path.glob("*.snapshot")] == [171]


def test_a_checkpoint_that_leads_nowhere_is_left(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    path = tmp_path / "t-0"
    store = open_store()
    log = store.open(path, index_interval_bytes=0)
    expected = Expected()
    for _ in range(20):
        data = batch(2, 100)
        expected.add(data)
        log.append(data)
    store.crash()
    (path / f"{7:020}.snapshot").write_bytes(b"\0\1" + (0x48674BC7).to_bytes(4, "big") + bytes(4))  # an empty one, within a batch
    (path / f"{0:020}.index").write_bytes(b"\0\0\0\3\0\0\0\x50" + b"\0\0\0\5\0\0\1\0")
    (path / f"{0:020}.timeindex").write_bytes(b"\0\0\0\0\0\0\4\0\0\0\0\5")
    store = open_store()
    log = store.open(path, index_interval_bytes=0)
    assert log.opened.lost_bytes == 0
    check(log, expected)
    store.close()


def test_what_lies_past_all_checkpoints_is_bounded(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """By checkpoints of logs that nobody writes to any more, too."""
    store = open_store(memory=16 * MIB, unchecked_max=MIB)
    logs = [store.open(tmp_path / f"t-{i}") for i in range(20)]
    expected = [Expected() for _ in logs]
    for log, wanted in zip(logs, expected, strict=True):
        for _ in range(20):
            data = batch(1, 10_000)
            wanted.add(data)
            log.append(data, 1)

    def past() -> int:
        """Bytes that a start would look through, by the files."""
        found = [max((int(p.stem) for p in (tmp_path / f"t-{i}").glob("*.snapshot")), default=0) for i in range(len(logs))]
        return sum((20 - offset) * len(data) for offset in found)

    deadline = time.monotonic() + 30
    while not past() == store.stats()["unchecked_bytes"] <= MIB and time.monotonic() < deadline:
        store.run(0.01)
    assert MIB // 2 < past() == store.stats()["unchecked_bytes"] <= MIB
    store.crash()
    store = open_store(memory=16 * MIB)
    for i, wanted in enumerate(expected):
        log = store.open(tmp_path / f"t-{i}")
        assert log.opened.recovered
        check(log, wanted)
    assert MIB // 2 < store.stats()["unchecked_bytes"] <= MIB, "a start does not forget them"
    for log in list(store.logs):
        log.close()
    assert store.stats()["unchecked_bytes"] == 0


@pytest.mark.parametrize("clean", [True, False])
def test_what_a_start_looked_through_counts_for_the_next_one(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    """A broker that is killed again and again does not have more and more to look through."""
    data = batch(1, 100_000)
    for life in range(2):
        store = open_store(checkpoint_bytes=MIB)
        log = store.open(tmp_path / "t-0", clean=clean and life > 0)
        for _ in range(7):
            log.append(data, 1)
        store.run(0.0)
        log.flush()
        assert store.stats()["unchecked_bytes"] == (3 if life and not clean else 7) * len(data)
        if clean:
            store.close()
        else:
            store.crash()


def test_a_checkpoint_from_before_the_log_began_says_nothing_of_producers(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """It is all there is when the snapshot of a segment's end could not be written, and the segment was removed then."""
    path = tmp_path / "t-0"
    store = open_store(checkpoint_bytes=20_000)
    log = store.open(path)
    for i in range(10):
        assert log.append(batch(1, 5000, producer_id=4, producer_epoch=0, base_sequence=i)).error == 0
    deadline = time.monotonic() + 30
    while not list(path.glob("*.snapshot")) and time.monotonic() < deadline:
        store.run(0.01)
    (checkpoint,) = path.glob("*.snapshot")
    stale = checkpoint.read_bytes()
    log.roll()
    log.append(batch(1, 100))
    while not (path / f"{10:020}.snapshot").exists() and time.monotonic() < deadline:
        store.run(0.01)
    store.crash()
    for name in (f"{0:020}.log", f"{0:020}.index", f"{0:020}.timeindex", f"{10:020}.snapshot"):
        (path / name).unlink()
    checkpoint.write_bytes(stale)
    assert int(checkpoint.stem) < 10
    store = open_store()
    log = store.open(path)
    assert (log.positions.log_start, log.positions.log_end) == (10, 11)
    assert log.append(batch(1, 100, producer_id=4, producer_epoch=0, base_sequence=10)).error == 0
