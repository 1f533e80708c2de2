"""Transactions in a log: the last stable offset, aborted transactions, fencing, and all of it after rolls, restarts and crashes.

The model below is a plain list of what Kafka's log would hold; a reader of committed records is simulated as clients do it.
"""

from __future__ import annotations

import random
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import CONTROL, TRANSACTIONAL, build_end_marker, iter_batches
from tests.storage.build import batch, split
from tests.storage.committed import committed
from tests.support.java import dump_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

NOW = int(time.time() * 1000)  # of a day or more ago, producers would be forgotten


def data(producer: int, epoch: int, sequence: int, count: int = 1, size: int = 50, attributes: int = TRANSACTIONAL) -> bytes:
    return batch(count, size, NOW, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, attributes=attributes)


def marker(producer: int, epoch: int, *, commit: bool, coordinator: int = 0) -> bytes:
    return build_end_marker(producer_id=producer, producer_epoch=epoch, coordinator_epoch=coordinator, commit=commit, timestamp_ms=NOW)


class Known(NamedTuple):
    """An entry of a producer snapshot."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    txn_first: int


def known(snapshot: bytes) -> dict[int, Known]:
    return {entry[0]: Known(*entry) for entry in struct.iter_unpack(">qhiqiqiq", snapshot[10:])}


class Aborted(NamedTuple):
    version: int
    producer_id: int
    first: int
    last: int
    last_stable: int


def txnindex(path: Path) -> list[Aborted]:
    return [Aborted(*entry) for entry in struct.iter_unpack(">hqqqq", path.read_bytes())]


def test_the_last_stable_offset_waits_for_the_oldest_transaction(open_store: Callable[..., LocalStore], place: Path) -> None:
    log = open_store().open(place / "t-0")
    log.append(batch(2))
    assert log.append(data(1, 0, 0, 3)).base_offset == 2
    assert log.append(data(2, 0, 0)).base_offset == 5
    log.append(batch(1))
    assert (log.positions.last_stable, log.positions.high_watermark) == (2, 7)
    watcher = log.watch(2, committed=True)
    assert log.append(marker(2, 0, commit=True)).error == 0
    assert (log.positions.last_stable, watcher.fired) == (2, False)
    assert log.append(marker(1, 0, commit=False)).error == 0
    assert log.positions.last_stable == log.positions.high_watermark == 9
    log.append(batch(1))  # a turn later the watch has fired
    assert watcher.fired
    found, aborted = log.read_committed(0)
    assert (found.error, found.last_stable, aborted) == (0, 10, [(1, 2)])
    assert [one.base_offset for one in committed(found.data, aborted)] == [0, 5, 6, 9]


def test_bytes_end_at_the_last_stable_offset(open_store: Callable[..., LocalStore], place: Path) -> None:
    log = open_store().open(place / "t-0")
    log.append(batch(1))
    log.append(data(1, 0, 0))
    log.append(batch(5, 3000))
    found, aborted = log.read_committed(0)
    assert ([one.base_offset for one in iter_batches(found.data)], aborted) == ([0], [])
    assert log.read_committed(1)[0].data == b""
    assert len(list(iter_batches(log.read(0).data))) == 3


def test_aborted_transactions_in_files_and_in_memory(
    open_store: Callable[..., LocalStore], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """A checkpoint leaves the older ones of the active segment to its file; who reads over both learns of both."""
    store = open_store(checkpoint_bytes=5000)
    log = store.open(tmp_path / "t-0")
    log.append(data(1, 0, 0))
    log.append(marker(1, 0, commit=False))
    index = tmp_path / "t-0" / f"{0:020}.txnindex"

    def kept() -> bool:
        log.append(batch(1, 3000))
        store.run(0.01)
        return index.exists() and len(txnindex(index)) == 1

    eventually(kept, 30)
    store.run(0.1)
    second = log.append(data(2, 0, 0)).base_offset
    log.append(marker(2, 0, commit=False))
    found, aborted = log.read_committed(0)
    assert aborted == [(1, 0), (2, second)]
    assert len(found.data) == log.positions.bytes
    assert log.read_committed(second)[1] == [(2, second)]


def test_epochs_fence_markers_as_kafka_does(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    log = open_store().open(tmp_path / "t-0")
    assert log.append(data(1, 5, 0)).error == 0
    assert log.append(marker(1, 4, commit=True)).error == Error.INVALID_PRODUCER_EPOCH
    # version 2: the end of a transaction has an epoch of its own; said again, it finds the transaction ended
    assert log.append(marker(1, 5, commit=True), txn_version=2).error == Error.INVALID_PRODUCER_EPOCH
    assert log.append(marker(1, 6, commit=True, coordinator=3), txn_version=2).error == 0
    assert log.append(marker(1, 6, commit=True, coordinator=3), txn_version=2).error == 0
    assert log.append(marker(1, 7, commit=True, coordinator=2), txn_version=2).error == Error.TRANSACTION_COORDINATOR_FENCED
    assert log.append(data(1, 5, 1)).error == Error.INVALID_PRODUCER_EPOCH
    # the epoch that the marker began starts at sequence 0
    assert log.append(data(1, 6, 1)).error == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert log.append(data(1, 6, 0)).error == 0
    # outside of it nothing of the producer is taken while its transaction is under way
    assert log.append(data(1, 6, 1, attributes=0)).error == Error.INVALID_TXN_STATE
    assert log.append(marker(1, 6, commit=False, coordinator=3)).error == 0
    assert log.append(data(1, 6, 1, attributes=0)).error == 0
    # at the last epoch there is none to go to
    assert log.append(data(2, 32767, 0)).error == 0
    assert log.append(marker(2, 32767, commit=False), txn_version=2).error == 0
    assert log.positions.last_stable == log.positions.log_end


def test_a_client_begins_a_transaction_only_with_the_newest_guard(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    log = open_store().open(tmp_path / "t-0")
    assert log.append(data(1, 0, 0), guard=0).error == Error.INVALID_TXN_STATE
    guard = log.ask(1, 0, 0)
    assert guard != 0
    assert log.ask(1, 0, 5) == guard, "two questions at once have one answer"
    # a batch before it failed and will come again: those behind it wait for it
    assert log.append(data(1, 0, 5), guard=guard).error == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert log.append(data(1, 0, 0), guard=guard).error == 0
    assert log.ask(1, 0, 1) == 0, "it is under way"
    assert log.append(data(1, 0, 1), guard=0).error == 0
    # a marker makes what was allowed before it void
    assert log.append(marker(1, 0, commit=False)).error == 0
    stale = log.ask(1, 0, 2)
    assert log.append(marker(1, 0, commit=False)).error == 0
    assert log.append(data(1, 0, 2), guard=stale).error == Error.INVALID_TXN_STATE
    assert log.append(data(1, 0, 1), guard=0).base_offset == 1, "a duplicate needs no permission"
    assert log.append(data(1, 0, 2), guard=log.ask(1, 0, 2)).error == 0
    # transactions of version 2: an unknown producer begins at sequence 0
    guard = log.ask(7, 0, 3, bumps=True)
    assert log.append(data(7, 0, 3), guard=guard).error == Error.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_deleted_records_free_the_last_stable_offset(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    log = open_store().open(tmp_path / "t-0")
    log.append(data(1, 0, 0, 5))
    log.append(batch(5))
    assert log.delete_records(7) == 7
    positions = log.positions
    assert (positions.log_start, positions.last_stable, positions.high_watermark) == (7, 7, 10)
    assert log.read_committed(7)[0].data == b""
    assert log.append(marker(1, 0, commit=True)).error == 0
    assert log.positions.last_stable == 11


def test_files_are_kafkas(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.append(data(1, 0, 0, 2))
    log.append(data(2, 0, 0, 2))
    log.append(marker(2, 0, commit=False))
    log.roll()
    log.append(data(3, 0, 0))
    log.append(marker(1, 0, commit=False, coordinator=7))
    store.close()
    first, second = tmp_path / "t-0" / f"{0:020d}.txnindex", tmp_path / "t-0" / f"{5:020d}.txnindex"
    assert txnindex(first) == [Aborted(0, 2, 2, 4, 0)]
    assert txnindex(second) == [Aborted(0, 1, 0, 6, 5)]
    entries = known((tmp_path / "t-0" / f"{7:020d}.snapshot").read_bytes())
    assert entries[1] == Known(1, 0, 1, 1, 1, NOW, 7, -1)
    assert (entries[3].txn_first, entries[3].coordinator_epoch) == (5, -1)
    assert known((tmp_path / "t-0" / f"{5:020d}.snapshot").read_bytes())[1].txn_first == 0


def test_aborted_transactions_survive_lost_indexes(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A segment's indexes are made anew from its batches and the producers known at its start."""
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.append(data(1, 0, 0))
    for _ in range(2):
        log.append(batch(1))
        log.roll()
    log.append(marker(1, 0, commit=False))
    log.append(batch(1))
    log.roll()
    log.append(batch(1))
    store.close()
    for clean in (True, False, True):
        for path in (tmp_path / "t-0").glob("*.*index"):
            path.unlink()
        store = open_store()
        log = store.open(tmp_path / "t-0", clean=clean)
        assert log.read_committed(0)[1] == [(1, 0)]
        store.close()


