"""Record batches in Python: the same bytes as other implementations write, and what they wrote read back."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaReader
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from kafka.record.default_records import DefaultRecordBatch as KafkaPythonReader
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder
from kio.records import schema as kio
from kio.records.readers import read_batch as kio_read
from kio.records.writers import write_new_batch as kio_write

from fastlog.protocol.packing import pairs_bytes
from fastlog.protocol.records import HEADER_BYTES, Batch, Codec, Record, build_batch, build_end_marker, build_pairs, iter_batches

NOW = 1_700_000_000_000


def some_records(seed: int, count: int = 60) -> list[Record]:
    chance = random.Random(seed)

    def some(limit: int = 300) -> bytes | None:
        return None if chance.random() < 0.2 else chance.randbytes(chance.randrange(limit))

    return [
        Record(
            i,
            NOW + chance.randrange(-5000, 5000),
            some(),
            some(70_000 if i == 3 else 300),
            tuple((chance.choice(["", "a", "Ü", "trace-id"]), some(20)) for _ in range(chance.choice([0, 0, 1, 4]))),
        )
        for i in range(count)
    ]


def as_records(read: Any) -> list[Record]:
    return [Record(r.offset, r.timestamp, r.key, r.value, tuple((k, v) for k, v in r.headers)) for r in read]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
def test_kafka_python_writes_what_we_write(seed: int, codec: Codec) -> None:
    records = some_records(seed)
    theirs = KafkaPythonBuilder(
        magic=2, compression_type=codec, is_transactional=1, producer_id=9, producer_epoch=3, base_sequence=77, batch_size=1 << 20
    )
    for r in records:
        assert theirs.append(r.offset, r.timestamp, r.key, r.value, list(r.headers))
    written = bytes(theirs.build())
    (batch,) = iter_batches(written)
    assert list(batch.records) == records
    given = {"attributes": 0x10, "producer_id": 9, "producer_epoch": 3, "base_sequence": 77, "leader_epoch": batch.leader_epoch}
    ours = build_batch(records, timestamp_ms=0, codec=codec, **given)
    if codec is Codec.NONE:
        assert ours == written
    reader = KafkaPythonReader(ours)
    assert reader.validate_crc()
    assert as_records(reader) == records


def test_pairs_are_records_of_one_time() -> None:
    pairs = [(b"k" * size, None if size % 3 == 0 else b"v" * (7 * size)) for size in range(200)]
    records = [Record(0, NOW, key, value) for key, value in pairs]
    given: dict[str, Any] = {"attributes": 0x10, "producer_id": 2**40, "producer_epoch": 3}
    assert build_pairs(pairs, timestamp_ms=NOW, **given) == build_batch(records, timestamp_ms=NOW, **given)
    assert pairs_bytes(pairs) == sum(len(key) + len(value or b"") for key, value in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_aiokafka_writes_what_we_write(seed: int) -> None:
    records = some_records(seed)
    theirs = AiokafkaBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 20
    )
    for r in records:
        assert theirs.append(r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=list(r.headers))
    written = bytes(theirs.build())
    (batch,) = iter_batches(written)
    assert list(batch.records) == records
    assert build_batch(records, timestamp_ms=0, leader_epoch=batch.leader_epoch) == written
    assert as_records(AiokafkaReader(written)) == records


@pytest.mark.parametrize("seed", range(5))
def test_kio_writes_what_we_write(seed: int) -> None:
    records = some_records(seed)
    made: Any = kio  # its integers are types of their own
    buffer = io.BytesIO()
    kio_records = tuple(
        made.Record(
            attributes=0,
            timestamp=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=r.timestamp),
            offset=r.offset,
            key=r.key,
            value=r.value,
            headers=tuple(made.RecordHeader(key=k.encode(), value=v) for k, v in r.headers),
        )
        for r in records
    )
    kio_write(buffer, made.NewRecordBatch(producer_id=4, producer_epoch=1, base_sequence=5, attributes=0x10, records=kio_records))
    written = buffer.getvalue()
    (batch,) = iter_batches(written)
    assert list(batch.records) == records
    assert (batch.transactional, batch.producer_id, batch.producer_epoch, batch.base_sequence) == (True, 4, 1, 5)
    read, _size = kio_read(build_batch(records, timestamp_ms=0, producer_id=8), 0)
    assert [(r.offset, r.key, r.value) for r in read.records] == [(r.offset, r.key, r.value) for r in records]
    assert read.producer_id == 8


def test_several_batches_and_a_part_of_one() -> None:
    parts = [build_batch(some_records(i, i), timestamp_ms=NOW, base_offset=i * 10, codec=Codec(i - 1)) for i in range(1, 6)]
    whole = b"".join(parts)
    assert [(b.base_offset, b.codec, len(b.records), b.size) for b in iter_batches(whole)] == [
        (i * 10, i - 1, i, len(parts[i - 1])) for i in range(1, 6)
    ]
    assert [b.last_offset for b in iter_batches(memoryview(whole)[:-1])] == [10, 21, 32, 43]
    assert list(iter_batches(whole[:HEADER_BYTES])) == []
    assert list(iter_batches(b"")) == []


def test_what_is_set() -> None:
    (batch,) = iter_batches(build_batch([Record(0, -1, b"k", None)], timestamp_ms=NOW, attributes=0x27, leader_epoch=6))
    assert batch == Batch(0, batch.size, 6, 0x20, 0, NOW, NOW, -1, -1, -1, (Record(0, NOW, b"k", None),))
    assert (batch.control, batch.transactional, batch.log_append_time) == (True, False, False)
    with pytest.raises(ValueError, match="at least one record"):
        build_batch([], timestamp_ms=NOW)


def test_log_append_time_is_every_records() -> None:
    (batch,) = iter_batches(build_batch([Record(0, 5, None, None), Record(1, 9, None, None)], timestamp_ms=NOW, attributes=0x08))
    assert [r.timestamp for r in batch.records] == [9, 9]


def test_names_that_are_not_utf8_survive() -> None:
    data = build_batch([Record(0, NOW, None, None, (("\udcff\udcfe", b"v"),))], timestamp_ms=NOW)
    (batch,) = iter_batches(data)
    assert batch.records[0].headers == (("\udcff\udcfe", b"v"),)
    assert b"\xff\xfe" in data


def test_what_is_broken() -> None:
    data = build_batch(some_records(1, 3), timestamp_ms=NOW)
    with pytest.raises(ValueError, match="no record batch at byte 0"):
        list(iter_batches(bytes(100)))
    with pytest.raises(ValueError, match=f"no record batch at byte {len(data)}"):
        list(iter_batches(data + bytes(61)))
    for at in range(17, len(data)):
        with pytest.raises(ValueError, match=r"wrong CRC|no record batch"):
            list(iter_batches(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]))


@pytest.mark.parametrize("commit", [False, True])
def test_the_end_of_a_transaction_as_others_read_it(commit: bool) -> None:
    data = build_end_marker(producer_id=7, producer_epoch=3, coordinator_epoch=9, commit=commit, timestamp_ms=NOW)
    (batch,) = iter_batches(data)
    assert (batch.control, batch.transactional, batch.producer_id, batch.producer_epoch, batch.base_sequence) == (True, True, 7, 3, -1)
    assert batch.records[0].value == b"\0\0\0\0\0\x09"
    for reader in (AiokafkaReader(data), KafkaPythonReader(data)):
        assert (reader.is_control_batch, reader.is_transactional, reader.producer_id) == (True, True, 7)
        assert next(iter(reader)).key == (b"\0\0\0\1" if commit else b"\0\0\0\0")
