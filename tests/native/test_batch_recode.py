"""Headers, stamping, recompression and search by time."""

import random
import struct
from typing import Any

import pytest

from fastlog.native import batchtool as native
from fastlog.protocol.errors import Error
from fastlog.protocol.records import HEADER_BYTES, Codec, Record, build_batch, iter_batches
from tests.native import outside
from tests.native.batches import NOW, random_records, remake, simple

CODECS = list(Codec)


def test_peek() -> None:
    data = simple(7, leader_epoch=3, base_offset=99, producer_id=11, producer_epoch=2, base_sequence=5)
    info = native.peek(data)
    assert info is not None
    assert info == {
        "base_offset": 99,
        "size": len(data),
        "leader_epoch": 3,
        "magic": 2,
        "crc": struct.unpack_from(">I", data, 17)[0],
        "attributes": 0,
        "last_offset_delta": 6,
        "base_timestamp": NOW,
        "max_timestamp": NOW,
        "producer_id": 11,
        "producer_epoch": 2,
        "base_sequence": 5,
        "count": 7,
    }
    assert native.peek(data[:HEADER_BYTES]) == info
    assert native.peek(data + data) == info


def test_peek_at_what_is_no_batch() -> None:
    data = simple()
    for n in range(HEADER_BYTES):
        assert native.peek(data[:n]) is None
    assert native.peek(bytes(100)) is None
    wrong = [("magic", 1), ("magic", 3), ("length", 48), ("length", 2**31 - 1), ("length", -1), ("count", -1), ("last_offset_delta", -1)]
    for name, value in wrong:
        fields: dict[str, Any] = {name: value}
        assert native.peek(remake(data, **fields)) is None
    assert native.peek(remake(data, length=49, count=0, last_offset_delta=0)) is not None  # compaction leaves empty batches


def test_stamp_leaves_the_crc_right() -> None:
    data = simple()
    native.stamp(data, 2**62 + 1, 2**31 - 1)
    (batch,) = iter_batches(data)
    assert (batch.base_offset, batch.leader_epoch) == (2**62 + 1, 2**31 - 1)
    with pytest.raises(ValueError, match="not a record batch"):
        native.stamp(bytearray(60), 0, 0)


@pytest.mark.parametrize("target", CODECS)
@pytest.mark.parametrize("source", CODECS)
def test_recode(source: Codec, target: Codec) -> None:
    chance = random.Random(source * 10 + target)
    for count in (1, 50, 4000):
        records = random_records(chance, count)
        given = build_batch(
            records, timestamp_ms=NOW, codec=source, attributes=0x10, producer_id=7, producer_epoch=1, base_sequence=3, leader_epoch=4
        )
        code, why, made = native.recode(given, codec=target)
        assert (code, why) == (0, None)
        (batch,) = iter_batches(made)
        assert list(batch.records) == records
        assert (batch.codec, batch.transactional, batch.producer_id, batch.base_sequence, batch.leader_epoch) == (target, True, 7, 3, 4)
        assert native.check(bytearray(made), NOW)[0] == 0
        assert outside.decompress(made[HEADER_BYTES:], target) == outside.decompress(given[HEADER_BYTES:], source)
        if target is Codec.NONE and source is Codec.NONE:
            assert made == given


def test_recode_to_the_producers_codec_keeps_it() -> None:
    for codec in CODECS:
        code, _why, made = native.recode(simple(100, codec=codec), codec=-1)
        (batch,) = iter_batches(made)
        assert (code, batch.codec) == (0, codec)


def test_recode_keeps_log_append_time() -> None:
    data = simple(100)
    assert native.check(data, NOW + 9, log_append_time=True)[0] == 0
    (batch,) = iter_batches(native.recode(data, codec=Codec.LZ4)[2])
    assert batch.log_append_time
    assert {r.timestamp for r in batch.records} == {NOW + 9}


