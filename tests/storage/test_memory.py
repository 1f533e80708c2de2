"""Chunks: little memory, many partitions, cold reads, pins."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.storage.build import Expected, batch, check, count_of, read_all, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore


def test_many_idle_partitions_in_little_memory(open_store: Callable[..., LocalStore], place: Path) -> None:
    """Far more partitions than chunks: each goes on where it was, its last partial block kept aside or read again."""
    store = open_store(memory=1 << 20)
    logs = [store.open(place / f"t-{i}", partition=i) for i in range(100)]
    expected = [Expected() for _ in logs]
    rng = random.Random(3)
    for _ in range(4):
        for i in rng.sample(range(100), 100):
            data = batch(1, rng.choice([10, 1000, 4000, 9000]))
            expected[i].add(data)
            logs[i].append(data, rng.choice([-1, 1]))
    assert store.stats()["evictions"] > 100
    for log, want in zip(logs, expected, strict=True):
        check(log, want)
    store.close()
    store = open_store(memory=1 << 20)
    for i, want in enumerate(expected):
        log = store.open(place / f"t-{i}", partition=i, clean=True)
        data = batch(1, 500)
        want.add(data)
        log.append(data)
        check(log, want, max_bytes=5000)
    store.close()


def test_cold_reads(open_store: Callable[..., LocalStore], place: Path) -> None:
    store = open_store(memory=2 << 20)
    log = store.open(place / "t-0", segment_bytes=1_500_000)
    expected = Expected()
    for i in range(400):
        data = batch(1 + i % 3, 1 + (i * 7919) % 20_000)
        expected.add(data)
        log.submit(data, -1).result() if i % 10 == 0 else log.append(data, 1)
    log.flush()
    for max_bytes in (1, 5000, 65_536, 1 << 20, 50 << 20):
        check(log, expected, max_bytes=max_bytes)
    rng = random.Random(1)
    for _ in range(200):
        offset = rng.randrange(expected.end)
        data = log.read(offset, rng.choice([1, 10_000, 300_000])).data
        assert split(data)
        assert expected.bytes_from(offset).startswith(data)
    stats = store.stats()
    assert stats["read_bytes_disk"] > 0
    assert stats["chunks_pinned"] == 0
    store.close()


def test_reading_in_order_reads_ahead(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(memory=32 << 20)
    log = store.open(tmp_path / "t-0")
    for _ in range(200):
        log.append(batch(1, 60_000), 1)
    store.close()
    store = open_store(memory=32 << 20)
    other = store.open(tmp_path / "t-1", partition=1)  # memory is made ready as it is asked for: so much that reads don't wait for it
    for _ in range(400):
        other.append(batch(1, 60_000), 1)
    other.close()
    log = store.open(tmp_path / "t-0", clean=True)
    assert len(read_all(log, 0, max_bytes=200_000)) == log.positions.bytes
    stats = store.stats()
    assert stats["reads_disk"] < 90  # of up to 1 MiB, not one for each of the 184 windows
    assert stats["read_bytes_disk"] < 1.3 * log.positions.bytes
    store.close()


def test_pins_hold_while_all_else_is_evicted(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0")
    for i in range(20):
        log.append(batch(1, 50_000, timestamp=i))
    held = [log.pin(i, 1) for i in (0, 3, 19)]
    before = [pin.data for pin in held]
    for i in range(100):
        log.append(batch(1, 50_000, timestamp=i), 1)
        log.read(i)
    assert [pin.data for pin in held] == before
    log.close()
    assert [pin.data for pin in held] == before  # even the log may be closed
    for pin in held:
        pin.release()
    assert store.stats()["chunks_pinned"] == 0
    store.close()


def test_a_cold_reader_leaves_the_tail_alone(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A reader of old data takes no more than its share, so that readers of the newest data go on from memory."""
    store = open_store(memory=8 << 20)
    log = store.open(tmp_path / "t-0")
    for _ in range(300):
        log.append(batch(1, 60_000), 1)
    newest = range(250, 300)
    for i in newest:
        log.read(i, 1)
    before = store.stats()["reads_disk"]
    for i in newest:
        log.read(i, 1)
    assert store.stats()["reads_disk"] == before
    for i in range(200):
        log.read(i)
    before = store.stats()["reads_disk"]
    for i in newest:
        log.read(i, 1)
    assert store.stats()["reads_disk"] == before
    store.close()


def test_a_batch_larger_than_the_cold_share(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(memory=8 << 20)
    log = store.open(tmp_path / "t-0")
    expected = Expected()
    for i in range(3):
        for size in (1000, 3_000_000):
            data = batch(1, size + i)
            expected.add(data)
            log.append(data, 1)
    log.flush()
    store.close()
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0", clean=True)
    check(log, expected)
    assert log.read(1, 100, whole_first=False).data == b""
    assert log.read(0, 10_000, whole_first=False).data == expected.batches[0][1]  # what comes from a disk is sent in whole batches
    held = log.pin(1, 1)
    assert held.data == expected.batches[1][1]
    held.release()
    store.close()


def test_reads_stay_within_limits(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    for _ in range(5):
        log.append(batch(2, 100))
    whole = log.read(0).data
    one = split(whole)[0]
    assert log.read(0, 0) == (0, b"", 0, 10, 10)
    assert log.read(0, 1).data == one
    assert log.read(0, len(one) + 20).data == whole[: len(one) + 20]
    assert log.read(0, 1, whole_first=False).data == b""
    assert log.read_committed(3)[0].data == whole[len(one) :]
    assert log.read(10)[:2] == (0, b"")
    assert log.read(11).error == 1
    assert log.read(-1).error == 1
    assert count_of(split(log.read(9).data)[0]) == 2
    store.close()
