"""Disk reads take turns: a bounded part of them is under way, everybody's comes, and what is not wanted any more is not read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fastlog.native.logtool import LocalLog, LocalStore, Pinned
from fastlog.native.tape import Tape
from tests.storage.build import Expected, batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE = 1 << 19
BOUND = 1 << 20  # bytes under way above which no read is begun
UNKNOWN_TOPIC_OR_PARTITION = 3


class Disk:
    """Logs of 12 MB each that are on the disk only; what is asked of the disk is on a tape, and ends in order or at random."""

    def __init__(self, path: Path, logs: int, *, memory: int = 128 << 20, big: int = 0) -> None:
        self.tape = Tape(lambda _: 0)
        self.tape.take_over()
        self.expected = [Expected() for _ in range(logs)]
        store = LocalStore(tape=self.tape, memory=64 << 20)
        for i, expected in enumerate(self.expected):
            log = store.open(path / f"t-{i}", partition=i)
            for k in range(200):
                data = batch(1, big if big and k == 100 else 60_000)
                expected.add(data)
                log.append(data, 1)
        store.close()
        self.store = LocalStore(tape=self.tape, memory=memory)
        self.logs: list[LocalLog] = [self.store.open(path / f"t-{i}", partition=i, clean=True) for i in range(logs)]
        self.warm(path)
        self.most = 0  # bytes under way at once
        self.begun: list[tuple[int, int, int]] = []  # inode, place, bytes
        self.under_way: list[tuple[int, int, int]] = []

    def warm(self, path: Path) -> None:
        """Memory is made ready as it is asked for: this has all of it made, so that no read waits for that."""
        log = self.store.open(path / "other-0", partition=99)
        for _ in range(600):
            log.append(batch(1, 60_000), 1)
        log.delete()
        self.tape.events.clear()

    def turn(self) -> None:
        self.look()
        self.store.run(0.0)
        self.look()

    def look(self) -> None:
        now = self.tape.reads
        self.most = max(self.most, sum(n for _, _, n in now))
        self.begun += [one for one in now if one not in self.under_way]
        self.under_way = now

    def until(self, *pins: Pinned) -> None:
        """Turns until these reads are done. Should they wait for nothing, this never ends, and the test's time does."""
        while not all(pin.done for pin in pins):
            self.turn()

    def close(self) -> None:
        self.store.crash()
        self.tape.give_back()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[Disk]]:
    made: list[Disk] = []
    yield made
    for one in made:
        one.close()


def read_on(disk: Disk, log: int, max_bytes: int) -> bytes:
    """The whole log, as a consumer reads that asks for so much at a time."""
    got = b""
    offset = 0
    while offset < 200:
        pin = disk.logs[log].pin(offset, max_bytes, wait=False)
        disk.until(pin)
        assert pin.error == 0
        data = pin.data
        pin.release()
        whole = len(data) - len(data) % len(disk.expected[log].batches[0][1])
        assert whole
        got += data[:whole]
        offset += whole // len(disk.expected[log].batches[0][1])
    return got


@pytest.mark.parametrize("in_order", [True, False])
def test_so_much_is_under_way(disks: list[Disk], tmp_path: Path, in_order: bool) -> None:
    """A reader that asks for 10 MiB has the disk busy, and never with more than the bound and one more piece."""
    disks.append(Disk(tmp_path, 1))
    if not in_order:
        disks[0].tape.choose = random.Random(5).randrange
    assert read_on(disks[0], 0, 10 << 20) == disks[0].expected[0].bytes_from(0)
    assert BOUND <= disks[0].most < BOUND + PIECE
    assert max(n for _, _, n in disks[0].begun) == PIECE


def test_a_sequential_reader_is_served_in_order(disks: list[Disk], tmp_path: Path) -> None:
    """It asks again before all came of what it asked for, and stays one reader: what lies further on does not overtake."""
    disks.append(Disk(tmp_path, 1))
    read_on(disks[0], 0, 10 << 20)
    places = [at for _, at, _ in disks[0].begun]
    assert places == sorted(places)


