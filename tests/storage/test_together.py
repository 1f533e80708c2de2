"""A start that recovers many logs flushes for all of them at once, and knows when that was not to be had."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest

from fastlog._core import DiskSync
from fastlog.native.logtool import LocalLog, LocalStore, LogError
from fastlog.native.tape import Tape
from fastlog.storage.epochs import Epochs, load_epochs, save_epochs
from fastlog.storage.files import replace_files
from tests.storage.build import Expected, batch, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOGS = 5


class Killed:
    """A few logs, as a killed process leaves them: with blocks made ahead of each."""

    def __init__(self, root: Path) -> None:
        self.tape = Tape(random.Random(4).randrange)
        self.tape.take_over()
        self.root = root
        self.paths = [root / f"t-{i}" for i in range(LOGS)]
        self.expected = [Expected() for _ in self.paths]
        self.store = LocalStore(tape=self.tape, memory=2 << 20)
        for log, expected in zip([self.store.open(path) for path in self.paths], self.expected, strict=True):
            data = batch(1, 2000)
            expected.add(data)
            assert log.append(data).error == 0
        self.store.crash()
        self.store = LocalStore(tape=self.tape, memory=2 << 20)
        self.begun = len(self.tape.events)

    def start(self) -> list[LocalLog]:
        return [self.store.open(path, together=True) for path in self.paths]

    def count(self, *kinds: str) -> int:
        """Events of these kinds since the start began."""
        return sum(event[0] in kinds for event in self.tape.events[self.begun :])

    def close(self) -> None:
        self.tape.fault = None
        self.store.crash()
        self.tape.give_back()


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Killed]:
    made = Killed(tmp_path)
    yield made
    made.close()


def test_one_flush_for_all_logs(killed: Killed) -> None:
    sync = DiskSync(killed.root)
    killed.begun = len(killed.tape.events)
    logs = killed.start()
    assert killed.count("truncate") == LOGS
    assert killed.count("sync", "dirsync", "disksync") == 0
    sync.sync()
    assert killed.count("disksync") == 1
    for log, expected in zip(logs, killed.expected, strict=True):
        assert log.opened.recovered
        check(log, expected)
        assert log.append(batch(1, 100)).error == 0


def test_a_log_that_is_opened_alone_flushes_for_itself(killed: Killed) -> None:
    killed.store.open(killed.paths[0])
    assert killed.count("sync") + killed.count("dirsync") > 0


def test_a_flush_that_failed_stays_failed(killed: Killed) -> None:
    sync = DiskSync(killed.root)
    killed.start()
    killed.tape.fault = lambda what, _: errno.EIO if what == "flush" else 0
    with pytest.raises(OSError, match="Input/output error"):
        sync.sync()
    killed.tape.fault = None
    with pytest.raises(OSError, match="Input/output error"):
        sync.sync()
    DiskSync(killed.root).sync()


def test_so_does_one_that_somebody_else_needed(killed: Killed) -> None:
    """What it did not write may be what was to be flushed here."""
    sync = DiskSync(killed.root)
    logs = killed.start()
    killed.tape.fault = lambda what, _: errno.EIO if what == "flush" else 0
    assert logs[0].append(batch(1, 100), 1).error == 0
    with pytest.raises(LogError):
        logs[0].flush()
    killed.tape.fault = None
    with pytest.raises(OSError, match="Input/output error"):
        sync.sync()


def test_where_it_can_not_be_had(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskSync(tmp_path / "none")


def test_epochs_of_many_partitions(tmp_path: Path) -> None:
    """None of them has its name before all are whole."""
    paths = [tmp_path / f"t-{i}" for i in range(LOGS)]
    steps: list[list[list[tuple[int, int]]]] = []
    changed = {}
    for i, path in enumerate(paths):
        path.mkdir()
        before = Epochs()
        before.assign(0, 0)
        before.save(str(path))
        changed[str(path)] = epochs = load_epochs(str(path))
        epochs.assign(1, 10 + i)

    def sync() -> None:
        steps.append([load_epochs(str(path)).entries for path in paths])

    save_epochs(changed, sync)
    assert steps == [[[(0, 0)]] * LOGS, [[(0, 0), (1, 10 + i)] for i in range(LOGS)]]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("flush", [1, 2])
def test_files_are_whole_or_as_before_when_it_fails(tmp_path: Path, flush: int) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    left = [flush]

    def sync() -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.EIO, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        replace_files({tmp_path / name: b"new" for name in "ab"}, sync)
    assert {(tmp_path / name).read_bytes() for name in "ab"} == {b"old" if flush == 1 else b"new"}


def test_names_and_sizes_are_in_it(place: Path, open_store: Callable[..., LocalStore]) -> None:
    """On real file systems, as far as a process can see."""
    store = open_store()
    expected = Expected()
    log = store.open(place / "t-0")
    data = batch(3, 5000)
    expected.add(data)
    log.append(data)
    store.crash()
    store = open_store()
    sync = DiskSync(place)
    log = store.open(place / "t-0", together=True)
    sync.sync()
    check(log, expected)
    assert (place / "t-0" / f"{0:020}.log").stat().st_size == len(data)
    store.close()
