"""Appends: promises, visibility, idempotence, parking, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.storage.build import Expected, batch, check, count_of, read_all, split, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore


OUT_OF_ORDER = 45
INVALID_EPOCH = 47
SEQUENCE_MAX = 2**31 - 1


def test_offsets_and_bytes(open_store: Callable[..., LocalStore], place: Path) -> None:
    store = open_store()
    log = store.open(place / "t-0", leader_epoch=7)
    expected = Expected()
    for acks in (-1, 1, 0, -1, 1):
        data = batch(3, 500)
        assert log.append(data, acks) == (0, expected.add(data, 7), 0)
    check(log, expected)
    assert log.read(4).data == expected.bytes_from(4)  # from the batch that holds the offset
    assert log.positions.leader_epoch == 7
    log.set_leader_epoch(8)
    data = batch()
    log.append(data)
    assert log.read(15).data == stored(data, 15, 8)
    store.close()


def test_acks_all_is_durable_when_done(open_store: Callable[..., LocalStore], place: Path) -> None:
    store = open_store()
    log = store.open(place / "t-0")
    for i in range(20):
        log.append(batch(2, 3000), 1 if i % 3 == 0 else -1)
        accepted, written, durable = log.progress
        assert written == accepted
        if i % 3:
            assert durable == accepted
    store.close()


@pytest.mark.parametrize("together", [False, True], ids=["each", "together"])
def test_flushes_of_many_logs(open_store: Callable[..., LocalStore], tmp_path: Path, together: bool) -> None:
    """Small durable writes of many logs: each with its own flush, or with one flush of the device for all that ended."""
    store = open_store(flush_group=together)
    logs = [store.open(tmp_path / f"t-{i}", partition=i) for i in range(64)]
    for _ in range(30):  # the first ones are on blocks that were never written, which owe metadata
        pending = [log.submit(batch(1, 1000)) for log in logs]
        assert all(one.result().error == 0 for one in pending)
    assert all(durable == accepted for accepted, _, durable in (log.progress for log in logs))
    stats = store.stats()
    assert stats["writes"] >= 30 * 64
    assert (0 < stats["flushes"] < 500) if together else stats["flushes"] == 0
    store.close()


def test_write_caching_and_flush_settings(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path) -> None:
    store = open_store(arena=arena_path)
    caching = store.open(tmp_path / "a-0", write_caching=True)
    caching.append(batch(), -1)
    assert caching.progress[2] == 0  # acks=-1 means no more than acks=1 here
    every = store.open(tmp_path / "b-0", partition=1, flush_messages=2)
    every.append(batch(), 1)
    assert every.progress[2] == 0
    every.append(batch(), 1)
    accepted, _, durable = every.progress
    assert durable == accepted
    timed = store.open(tmp_path / "c-0", partition=2, flush_ms=20)
    timed.append(batch(), 1)
    store.run(0.3)
    accepted, _, durable = timed.progress
    assert durable == accepted
    store.close()


def test_lazy_bytes_are_written_soon(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path) -> None:
    store = open_store(arena=arena_path)
    log = store.open(tmp_path / "t-0")
    log.append(batch(), 1)
    assert log.progress[1] == 0  # the arena keeps the promise
    store.run(0.4)
    accepted, written, _ = log.progress
    assert written == accepted
    store.close()


def test_visible_in_order_of_promises(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path) -> None:
    """A batch with acks=1 behind one with acks=-1 is answered at once and visible only after it."""
    store = open_store(arena=arena_path)
    log = store.open(tmp_path / "t-0")
    log.append(batch(), -1)  # blocks are there from here on
    first = log.submit(batch(), -1)
    second = log.submit(batch(), 1)
    assert not first.done
    assert second.done
    assert log.positions.high_watermark == 1
    assert log.positions.log_end == 3
    assert log.read(1).data == b""
    assert count_of(split(log.read(1, to_log_end=True).data)[0]) == 1
    assert first.result().error == 0
    assert log.positions.high_watermark == 3
    store.close()


def test_watches(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.append(batch(2))
    already, later, never = log.watch(1), log.watch(2), log.watch(2)
    never.cancel()
    assert [w.fired for w in (already, later, never)] == [False, False, False]  # never from inside the call that arms it
    store.run()
    assert [w.fired for w in (already, later, never)] == [True, False, False]
    log.append(batch())
    store.run(0.01)
    assert [w.fired for w in (already, later, never)] == [True, True, False]
    closing = log.watch(100)
    log.close()
    store.run()
    assert closing.fired
    store.close()


def test_idempotence(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")

    def send(sequence: int, epoch: int = 0, count: int = 1, producer: int = 5, acks: int = -1) -> tuple[int, int]:
        data = batch(count, producer_id=producer, producer_epoch=epoch, base_sequence=sequence)
        return log.append(data, acks)[:2]

    assert send(7) == (0, 0)  # an unknown producer may start anywhere
    for i in range(6):
        assert send(8 + i) == (0, 1 + i)
    assert send(20) == (OUT_OF_ORDER, -1)
    assert send(12) == (0, 5)  # a duplicate gets its original's offset
    assert send(9, acks=1) == (0, 2)
    assert send(8) == (OUT_OF_ORDER, -1)  # the sixth last is forgotten
    assert log.positions.log_end == 7
    assert send(0, epoch=1, count=3) == (0, 7)
    assert send(3, epoch=0) == (INVALID_EPOCH, -1)
    assert send(1, epoch=2) == (OUT_OF_ORDER, -1)  # a new epoch starts at 0
    assert send(1, epoch=1) == (OUT_OF_ORDER, -1)  # half of a batch is no duplicate
    assert send(3, epoch=1) == (0, 10)
    assert send(0, epoch=1, count=3) == (0, 7)
    assert send(0, epoch=9, producer=6) == (0, 11)
    store.close()


def test_sequences_wrap(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")

    def send(sequence: int, count: int) -> tuple[int, int]:
        return log.append(batch(count, producer_id=1, producer_epoch=0, base_sequence=sequence))[:2]

    assert send(SEQUENCE_MAX - 4, 3) == (0, 0)
    assert send(SEQUENCE_MAX - 1, 5) == (0, 3)  # ..., 2^31-1, 0, 1, 2
    assert send(SEQUENCE_MAX - 1, 5) == (0, 3)
    assert send(4, 1) == (OUT_OF_ORDER, -1)
    assert send(3, 1) == (0, 8)
    store.close()


def test_duplicate_waits_for_its_original(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path) -> None:
    """A duplicate with acks=-1 of a batch that was acknowledged from memory is answered when that is durable."""
    store = open_store(arena=arena_path)
    log = store.open(tmp_path / "t-0")
    data = batch(producer_id=1, producer_epoch=0, base_sequence=0)
    assert log.append(data, 1).base_offset == 0
    assert log.progress[2] == 0
    again = log.submit(data, -1)
    assert not again.done
    assert again.result()[:2] == (0, 0)
    assert log.progress[2] == log.progress[0]
    assert log.positions.log_end == 1
    store.close()


@pytest.mark.parametrize("clean", [True, False])
def test_producers_survive_reopening(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    sent = [batch(2, producer_id=9, producer_epoch=3, base_sequence=2 * i) for i in range(4)]
    for data in sent[:2]:
        log.append(data)
    log.roll()
    for data in sent[2:]:
        log.append(data)
    store.close() if clean else store.crash()
    store = open_store()
    log = store.open(tmp_path / "t-0", clean=clean)
    assert log.append(sent[3])[:2] == (0, 6)
    assert log.append(batch(producer_id=9, producer_epoch=2, base_sequence=8)).error == INVALID_EPOCH
    assert log.append(batch(producer_id=9, producer_epoch=3, base_sequence=9)).error == OUT_OF_ORDER
    assert log.append(batch(producer_id=9, producer_epoch=3, base_sequence=8))[:2] == (0, 8)
    store.close()


def test_too_large(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(memory=2 << 20)
    log = store.open(tmp_path / "t-0", segment_bytes=600_000)
    assert log.append(batch(1, 1_100_000)).error == 10
    assert log.append(batch(1, 700_000)).error == 18
    assert log.append(batch(1, 590_000)).error == 0
    assert log.positions.log_end == 1
    store.close()


def test_parked_appends_keep_their_order(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Many more bytes than memory, at once, on several logs: all wait their turn and none is lost."""
    store = open_store(memory=1 << 20)
    logs = [store.open(tmp_path / f"t-{i}", partition=i, segment_bytes=300_000) for i in range(3)]
    expected = [Expected() for _ in logs]
    pending = []
    for i in range(300):
        for log, want in zip(logs, expected, strict=True):
            data = batch(1, 1 + (i * 7919) % 100_000)
            want.add(data)
            pending.append((log.submit(data, (-1, 1, 0)[i % 3]), want.end - 1))
    for one, base in pending:
        assert one.result()[:2] == (0, base)
    assert store.stats()["parked"] > 0
    for log, want in zip(logs, expected, strict=True):
        log.flush()
        check(log, want)
    store.close()


def test_appends_wait_while_readers_hold_all_memory(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0")
    for _ in range(14):
        log.append(batch(1, 60_000))
    held = [log.pin(i, 1) for i in range(14)]
    before = [pin.data for pin in held]
    waiting = [log.submit(batch(1, 250_000)) for _ in range(6)]  # each takes more chunks than are left
    store.run(0.1)
    assert not any(one.done for one in waiting)
    assert [pin.data for pin in held] == before
    for pin in held:
        pin.release()
    assert [one.result()[:2] for one in waiting] == [(0, 14 + i) for i in range(6)]
    assert len(read_all(log, 0)) == log.positions.bytes
    assert store.stats()["chunks_pinned"] == 0
    store.close()


def test_closing_fails_what_comes_later(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    for _ in range(50):
        log.submit(batch(1, 10_000), -1)
    log.close()
    log = store.open(tmp_path / "t-0", clean=True)
    assert not log.opened.recovered
    store.close()
