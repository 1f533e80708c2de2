"""Transactions in compacted logs: aborted records go, markers stay as long as they mean something, the .txnindex says what is left."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING

import pytest

from fastlog._core import DamagedLogError
from fastlog.protocol.errors import Error
from fastlog.protocol.records import Batch, Record, build_batch, iter_batches
from tests.storage.build import read_all
from tests.storage.compacting import Cleaner
from tests.support.java import dump_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

NOW = int(time.time() * 1000)


class Transactions:
    """Appends transactions, and keeps the segments' .txnindex files as Kafka's broker does."""

    def __init__(self, log: LocalLog, path: Path) -> None:
        self.log, self.path = log, path
        self.sequences: dict[int, int] = {}
        self.aborted: list[tuple[int, int, int, int]] = []

    def write(self, producer: int, keys: list[bytes], *, value: bytes = b"v") -> int:
        records = [Record(0, NOW, key, value) for key in keys]
        sequence = self.sequences.get(producer, 0)
        self.sequences[producer] = sequence + len(records)
        data = build_batch(records, timestamp_ms=NOW, attributes=0x10, producer_id=producer, producer_epoch=0, base_sequence=sequence)
        result = self.log.append(data)
        assert result.error == 0
        return result.base_offset

    def end(self, producer: int, *, commit: bool, first: int = 0) -> int:
        marker = Record(0, NOW, b"\0\0\0" + bytes([commit]), b"\0\0\0\0\0\0")
        result = self.log.append(build_batch([marker], timestamp_ms=NOW, attributes=0x30, producer_id=producer, producer_epoch=0))
        assert result.error == 0
        if not commit:
            self.aborted.append((producer, first, result.base_offset, result.base_offset + 1))
        return result.base_offset

    def roll(self) -> None:
        base = int(max(self.path.glob("*.log")).stem)
        self.log.roll()
        if self.aborted:
            body = b"".join(b"\0\0" + b"".join(number.to_bytes(8, "big") for number in one) for one in self.aborted)
            (self.path / f"{base:020}.txnindex").write_bytes(body)
            self.aborted = []

    def batches(self) -> list[Batch]:
        return list(iter_batches(read_all(self.log, 0)))


def keys(batches: list[Batch]) -> list[bytes | None]:
    return [record.key for batch in batches for record in batch.records if not batch.control]


def markers(batches: list[Batch]) -> list[int]:
    return [batch.base_offset for batch in batches if batch.control and batch.records]


def test_aborted_records_go(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A key of an aborted transaction does not hide the older record of it; the transaction's records go, its marker stays a while."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000)
    cleaner, txns = Cleaner(path, retention_ms=1000), Transactions(log, path)
    txns.write(1, [b"a", b"b"])
    txns.end(1, commit=True)  # offset 2
    first = txns.write(2, [b"a", b"c"])
    txns.write(1, [b"b"])  # offset 5
    txns.end(2, commit=False, first=first)  # offset 6
    txns.end(1, commit=True)  # offset 7
    txns.roll()
    txns.write(1, [b"z"])  # 8
    txns.write(2, [b"z"])  # 9: what came before is no longer the last of its producer
    txns.end(1, commit=True)
    txns.end(2, commit=True)
    txns.roll()
    cleaner.run(log, NOW)
    found = txns.batches()
    assert [(r.offset, r.key) for b in found for r in b.records if not b.control] == [(0, b"a"), (5, b"b"), (9, b"z")]
    # the abort marker has outlived its records: it got a delete horizon in the same pass that dropped them; the next keeps it until then
    assert 6 in markers(found)
    assert (path / f"{0:020}.txnindex").exists()
    for now, stays in ((NOW + 10, True), (NOW + 20, True), (NOW + 5000, False)):
        txns.write(1, [b"z"])
        txns.end(1, commit=True)
        txns.roll()
        cleaner.run(log, now)
        found = txns.batches()
        assert (6 in markers(found)) == stays
        assert {2, 7} & set(markers(found)) >= {2, 7}
        assert keys(found)[:2] == [b"a", b"b"]
    store.close()


def test_a_transaction_over_several_segments(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Records of an aborted transaction go from segments before the one with its marker; the marker goes later than they do."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000)
    cleaner, txns = Cleaner(path, segment_bytes=1, retention_ms=100), Transactions(log, path)
    txns.write(7, [b"kept"])
    txns.end(7, commit=True)
    first = txns.write(7, [b"kept", b"gone"])
    txns.roll()
    txns.write(7, [b"gone too"])
    txns.roll()
    txns.end(7, commit=False, first=first)
    txns.write(7, [b"last"])
    txns.end(7, commit=True)
    txns.roll()
    cleaner.run(log, NOW)
    found = txns.batches()
    assert keys(found) == [b"kept", b"last"]
    assert len(markers(found)) == 3
    txns.write(7, [b"last"])
    txns.end(7, commit=True)
    txns.roll()
    cleaner.run(log, NOW + 50)
    assert len(markers(txns.batches())) == 4
    txns.write(7, [b"last"])
    txns.end(7, commit=True)
    txns.roll()
    cleaner.run(log, NOW + 5000)
    assert keys(txns.batches()) == [b"kept", b"last"]
    store.close()


def test_what_was_aborted_in_the_active_segment_waits(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """No file says so yet: an aborted record that is taken for committed would hide the older one of its key."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000)
    cleaner, txns = Cleaner(path, retention_ms=1000), Transactions(log, path)
    txns.write(1, [b"a"])
    txns.end(1, commit=True)
    log.roll()
    first = txns.write(2, [b"a"])
    log.roll()
    txns.end(2, commit=False, first=first)
    assert log.positions.last_stable == log.positions.log_end
    assert log.compactable() <= first
    cleaner.run(log, NOW)
    assert [(r.offset, r.key) for b in txns.batches() for r in b.records if not b.control] == [(0, b"a"), (first, b"a")]
    txns.write(1, [b"z"])
    txns.end(1, commit=True)
    log.roll()
    cleaner.run(log, NOW)
    assert next((r.offset, r.key) for b in txns.batches() for r in b.records if not b.control) == (0, b"a")
    assert first not in [b.base_offset for b in txns.batches() if b.records]
    store.close()