def test_little_does_not_wait_for_much(disks: list[Disk], tmp_path: Path) -> None:
    """Beside readers of much, one of little waits for what is under way and a piece of each; also in the same log."""
    disks.append(Disk(tmp_path, 4))
    disk = disks[0]
    much = [disk.logs[i].pin(0, 10 << 20, wait=False) for i in range(3)]
    disk.turn()
    little = [disk.logs[log].pin(190, 100, wait=False) for log in (0, 3)]
    before = len(disk.begun)
    disk.until(*little)
    assert sum(n for _, _, n in disk.begun[before:]) <= BOUND + (3 + 2) * PIECE
    assert [pin.data for pin in little] == [disk.expected[log].batches[190][1] for log in (0, 3)]
    disk.until(*much)
    for pin, log in zip(much, range(3), strict=True):
        assert disk.expected[log].bytes_from(0).startswith(pin.data)
        assert pin.data
    for pin in (*little, *much):
        pin.release()


def test_readers_of_much_get_as_much(disks: list[Disk], tmp_path: Path) -> None:
    """Until one has had half of its 10 MiB, no other has had less than that by more than its lead at the start."""
    disks.append(Disk(tmp_path, 3))
    disk = disks[0]
    pins = [log.pin(0, 10 << 20, wait=False) for log in disk.logs]
    had: dict[int, int] = {}
    while max(had.values(), default=0) < 10 * PIECE:
        before = len(disk.begun)
        disk.turn()
        for inode, _, n in disk.begun[before:]:
            had[inode] = had.get(inode, 0) + n
    assert len(had) == 3
    assert max(had.values()) - min(had.values()) <= 3 * PIECE  # the first two went to whoever came first, the third is its turn
    disk.until(*pins)
    for pin in pins:
        pin.release()


def test_what_a_closed_log_waits_for_is_not_read(disks: list[Disk], tmp_path: Path) -> None:
    """Its readers get their error, it waits for no more than what is under way, and another's reader goes on."""
    disks.append(Disk(tmp_path, 2))
    disk = disks[0]
    closed = disk.logs[0].pin(0, 10 << 20, wait=False)
    other = disk.logs[1].pin(0, 10 << 20, wait=False)
    disk.turn()
    before = disk.store.stats()
    disk.logs[0].close()
    assert closed.done
    assert closed.error == UNKNOWN_TOPIC_OR_PARTITION
    inode = disk.begun[0][0]
    assert sum(n for i, _, n in disk.begun if i == inode) <= BOUND + PIECE
    disk.until(other)
    assert disk.expected[1].bytes_from(0).startswith(other.data)
    assert disk.store.stats()["read_bytes_disk"] - before["read_bytes_disk"] < 12 << 20
    other.release()
    assert read_on(disk, 1, 10 << 20) == disk.expected[1].bytes_from(0)


def test_a_batch_larger_than_memory_takes_turns_too(disks: list[Disk], tmp_path: Path) -> None:
    """Read into memory of its own, it is read in pieces; closing gives up the rest of them."""
    disks.append(Disk(tmp_path, 1, memory=8 << 20, big=5_000_000))
    disk = disks[0]
    pin = disk.logs[0].pin(100, 1, wait=False)
    disk.until(pin)
    assert pin.error == 0
    assert pin.data == disk.expected[0].batches[100][1]
    assert len([n for _, _, n in disk.begun if n == PIECE]) >= 8
    assert disk.most < BOUND + PIECE
    pin.release()
    pin = disk.logs[0].pin(100, 1, wait=False)
    before = len(disk.begun)
    while len(disk.begun) == before:
        disk.turn()
    disk.logs[0].close()
    assert pin.done
    assert pin.error == UNKNOWN_TOPIC_OR_PARTITION


def test_more_readers_than_there_are_reads(disks: list[Disk], tmp_path: Path) -> None:
    """All reads are taken by the first of them, who ask on and on; the others get theirs nevertheless, in the order they came."""
    disks.append(Disk(tmp_path, 8, memory=256 << 20))
    disk = disks[0]
    pins = [log.pin(0, 10 << 20, wait=False) for log in disk.logs]
    ended: list[int] = []
    while len(ended) < len(pins):
        disk.turn()
        for i, pin in enumerate(pins):
            if pin.done and i not in ended:
                ended.append(i)
                assert pin.error == 0
    assert sorted(ended) == list(range(8))
    for pin in pins:
        pin.release()
    assert disk.store.stats()["chunks_pinned"] == 0
