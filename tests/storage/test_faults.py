"""The table in docs/faults.md: what each failing call leads to."""

from __future__ import annotations

import errno
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.native.logtool import LocalLog, LocalStore, LogError
from fastlog.native.tape import Tape
from tests.storage.build import Expected, batch, check, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

STORAGE_ERROR = 56
SETTINGS: dict[str, Any] = {"segment_bytes": 30_000, "index_interval_bytes": 1000}
DOCUMENT = Path(__file__).parents[2] / "docs/faults.md"


class Bench:
    """One log whose calls to the disk fail on demand."""

    def __init__(self, path: Path) -> None:
        self.tape = Tape(random.Random(4).randrange)
        self.tape.take_over()
        self.path = path
        self.expected = Expected()
        self.store = LocalStore(tape=self.tape, memory=2 << 20)
        self.log: LocalLog = self.store.open(path, **SETTINGS)
        for _ in range(3):
            assert self.append() == 0

    def append(self, acks: int = -1) -> int:
        data = batch(1, 2000)
        error = self.log.append(data, acks).error
        if not error:
            self.expected.add(data)
        return error

    def fail(self, what: str, error: int, times: int = 1 << 30) -> None:
        """So many of the next calls of a kind fail."""
        left = [times]

        def fault(called: str, _: str | int) -> int:
            if called != what or not left[0]:
                return 0
            left[0] -= 1
            return error

        self.tape.fault = fault

    def again(self) -> None:
        """The process ends as if killed; a new one starts, on a disk that works."""
        self.tape.fault = None
        self.tape.kill(lambda data: [(0, data)])
        self.store.crash()
        self.store = LocalStore(tape=self.tape, memory=2 << 20)
        self.log = self.store.open(self.path, **SETTINGS)

    def close(self) -> None:
        self.tape.fault = None
        self.store.crash()
        self.tape.give_back()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "t-0")
    yield made
    made.close()


def until_refused(bench: Bench) -> int:
    """Appends until one is refused; over several segments."""
    for _ in range(60):
        error = bench.append()
        if error:
            return error
    return 0


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("write", errno.EIO),
        ("write", errno.ENOSPC),
        ("flush", errno.EIO),
        ("truncate", errno.EIO),
        ("rename", errno.EIO),
        ("dirsync", errno.EIO),
        ("allocate", errno.EIO),
        ("open", errno.EIO),
        ("open", errno.EROFS),
    ],
)
def test_the_partition_goes_offline(bench: Bench, what: str, error: int) -> None:
    """Producers get KAFKA_STORAGE_ERROR; what was acknowledged is there after a start on a disk that works."""
    bench.fail(what, error)
    assert until_refused(bench) == STORAGE_ERROR
    bench.store.run(0.0)
    assert bench.log.positions.offline == STORAGE_ERROR
    assert bench.append() == STORAGE_ERROR
    bench.again()
    kept = read_all(bench.log, 0)
    assert kept.startswith(bench.expected.bytes_from(0))
    assert bench.log.append(batch(1, 2000)).error == 0
    assert f"| {what} |" in DOCUMENT.read_text()


def test_a_full_disk_refuses_and_goes_on_by_itself(bench: Bench) -> None:
    bench.fail("allocate", errno.ENOSPC)
    assert until_refused(bench) == STORAGE_ERROR
    assert not bench.log.positions.offline
    check(bench.log, bench.expected)
    assert bench.append() == STORAGE_ERROR
    bench.tape.fault = None
    assert until_refused(bench) == 0
    check(bench.log, bench.expected)


def test_a_failed_read_fails_that_read_only(bench: Bench) -> None:
    while len(bench.expected.batches) < 40:
        assert bench.append() == 0
    bench.again()
    bench.fail("read", errno.EIO, times=1)
    assert bench.log.read(0).error == STORAGE_ERROR
    assert bench.log.read(0).error == 0
    assert bench.append() == 0


def test_a_log_that_can_not_be_opened_says_why(bench: Bench) -> None:
    bench.tape.kill(lambda data: [(0, data)])
    bench.store.crash()
    bench.fail("open", errno.EIO)
    bench.store = LocalStore(tape=bench.tape, memory=2 << 20)
    with pytest.raises(LogError, match="Input/output error"):
        bench.store.open(bench.path, **SETTINGS)
    bench.tape.fault = None
    bench.log = bench.store.open(bench.path, **SETTINGS)
    check(bench.log, bench.expected)


def written(log: LocalLog, store: LocalStore) -> None:
    """A record of acks=1, which is written, and not flushed, when this returns."""
    assert log.append(batch(1, 3000), 1).error == 0
    store.run(0.0)


def test_a_failed_flush_takes_what_was_not_flushed_there_offline(bench: Bench, tmp_path: Path) -> None:
    """Whose flush it was does not matter: the disk may have dropped whatever was in its cache. What was durable before goes on."""
    unflushed, stable = (bench.store.open(tmp_path / name, **SETTINGS) for name in ("u-0", "s-0"))
    assert stable.append(batch(1, 3000), -1).error == 0
    written(unflushed, bench.store)
    assert bench.append(1) == 0
    bench.fail("flush", errno.EIO, times=1)
    with pytest.raises(LogError):
        bench.log.flush()
    bench.store.run(0.0)
    assert [log.positions.offline for log in (bench.log, unflushed, stable)] == [STORAGE_ERROR, STORAGE_ERROR, 0]
    assert stable.append(batch(1, 3000), -1).error == 0
    bench.again()
    back = bench.store.open(tmp_path / "u-0", **SETTINGS)
    assert back.append(batch(1, 3000), -1).error == 0


def test_no_later_flush_vouches_for_what_an_earlier_one_lost(bench: Bench, tmp_path: Path) -> None:
    other = bench.store.open(tmp_path / "u-0", **SETTINGS)
    written(other, bench.store)
    assert bench.append(1) == 0
    bench.fail("flush", errno.EIO, times=1)
    with pytest.raises(LogError):
        bench.log.flush()
    with pytest.raises(LogError):
        other.flush()


def test_a_full_disk_is_no_failed_flush(bench: Bench, tmp_path: Path) -> None:
    other = bench.store.open(tmp_path / "u-0", **SETTINGS)
    written(other, bench.store)
    assert bench.append(1) == 0
    bench.fail("flush", errno.ENOSPC, times=1)
    with pytest.raises(LogError):
        bench.log.flush()
    other.flush()
    assert other.positions.offline == 0


def test_a_failed_flush_reaches_all_shards(engine: str, tmp_path: Path) -> None:
    """Each shard has a store of its own; another's failure wakes it. A flush of the calls that block fails here, on real engines."""
    tape = Tape(random.Random(4).randrange)
    tape.take_over()
    stores = [LocalStore(engine=engine, memory=2 << 20, shard=shard) for shard in range(2)]
    try:
        first, second = (store.open(tmp_path / f"t-{i}", **SETTINGS) for i, store in enumerate(stores))
        for log, store in zip((first, second), stores, strict=True):
            written(log, store)
        tape.fault = lambda what, _: errno.EIO if what == "flush" else 0
        first.submit(batch(1, 20_000), 1)
        first.submit(batch(1, 20_000), 1)  # the next segment
        deadline = time.monotonic() + 30
        while not (first.positions.offline and second.positions.offline) and time.monotonic() < deadline:
            for store in stores:
                store.run(0.01)
        assert (first.positions.offline, second.positions.offline) == (STORAGE_ERROR, STORAGE_ERROR)
    finally:
        tape.fault = None
        for store in stores:
            store.crash()
        tape.give_back()