def test_segments_take_their_aborted_transactions_along(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    for producer in range(3):
        log.append(data(producer, 0, 0))
        log.append(marker(producer, 0, commit=False))
        log.roll()
    log.append(batch(1))
    assert log.read_committed(0)[1] == [(0, 0)]
    log.delete_records(4)
    log.append(batch(1))
    assert log.read_committed(4)[1] == [(2, 4)]
    store.run(0.2)
    assert sorted(path.name for path in (tmp_path / "t-0").glob("*.txnindex")) == [f"{4:020d}.txnindex"]


def test_idle_producers_are_forgotten_but_for_those_in_a_transaction(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store(producer_expires_ms=50)
    log = store.open(tmp_path / "t-0")
    log.append(data(1, 0, 0, attributes=0))
    log.append(data(2, 0, 0))
    log.append(data(3, 0, 0))
    log.append(marker(3, 0, commit=True))
    for _ in range(100):
        store.run(0.05)
        if set(known(log.producers())) == {2}:
            break
    assert set(known(log.producers())) == {2}
    assert log.positions.last_stable == 1


@pytest.mark.java
@pytest.mark.timeout(300)
def test_kafka_reads_transactions(open_store: Callable[..., LocalStore], tmp_path: Path, kafka_classpath: str) -> None:
    """DumpLogSegments accepts control batches, .txnindex files and snapshots with a transaction under way."""
    store = open_store()
    path = tmp_path / "t-0"
    log = store.open(path)
    for producer in range(1, 4):
        log.append(data(producer, 0, 0))
    log.append(marker(1, 0, commit=False, coordinator=4))
    log.roll()
    log.append(marker(2, 0, commit=True, coordinator=4))
    log.append(data(1, 0, 1))
    log.append(marker(1, 0, commit=False, coordinator=4))
    store.close()
    files = sorted(str(p) for p in path.iterdir() if p.suffix in {".log", ".txnindex", ".snapshot"})
    assert sum(name.endswith(".txnindex") for name in files) == 2
    text = dump_segments(kafka_classpath, files)
    assert "version: 0 producerId: 1 firstOffset: 0 lastOffset: 3 lastStableOffset: 1" in text, text[-4000:]
    assert "version: 0 producerId: 1 firstOffset: 5 lastOffset: 6 lastStableOffset: 2" in text, text[-4000:]
    assert text.count("endTxnMarker: ABORT coordinatorEpoch: 4") == 2, text[-4000:]
    assert text.count("endTxnMarker: COMMIT coordinatorEpoch: 4") == 1, text[-4000:]
    assert "currentTxnFirstOffset: 2" in text or "currentTxnFirstOffset: OptionalLong[2]" in text, text[-4000:]
    assert "Exception" not in text, text[-4000:]


# ---- the model -----------------------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """A producer, as it should be known."""

    epoch: int = 0
    sequence: int = 0
    first: int = -1
    last: bytes = b""
    last_offset: int = -1


@dataclass
class Model:
    writers: dict[int, Writer] = field(default_factory=dict)
    visible: list[tuple[int, int, int]] = field(default_factory=list)
    """(base offset, last offset, producer or -1) of batches with records, in order."""
    fate: dict[tuple[int, int], str] = field(default_factory=dict)
    """Of a transaction: (producer, first offset)."""
    of: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The transaction of a batch, by its base offset."""
    end: int = 0
    start: int = 0

    @property
    def stable(self) -> int:
        return max(self.start, min([w.first for w in self.writers.values() if w.first >= 0], default=self.end))

    def expected(self, offset: int, to: int) -> list[int]:
        """Base offsets of the batches that a reader of committed records sees from `offset` up to `to`."""
        return [
            base
            for base, last, _ in self.visible
            if last >= offset and base < to and self.fate.get(self.of.get(base, (0, -1))) != "aborted"
        ]


def step(rng: random.Random, log: LocalLog, model: Model) -> None:
    producer = rng.randrange(1, 7)
    writer = model.writers.setdefault(producer, Writer())
    what = rng.random()
    if what < 0.15:  # not of any producer
        count = rng.randint(1, 3)
        assert log.append(batch(count, rng.choice([10, 300]))).base_offset == model.end
        model.visible.append((model.end, model.end + count - 1, -1))
        model.end += count
    elif what < 0.6:
        count = rng.randint(1, 4)
        one = data(producer, writer.epoch, writer.sequence, count, rng.choice([10, 300]))
        assert log.append(one) == (0, model.end, model.start)
        if writer.first < 0:
            writer.first = model.end
            model.fate[producer, model.end] = "open"
        model.of[model.end] = (producer, writer.first)
        model.visible.append((model.end, model.end + count - 1, producer))
        writer.sequence += count
        writer.last, writer.last_offset = one, model.end
        model.end += count
    elif what < 0.7 and writer.last and writer.sequence:  # sent again
        result = log.append(writer.last)
        assert (result.error, result.base_offset) == (0, writer.last_offset)
    elif what < 0.75 and writer.epoch:  # a zombie
        assert log.append(data(producer, writer.epoch - 1, writer.sequence)).error == Error.INVALID_PRODUCER_EPOCH
        assert log.append(marker(producer, writer.epoch - 1, commit=True)).error == Error.INVALID_PRODUCER_EPOCH
    elif writer.first >= 0 or what > 0.97:
        commit, version = rng.random() < 0.5, rng.choice([1, 2])
        epoch = writer.epoch + (version == 2)
        result = log.append(marker(producer, epoch, commit=commit), txn_version=version)
        assert (result.error, result.base_offset) == (0, model.end)
        if writer.first >= 0:
            model.fate[producer, writer.first] = "committed" if commit else "aborted"
        if epoch != writer.epoch:
            writer.epoch, writer.sequence, writer.last = epoch, 0, b""
        writer.first = -1
        model.end += 1


def compare(rng: random.Random, log: LocalLog, model: Model) -> None:
    positions = log.positions
    assert (positions.log_end, positions.last_stable) == (model.end, model.stable)
    offset = rng.randint(model.start, model.end)
    found, aborted = log.read_committed(offset, rng.choice([1, 500, 5000, 1 << 20]))
    assert found.error == 0
    whole = list(iter_batches(b"".join(split(found.data))))
    to = whole[-1].last_offset + 1 if whole else offset
    assert to <= max(offset, model.stable)
    if offset < model.stable:
        assert whole
    assert [one.base_offset for one in committed(found.data, aborted)] == (model.expected(offset, to) if whole else [])
    for entry in aborted:
        assert model.fate[entry] == "aborted"
        assert entry[1] < model.stable
    got = {p: e.txn_first for p, e in known(log.producers()).items() if e.txn_first >= 0}
    assert got == {p: w.first for p, w in model.writers.items() if w.first >= 0}


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(8, 80))])
def test_random_transactions(open_store: Callable[..., LocalStore], tmp_path: Path, seed: int) -> None:
    """Several producers with transactions open at once, over rolls, deleted records, clean restarts and crashes, against the model."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings: dict[str, Any] = {"segment_bytes": rng.choice([3000, 20_000, 1 << 20]), "index_interval_bytes": rng.choice([0, 500, 4096])}
    path, model = tmp_path / "t-0", Model()
    store = open_store()
    log = store.open(path, **settings)
    for _ in range(250):
        step(rng, log, model)
        chance = rng.random()
        if chance < 0.3:
            compare(rng, log, model)
        elif chance < 0.33:
            log.roll()
        elif chance < 0.345:
            model.start = log.delete_records(rng.randint(model.start, model.end))
        elif chance < 0.365:
            store.close()
            store = open_store()
            log = store.open(path, clean=True, **settings)
        elif chance < 0.385:
            store.crash()
            store = open_store()
            log = store.open(path, **settings)
        else:
            continue
        if log.positions.log_start != model.start:  # the start is the directory's to keep, not the log's
            assert log.positions.log_start < model.start
            log.delete_records(model.start)
        compare(rng, log, model)


def test_control_batches_have_their_attributes(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    log = open_store().open(tmp_path / "t-0")
    log.append(marker(1, 0, commit=True))
    (one,) = iter_batches(log.read(0).data)
    assert one.attributes == TRANSACTIONAL | CONTROL
    assert log.positions.last_stable == 1
