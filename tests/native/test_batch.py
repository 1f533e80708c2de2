"""Validation of one record batch: each rule, with the error code that Kafka 4.3 gives (where it differs, batch.pxd says why)."""

import struct

import pytest

from fastlog.native import batchtool as native
from fastlog.protocol.errors import Error
from fastlog.protocol.records import HEADER_BYTES, Codec, iter_batches
from tests.native.batches import HOUR, NEVER, NOW, Rules, judge, of_records, record, remake, simple, varint

CODECS = list(Codec)


def check(data: bytes | bytearray, rules: Rules | None = None, *, internal: bool = False, now: int = NOW) -> Error:
    """The compiled check's verdict, which must be the reference's too; bytes that are refused stay as they were."""
    given = rules or Rules()
    held = bytearray(data)
    code, why, _info = native.check(held, now, internal=internal, **given.given())
    assert (why is None) == (code == 0)
    if code:
        assert held == data
    if not internal:
        assert (Error(code), bytes(held)) == judge(bytes(data), now, given)
    return Error(code)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 2, 3, 100, 5000])
def test_right_batches_pass_unchanged(codec: Codec, count: int) -> None:
    data = simple(count, codec=codec)
    before = bytes(data)
    code, why, info = native.check(data, NOW)
    assert (code, why, bytes(data)) == (0, None, before)
    assert (info["size"], info["count"], info["last_offset_delta"]) == (len(data), count, count - 1)
    assert (info["attributes"], info["producer_id"], info["max_timestamp"]) == (codec, -1, NOW)
    assert check(data) is Error.NONE


def test_nothing_and_too_little() -> None:
    data = bytes(simple())
    assert check(b"") is Error.INVALID_RECORD
    for n in range(len(data)):
        assert check(data[:n]) is Error.INVALID_RECORD, n


def test_more_than_one_batch() -> None:
    data = bytes(simple())
    assert check(data + data) is Error.INVALID_RECORD
    assert check(data + b"\0") is Error.INVALID_RECORD
    assert check(data + bytes(100)) is Error.INVALID_RECORD


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 13, 2**31 - 1, 2**31 - 12])
def test_lengths_that_no_batch_has(length: int) -> None:
    assert check(remake(simple(), length=length)) is Error.CORRUPT_MESSAGE


@pytest.mark.parametrize("length", [14, 17, 40, 48])
def test_lengths_below_the_header(length: int) -> None:
    data = remake(simple(), length=length)
    assert check(data[: length + 12]) is Error.CORRUPT_MESSAGE


def test_length_past_the_end() -> None:
    assert check(remake(simple(), length=len(simple()) - 11)) is Error.INVALID_RECORD
    assert check(remake(simple(), length=1 << 30)) is Error.INVALID_RECORD


@pytest.mark.parametrize(
    ("magic", "error"), [(0, Error.INVALID_RECORD), (1, Error.INVALID_RECORD), (3, Error.CORRUPT_MESSAGE), (-1, Error.CORRUPT_MESSAGE)]
)
def test_magic(magic: int, error: Error) -> None:
    assert check(remake(simple(), magic=magic)) is error


