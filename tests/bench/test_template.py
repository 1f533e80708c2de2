"""Batches made ahead, read by kafka-python's decoder and checked by another CRC-32C."""

import random
import zlib
from typing import Any

import crc32c
import pytest
from kafka.record.memory_records import MemoryRecords

from fastlog.loadgen import contents
from fastlog.native import loadtemplate as template
from fastlog.native.compression import decompress

SHAPES = [(1, 16), (1, 100), (3, 16), (64, 1024), (2, 200_000), (900, 1024)]
INTACT, BAD_CRC, FOREIGN = 0, 1, 2


def test_checksum() -> None:
    data = random.Random(1).randbytes(50_000)
    for size in [*range(70), 2047, 2048, 6143, 6144, 6145, 12_288, 20_001, 50_000]:
        assert template.checksum(data[:size]) == crc32c.crc32c(data[:size]), size


@pytest.mark.parametrize(("records", "record_bytes"), SHAPES)
def test_a_decoder_reads_them(records: int, record_bytes: int) -> None:
    made = template.make_batch(
        records, record_bytes, filling=2, fillings=3, due_ns=77, wall_ms=1_700_000_000_123, producer_id=4711, producer_epoch=3, sequence=640
    )
    memory = MemoryRecords(made)
    batch = memory.next_batch()
    assert batch is not None
    assert not memory.has_next()
    assert batch.validate_crc()
    assert (batch.magic, batch.base_offset, batch.attributes, batch.compression_type) == (2, 0, 0, 0)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4711, 3, 640)
    assert batch.last_offset_delta == records - 1
    found = list(batch)
    assert [each.offset for each in found] == list(range(records))
    assert all(each.timestamp == 1_700_000_000_123 and each.key is None and not each.headers for each in found)
    assert all(len(each.value) == record_bytes for each in found)
    values = b"".join(each.value for each in found)
    if len(values) > 1000:
        assert len(zlib.compress(values, 6)) > 0.99 * len(values)


@pytest.mark.parametrize("producer", [0, 2**62])
@pytest.mark.parametrize(("records", "record_bytes"), SHAPES)
def test_combined_checksum(records: int, record_bytes: int, producer: int) -> None:
    made = template.make_batch(records, record_bytes, due_ns=2**60, wall_ms=1, producer_id=producer, producer_epoch=0, sequence=2**31 - 1)
    assert int.from_bytes(made[17:21], "big") == crc32c.crc32c(made[21:])


def test_inspection_finds_every_damage() -> None:
    made = template.make_batch(3, 40, filling=1, fillings=2, connection=9, due_ns=123_456, producer_id=1, producer_epoch=0, sequence=6)
    assert template.inspect(made, 3, 40, fillings=2) == (INTACT, 123_456, 9)
    for at in range(17, len(made)):
        damaged = bytearray(made)
        damaged[at] ^= 1 << at % 8
        assert template.inspect(damaged, 3, 40, fillings=2)[0] == BAD_CRC, at


def test_sound_but_not_ours() -> None:
    other = template.make_batch(3, 40, seed=2)
    assert template.inspect(other, 3, 40, seed=1)[0] == FOREIGN
    assert template.inspect(template.make_batch(4, 40), 3, 40)[0] == FOREIGN


@pytest.mark.parametrize(("records", "record_bytes"), [(0, 100), (1, 15)])
def test_impossible_shapes(records: int, record_bytes: int) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        template.make_batch(records, record_bytes)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches(codec: str) -> None:
    sections = contents.sections(codec, 20, 300, 3, seed=5)
    assert len(set(sections)) == 3
    given: dict[str, Any] = {"fillings": 3, "codec": contents.CODECS[codec], "sections": sections}
    made = template.make_batch(20, 300, filling=1, wall_ms=1_700_000_000_123, producer_id=7, producer_epoch=2, sequence=40, **given)
    assert 0.4 < len(made) / (20 * 300) < 0.8
    assert int.from_bytes(made[17:21], "big") == crc32c.crc32c(made[21:])
    plain = template.make_batch(20, 300, wall_ms=1_700_000_000_123, producer_id=7, producer_epoch=2, sequence=40)
    assert made[21:61] == bytes([0, contents.CODECS[codec]]) + plain[23:61], "a header differs by its codec only"
    # kafka-python has no codec but gzip: what is inside is read as if it had not been compressed.
    inside = decompress(made[61:], contents.CODECS[codec])
    head = bytearray(plain[:61])
    head[8:12] = (49 + len(inside)).to_bytes(4, "big")
    batch = MemoryRecords(bytes(head) + inside).next_batch()
    assert batch is not None
    found = list(batch)
    assert [each.offset for each in found] == list(range(20))
    assert all(len(each.value) == 300 and each.timestamp == 1_700_000_000_123 for each in found)
    assert template.inspect(made, 20, 300, **given)[0] == INTACT
    for at in range(17, len(made), 7):
        damaged = bytearray(made)
        damaged[at] ^= 1 << at % 8
        assert template.inspect(damaged, 20, 300, **given)[0] == BAD_CRC, at
    other = contents.sections(codec, 20, 300, 1, seed=6)
    assert template.inspect(template.make_batch(20, 300, codec=given["codec"], sections=other), 20, 300, **given)[0] == FOREIGN


def test_sections_are_of_one_size() -> None:
    with pytest.raises(ValueError, match="one section for each filling"):
        template.make_batch(2, 100, codec=1, sections=[b"a", b"bc"], fillings=2)