def test_a_damaged_index_of_aborted_transactions_is_not_believed(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """What it says is not known: records that were aborted might pass for committed ones."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000)
    cleaner, txns = Cleaner(path, retention_ms=1000), Transactions(log, path)
    for _ in range(2):
        txns.write(1, [b"a"])
        txns.end(1, commit=True)
        log.roll()
    log.flush()
    (path / f"{0:020}.txnindex").write_bytes(b"\0\1" + bytes(32))
    with pytest.raises(DamagedLogError, match="txnindex"):
        cleaner.run(log, NOW)
    assert keys(txns.batches()) == [b"a", b"a"]
    store.close()


@pytest.mark.java
@pytest.mark.timeout(300)
def test_producers_and_markers_outlive_compaction(
    open_store: Callable[..., LocalStore], tmp_path: Path, kafka_classpath: str, engine: str
) -> None:
    """Of many transactions under few keys: after compactions and a restart each producer goes on where it was, aborted records stay
    away, and Kafka's DumpLogSegments accepts every cleaned file and finds the producers in the snapshot at the log's end."""
    path = tmp_path / "t-0"
    rng = random.Random(engine)
    store = open_store(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000)
    cleaner, txns = Cleaner(path, segment_bytes=20_000, retention_ms=10_000_000), Transactions(log, path)
    under_way: dict[int, tuple[int, list[bytes]]] = {}
    committed: dict[bytes, int] = {}
    for turn in range(900):
        producer = rng.randrange(1, 6)
        if producer in under_way and rng.random() < 0.4:
            first, written = under_way.pop(producer)
            commit = rng.random() < 0.6
            marker = txns.end(producer, commit=commit, first=first)
            committed |= dict.fromkeys(written, marker) if commit else {}
        else:
            names = [b"key-%d" % rng.randrange(25) for _ in range(rng.randrange(1, 4))]
            base = txns.write(producer, names, value=rng.randbytes(200))
            under_way.setdefault(producer, (base, []))[1].extend(names)
        if turn % 300 == 299:
            cleaner.run(log, NOW)
    for producer, (first, _) in sorted(under_way.items()):
        txns.end(producer, commit=False, first=first)
    log.roll()
    before = cleaner.end
    assert cleaner.run(log, NOW)
    assert cleaner.end > before
    assert {r.key for b in read_committed(log) for r in b.records} == committed.keys()
    store.close()
    snapshot = max(path.glob("*.snapshot"))
    files = [p for p in sorted(path.iterdir()) if p.suffix in {".log", ".index", ".timeindex", ".txnindex"} and p.stat().st_size]
    text = dump_segments(kafka_classpath, [*files, snapshot])
    assert "isvalid: false" not in text
    assert "Exception" not in text
    assert "ismatch" not in text
    part = text[text.index(f"Dumping {snapshot}") :]
    found = {int(pid): int(last) for pid, last in re.findall(r"producerId: (\d+) .*?lastSequence: (-?\d+)", part)}
    assert found.keys() == txns.sequences.keys()
    # a marker ends the batches that are remembered; where it was the last there is no sequence to be told
    assert all(last in (-1, txns.sequences[pid] - 1) for pid, last in found.items())
    store = open_store(memory=4 << 20)
    txns.log = store.open(path, clean=True)
    for producer in txns.sequences:
        txns.write(producer, [b"next"])
        skipped = build_batch(
            [Record(0, NOW, b"k", b"v")],
            timestamp_ms=NOW,
            attributes=0x10,
            producer_id=producer,
            producer_epoch=0,
            base_sequence=txns.sequences[producer] + 5,
        )
        assert txns.log.append(skipped).error == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    store.close()


def read_committed(log: LocalLog) -> list[Batch]:
    """Batches of records that a reader of committed ones keeps: not those of the aborted transactions that the fetch names."""
    found: list[Batch] = []
    offset = 0
    while offset < log.positions.last_stable:
        result, aborted = log.read_committed(offset)
        assert result.error == 0
        for batch in iter_batches(result.data):
            offset = batch.last_offset + 1
            gone = any(a[0] == batch.producer_id and a[1] <= batch.base_offset <= end_of(log, a) for a in aborted)
            if not batch.control and not gone:
                found.append(batch)
    return found


def end_of(log: LocalLog, aborted: tuple[int, int]) -> int:
    """The offset of the first marker of a producer from a transaction's start on."""
    return min(
        b.base_offset for b in iter_batches(read_all(log, 0)) if b.control and b.producer_id == aborted[0] and b.base_offset > aborted[1]
    )