def test_every_flipped_bit_under_the_crc_is_seen() -> None:
    data = simple(2)
    for bit in range(17 * 8, len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        assert check(data) is Error.CORRUPT_MESSAGE
        data[bit // 8] ^= 1 << bit % 8


def test_the_leader_epoch_is_the_brokers() -> None:
    assert check(remake(simple(), leader_epoch=77)) is Error.NONE


def test_base_offset() -> None:
    assert check(remake(simple(), base_offset=1)) is Error.INVALID_RECORD
    assert check(remake(simple(), base_offset=5), internal=True) is Error.NONE


def test_size() -> None:
    data = simple()
    assert check(data, Rules(size_max=len(data))) is Error.NONE
    assert check(data, Rules(size_max=len(data) - 1)) is Error.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_unknown_compression_type(codec: int) -> None:
    assert check(remake(simple(), attributes=codec)) is Error.UNSUPPORTED_COMPRESSION_TYPE


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("count", "last"),
    [(0, 0), (0, -1), (-1, -2), (2, 2), (4, 2), (3, 1), (3, 3), (4, 3), (2, 1), (2**31 - 1, 2**31 - 2), (3, -1), (-(2**31), 2**31 - 1)],
)
def test_counts_that_lie(codec: Codec, count: int, last: int) -> None:
    assert check(remake(simple(3, codec=codec), count=count, last_offset_delta=last)) is Error.INVALID_RECORD


def test_control_and_transactional_batches() -> None:
    assert check(remake(simple(), attributes=0x20)) is Error.INVALID_RECORD
    assert check(remake(simple(), attributes=0x20), internal=True) is Error.NONE
    assert check(remake(simple(), attributes=0x10)) is Error.INVALID_RECORD
    assert check(remake(simple(), attributes=0x10, producer_id=5, base_sequence=0)) is Error.NONE


def test_producer_id_without_a_sequence() -> None:
    assert check(remake(simple(), producer_id=1, producer_epoch=0, base_sequence=-1)) is Error.INVALID_RECORD
    assert check(remake(simple(), producer_id=0, producer_epoch=0, base_sequence=2**31 - 1)) is Error.NONE
    assert check(remake(simple(), producer_id=-1, base_sequence=-1)) is Error.NONE


BROKEN = {
    "offset deltas from 1": record(1) + record(2),
    "offset delta twice": record(0) + record(0),
    "offset deltas backwards": record(1) + record(0),
    "negative offset delta": record(-1) + record(0),
    "length too short": record(0, length=5) + record(1),
    "length too long": record(0, length=9) + record(1),
    "length past the end": record(0) + record(1, length=2000),
    "length of zero": record(0, length=0) + record(1),
    "negative length": record(0, length=-1) + record(1),
    "key past the end": varint(9) + b"\0\0\0" + varint(50) + b"kvvvv" + record(1),
    "key past the record": varint(9) + b"\0\0\0" + varint(9) + b"kvvvv" + record(1),
    "value past the end": record(0) + varint(9) + b"\0\0\2" + varint(1) + b"k" + varint(50) + b"vvv",
    "value of 2 GiB": record(0) + varint(12) + b"\0\0\2" + varint(-1) + varint(2**31 - 1) + b"vvv",
    "negative header count": record(0, headers=varint(-1)) + record(1),
    "fewer headers than said": record(0, headers=varint(2) + varint(1) + b"h" + varint(1) + b"v") + record(1),
    "more headers than said": record(0, headers=varint(1) + (varint(1) + b"h" + varint(1) + b"v") * 2) + record(1),
    "headers by the billion": record(0, headers=varint(2**31 - 1)) + record(1),
    "header without a name": record(0, headers=varint(1) + varint(-1) + varint(1) + b"v") + record(1),
    "header value past the end": record(0) + record(1, headers=varint(1) + varint(1) + b"h" + varint(100) + b"v"),
    "number of six bytes": b"\x80\x80\x80\x80\x80\x00" + record(0)[1:] + record(1),
    "number of 35 bits": record(0) + varint(12) + b"\0\0\xff\xff\xff\xff\x7f\2k\2v\0",
    "timestamp of eleven bytes": varint(16) + b"\0" + b"\x80" * 10 + b"\0" + b"\0\2k\2v\0" + record(1),
    "nothing behind the first": record(0),
    "half of the second": record(0) + record(1)[:-3],
    "a third": record(0) + record(1) + record(2),
    "a byte more": record(0) + record(1) + b"\0",
    "no bytes": b"",
    "garbage": bytes(range(200, 240)),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_broken_records(codec: Codec, body: bytes) -> None:
    data = of_records(body, 2, codec)
    if codec is Codec.SNAPPY and not body:
        data = remake(data, body=b"\0")  # what snappy makes of nothing, without the framing
    assert check(data) is Error.INVALID_RECORD


@pytest.mark.parametrize("codec", CODECS)
def test_unusual_but_right_records(codec: Codec) -> None:
    for body in (
        record(0, None, None),
        record(0, b"", b""),
        varint(8) + b"\0\0\0" + varint(-7) + varint(-3) + b"\x80\x80\x00",  # any negative length is null; zero of three bytes
        record(0, headers=varint(2) + varint(0) + varint(-9) + varint(1) + b"h" + varint(0)),
        record(0, b"key" * 50_000, b"value" * 60_000),
        record(0, timestamp_delta=-(2**62)),
    ):
        assert check(of_records(body, 1, codec), Rules(after_max_ms=NEVER)) is Error.NONE


def test_record_attributes_are_not_looked_at() -> None:
    body = bytearray(record(0))
    body[1] = 0xFF
    assert check(of_records(bytes(body), 1)) is Error.NONE


@pytest.mark.parametrize("codec", CODECS)
def test_keys_of_compacted_topics(codec: Codec) -> None:
    compacted = Rules(keys_required=True)
    assert check(of_records(record(0) + record(1, b""), 2, codec), compacted) is Error.NONE
    assert check(of_records(record(0) + record(1, None), 2, codec), compacted) is Error.INVALID_RECORD
    assert check(of_records(record(0) + record(1, None), 2, codec)) is Error.NONE


@pytest.mark.parametrize("codec", CODECS)
def test_timestamps_out_of_range(codec: Codec) -> None:
    for at, rules, error in (
        (NOW + HOUR, Rules(), Error.NONE),
        (NOW + HOUR + 1, Rules(), Error.INVALID_TIMESTAMP),
        (NOW - 10, Rules(before_max_ms=10), Error.NONE),
        (NOW - 11, Rules(before_max_ms=10), Error.INVALID_TIMESTAMP),
        (NOW + 1, Rules(after_max_ms=0), Error.INVALID_TIMESTAMP),
        (-1, Rules(before_max_ms=10), Error.NONE),  # none given
        (-2, Rules(before_max_ms=10), Error.INVALID_TIMESTAMP),
        (0, Rules(), Error.NONE),
        (2**63 - 1, Rules(), Error.INVALID_TIMESTAMP),
        (NOW + HOUR + 1, Rules(log_append_time=True), Error.NONE),
    ):
        body = record(0) + record(1, timestamp_delta=at - NOW)
        assert check(of_records(body, 2, codec, base_timestamp=NOW, max_timestamp=max(NOW, at)), rules) is error, (at, rules)
        first = record(0) + record(1, timestamp_delta=NOW - at)
        assert check(of_records(first, 2, codec, base_timestamp=at, max_timestamp=max(NOW, at)), rules) is error, (at, rules)


def test_a_late_record_weighs_more_than_a_keyless_one_and_a_broken_one_more_than_both() -> None:
    compacted = Rules(keys_required=True)
    late = HOUR + 1
    assert check(of_records(record(0, None) + record(1, timestamp_delta=late), 2), compacted) is Error.INVALID_TIMESTAMP
    assert (
        check(of_records(record(0, None, timestamp_delta=late) + record(1), 2), compacted) is Error.INVALID_RECORD
    )  # one error a record: its key
    assert check(of_records(record(0, None) + record(1, timestamp_delta=late) + b"x", 2), compacted) is Error.INVALID_RECORD


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time_patches_the_header(codec: Codec) -> None:
    data = simple(3, codec=codec)
    code, _why, info = native.check(data, NOW + 5, log_append_time=True)
    assert code == 0
    assert (info["attributes"], info["max_timestamp"], info["base_timestamp"]) == (codec | 0x08, NOW + 5, NOW)
    (batch,) = iter_batches(data)
    assert [r.timestamp for r in batch.records] == [NOW + 5] * 3
    assert info["crc"] == struct.unpack_from(">I", data, 17)[0]
    assert check(simple(3, codec=codec), Rules(log_append_time=True), now=NOW + 5) is Error.NONE


def test_log_append_time_is_not_for_producers_to_claim() -> None:
    claimed = simple(attributes=0x08)
    assert check(claimed, Rules(log_append_time=True)) is Error.INVALID_TIMESTAMP
    assert check(remake(claimed, max_timestamp=-1)) is Error.INVALID_TIMESTAMP
    assert check(remake(claimed, max_timestamp=NOW + HOUR + 1)) is Error.INVALID_TIMESTAMP
    assert check(claimed) is Error.NONE  # as Kafka: every record has the header's time then, and the bit is taken away
    native.check(claimed, NOW)
    assert claimed == simple()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("told", [0, NOW - 1, NOW + 1, -1, 2**63 - 1])
def test_a_max_timestamp_that_is_not_the_records_is_put_right(codec: Codec, told: int) -> None:
    data = simple(3, codec=codec, max_timestamp=told)
    assert check(data) is Error.NONE
    assert native.check(data, NOW)[2]["max_timestamp"] == NOW
    assert data == simple(3, codec=codec)


def test_without_a_look_inside_only_the_header_counts() -> None:
    lying = of_records(b"garbage", 2, base_timestamp=NOW, max_timestamp=NOW)
    assert native.check(bytearray(lying), NOW, look_inside=False)[0] == 0
    assert native.check(bytearray(lying), NOW, look_inside=False, keys_required=True)[0] == Error.INVALID_RECORD
    late = simple(timestamp=NOW + HOUR + 1)
    assert native.check(late, NOW, look_inside=False, after_max_ms=HOUR)[0] == Error.INVALID_TIMESTAMP
    assert native.check(late, NOW, look_inside=False, log_append_time=True)[2]["max_timestamp"] == NOW
    assert native.check(remake(simple(), attributes=0x08), NOW, look_inside=False, log_append_time=True)[0] == Error.INVALID_TIMESTAMP


@pytest.mark.parametrize("codec", CODECS)
def test_cut_at_every_byte_with_header_and_crc_put_right(codec: Codec) -> None:
    data = simple(3, codec=codec)
    for n in range(HEADER_BYTES, len(data)):
        cut = remake(data, body=bytes(data[HEADER_BYTES:n]))
        code = native.check(cut, NOW)[0]
        assert code in {Error.INVALID_RECORD, Error.CORRUPT_MESSAGE}, n