@pytest.mark.parametrize("target", CODECS)
def test_recode_stops_at_the_largest_size(target: Codec) -> None:
    noise = build_batch([Record(0, NOW, None, random.Random(1).randbytes(500_000))], timestamp_ms=NOW, codec=Codec.ZSTD)
    for size_max in (0, 60, 61, 62, 1000, 100_000, 499_000):
        assert native.recode(noise, codec=target, size_max=size_max)[::2] == (Error.MESSAGE_TOO_LARGE, b"")
    code, _why, made = native.recode(noise, codec=target, size_max=600_000)
    assert code == 0
    assert native.recode(noise, codec=target, size_max=len(made))[2] == made
    assert native.recode(noise, codec=target, size_max=len(made) - 1)[0] == Error.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("source", CODECS[1:])
def test_recode_stops_at_the_largest_decompressed_size(source: Codec) -> None:
    data = build_batch([Record(0, NOW, None, bytes(3_000_000))], timestamp_ms=NOW, codec=source)
    code, why, _made = native.recode(data, codec=Codec.GZIP, inflate_max=2_000_000)
    assert (code, why) == (Error.MESSAGE_TOO_LARGE, "the records decompress to more than the broker allows")
    assert native.recode(data, codec=Codec.GZIP, inflate_max=4_000_000)[0] == 0


@pytest.mark.parametrize("source", CODECS[1:])
def test_recode_of_what_cannot_be_decompressed(source: Codec) -> None:
    data = simple(500, codec=source)
    cut = remake(data, body=bytes(data[HEADER_BYTES:-5]))
    for target in CODECS:
        if target is not source:
            assert native.recode(cut, codec=target)[::2] == (Error.CORRUPT_MESSAGE, b"")
    assert native.recode(data + b"x", codec=Codec.NONE)[0] == Error.CORRUPT_MESSAGE
    assert native.recode(data[:-1], codec=Codec.NONE)[0] == Error.CORRUPT_MESSAGE


def test_what_is_slow() -> None:
    small, large = simple(5, codec=Codec.LZ4), simple(20_000, codec=Codec.LZ4)
    assert not native.is_slow(simple(20_000))
    assert not native.is_slow(small)
    assert native.is_slow(large)
    assert not native.is_slow(large, look_inside=False)
    assert native.is_slow(large, look_inside=False, keys_required=True)
    assert native.is_slow(small, codec=Codec.ZSTD)
    assert not native.is_slow(small, codec=Codec.LZ4)
    assert native.is_slow(simple(5), codec=Codec.GZIP)
    assert not native.is_slow(remake(simple(5), attributes=0x20), codec=Codec.GZIP)  # control batches stay as they are


@pytest.mark.parametrize("codec", CODECS)
def test_find_time(codec: Codec) -> None:
    times = [NOW, NOW + 5, NOW + 5, NOW + 3, NOW + 10]
    data = bytearray(build_batch([Record(i, t, None, b"v") for i, t in enumerate(times)], timestamp_ms=NOW, codec=codec))
    native.stamp(data, 1000, 1)
    assert native.find_time(data, 0) == (1000, NOW)
    assert native.find_time(data, NOW) == (1000, NOW)
    assert native.find_time(data, NOW + 1) == (1001, NOW + 5)
    assert native.find_time(data, NOW + 6) == (1004, NOW + 10)
    assert native.find_time(data, NOW + 10) == (1004, NOW + 10)
    assert native.find_time(data, NOW + 11) is None
    assert native.find_time(remake(data, max_timestamp=2**62), NOW + 11) is None
    native.check(data, NOW + 50, log_append_time=True, internal=True)
    assert native.find_time(data, NOW + 11) == (1000, NOW + 50)
    assert native.find_time(data, NOW + 51) is None


@pytest.mark.parametrize("codec", CODECS)
def test_find_time_in_what_cannot_be_decoded(codec: Codec) -> None:
    data = build_batch([Record(i, NOW + i, None, bytes(i)) for i in range(500)], timestamp_ms=NOW, codec=codec)
    broken = remake(data, body=data[HEADER_BYTES:-9])
    with pytest.raises(ValueError, match="can't be decoded"):
        native.find_time(broken, NOW + 499)
    with pytest.raises(ValueError, match="can't be decoded"):
        native.find_time(data[:-1], NOW)
    with pytest.raises(ValueError, match="can't be decoded"):
        native.find_time(b"nothing", NOW)
    assert native.find_time(remake(data, body=b"", count=0), NOW) is None
