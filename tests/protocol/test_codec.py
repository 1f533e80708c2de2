"""The codec by itself: known bytes, what it refuses, and that hostile input costs nothing."""

import gc
import random
import sys
import time
import tracemalloc
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest

from fastlog.native.codec import MAX_ELEMENTS, Codec, DecodeError, EncodeError
from fastlog.protocol import schema
from fastlog.protocol.schema import Schema

from .chance import all_schemas, message

ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def made(fields: str, version: int = 0, head: str = "versions 0-9 flexible 5+") -> Codec:
    """The codec of a message with these fields; up to version 4 the older encoding."""
    lines = "\n".join(f"  {line}" for line in fields.strip("\n").splitlines())
    return Codec("x", schema.plan(schema.parse(f"data x {head}\n{lines}")["x"], version))


def codec_of(stem: str, name: str, version: int) -> Codec:
    found = next(entry for file, entry, v in all_schemas() if (file, entry.name, v) == (stem, name, version))
    return Codec(name, schema.plan(found, version))


# Written out from the protocol guide: lengths and counts of one more than they say in flexible versions, tag buffers at the end.
GOLDEN: list[tuple[str, str, int, dict[str, Any], str]] = [
    ("018_api_versions", "ApiVersionsRequest", 0, {}, ""),
    (
        "018_api_versions",
        "ApiVersionsRequest",
        3,
        {"client_software_name": "lib", "client_software_version": "1.2"},
        "04 6c6962 04 312e32 00",
    ),
    (
        "018_api_versions",
        "ApiVersionsResponse",
        0,
        {"error_code": 35, "api_keys": [{"api_key": 18, "min_version": 0, "max_version": 4}]},
        "0023 00000001 0012 0000 0004",
    ),
    (
        "018_api_versions",
        "ApiVersionsResponse",
        4,
        {
            "api_keys": [{"api_key": 18, "min_version": 0, "max_version": 4}],
            "supported_features": [{"name": "f", "min_version": 0, "max_version": 1}],
            "finalized_features_epoch": 7,
        },
        "0000 02 0012 0000 0004 00 00000000 02  00 08 02 02 66 0000 0001 00  01 08 0000000000000007",
    ),
    ("003_metadata", "MetadataRequest", 1, {"topics": None}, "ffffffff"),
    ("003_metadata", "MetadataRequest", 1, {"topics": [{"name": "ab"}]}, "00000001 0002 6162"),
    ("003_metadata", "MetadataRequest", 9, {"topics": None, "allow_auto_topic_creation": False}, "00 00 00 00 00"),
    (
        "003_metadata",
        "MetadataRequest",
        12,
        {"topics": [{"topic_id": ID, "name": None}]},
        "02 00112233445566778899aabbccddeeff 00 00  01 00 00",
    ),
    ("012_heartbeat", "HeartbeatRequest", 0, {"group_id": "g", "generation_id": -1, "member_id": "m"}, "0001 67 ffffffff 0001 6d"),
    (
        "012_heartbeat",
        "HeartbeatRequest",
        4,
        {"group_id": "g", "generation_id": 5, "member_id": "m", "group_instance_id": "i"},
        "02 67 00000005 02 6d 02 69 00",
    ),
    (
        "headers",
        "request_header",
        2,
        {"request_api_key": 3, "request_api_version": 12, "correlation_id": 9, "client_id": "me"},
        "0003 000c 00000009 0002 6d65 00",
    ),
    (
        "075_describe_topic_partitions",
        "DescribeTopicPartitionsRequest",
        0,
        {"topics": [{"name": "t"}], "cursor": {"topic_name": "t", "partition_index": 4}},
        "02 02 74 00 000007d0 01 02 74 00000004 00 00",
    ),
    (
        "group_log",
        "offset_commit_value",
        3,
        {"offset": 1, "leader_epoch": 2, "metadata": "", "commit_timestamp": 3},
        "0000000000000001 00000002 0000 0000000000000003",
    ),
]


@pytest.mark.parametrize(("stem", "name", "version", "sample", "data"), GOLDEN)
def test_known_bytes(stem: str, name: str, version: int, sample: dict[str, Any], data: str) -> None:
    codec = codec_of(stem, name, version)
    assert codec.encode(sample).hex(" ") == bytes.fromhex(data).hex(" ")
    assert codec.encode(codec.decode(bytes.fromhex(data))) == bytes.fromhex(data)


SCALARS = """
a: bool
b: int8
c: int16
d: uint16
e: int32
f: uint32
g: int64
h: float64
i: uuid
j: string nullable
k: bytes nullable
"""
EXTREMES = [
    ({"a": True, "b": -128, "c": -32768, "d": 0, "e": -(2**31), "f": 0, "g": -(2**63), "h": -0.5}, "01 80 8000 0000 80000000 00000000"),
    ({"a": False, "b": 127, "c": 32767, "d": 65535, "e": 2**31 - 1, "f": 2**32 - 1, "g": 2**63 - 1, "h": 2.0}, "00 7f 7fff ffff 7fffffff"),
]


@pytest.mark.parametrize(("sample", "begin"), EXTREMES)
@pytest.mark.parametrize("version", [0, 5])
def test_every_type_at_its_ends(version: int, sample: dict[str, Any], begin: str) -> None:
    codec = made(SCALARS, version)
    whole = sample | {"i": ID, "j": "ß", "k": b"\0"}
    data = codec.encode(whole)
    assert data.startswith(bytes.fromhex(begin))
    assert codec.decode(data) == whole
    assert isinstance(codec.decode(data)["i"], UUID)
    assert codec.decode(codec.encode(sample | {"j": None, "k": None})) == sample | {"i": UUID(int=0), "j": None, "k": None}


def test_a_uuid_made_here_is_like_any_other() -> None:
    found = made("i: uuid").decode(ID.bytes)["i"]
    assert (found, hash(found), str(found), found.bytes, found.is_safe) == (ID, hash(ID), str(ID), ID.bytes, ID.is_safe)


def test_a_boolean_is_any_byte_but_zero() -> None:
    assert made("a: bool").decode(b"\x02") == {"a": True}


def test_bytes_behind_a_message_are_ignored() -> None:
    codec = made("a: int16")
    assert codec.decode(b"\0\1more") == {"a": 1}
    assert codec.decode_prefix(b"\0\1more") == ({"a": 1}, 2)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: Any) -> None:
    assert made("a: int16").decode(kind(b"\0\1")) == {"a": 1}
    with pytest.raises(TypeError):
        made("a: int16").decode("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        made("a: int16").decode(memoryview(bytes(8))[::2])


def refusal(codec: Codec, data: str, **options: int) -> tuple[str, int, str]:
    with pytest.raises(DecodeError) as caught:
        codec.decode(bytes.fromhex(data), **options)
    assert str(caught.value) == f"x: {caught.value.path or 'message'} at byte {caught.value.offset}: {caught.value.reason}"
    return caught.value.path, caught.value.offset, caught.value.reason


@pytest.mark.parametrize(
    ("fields", "version", "data", "path", "offset", "reason"),
    [
        ("a: int32", 0, "000000", "a", 0, "4 bytes expected, 3 left"),
        ("a: uuid", 0, "00", "a", 0, "16 bytes expected, 1 left"),
        ("a: string", 0, "0003 6162", "a", 2, "3 bytes expected, 2 left"),
        ("a: string", 0, "ffff", "a", 0, "null, which is not allowed here"),
        ("a: string nullable 1+", 0, "ffff", "a", 0, "null, which is not allowed here"),
        ("a: string nullable", 0, "fffe", "a", 0, "a length of -2"),
        ("a: string", 0, "0002 61ff", "a", 3, "not UTF-8: invalid start byte"),
        ("a: string", 0, "0003 eda080", "a", 2, "not UTF-8: invalid continuation byte"),
        ("a: string", 5, "00 00", "a", 0, "null, which is not allowed here"),
        ("a: string", 5, "818002 00", "a", 0, "a string of 32768 bytes, more than 32767"),
        ("a: bytes", 0, "7fffffff 00", "a", 4, "2147483647 bytes expected, 1 left"),
        ("a: bytes", 5, "ffffffff0f 00", "a", 5, "4294967294 bytes expected, 1 left"),
        ("a: bytes", 5, "ffffffff1f 00", "a", 0, "a varint is cut off, or longer than 32 bits"),
        ("a: bytes", 5, "ffffffffff01 00", "a", 0, "a varint is cut off, or longer than 32 bits"),
        ("a: bytes", 5, "80", "a", 0, "a varint is cut off, or longer than 32 bits"),
        ("a: []int8", 0, "7fffffff 00", "a", 0, "2147483647 elements in 1 bytes"),
        ("a: []int64", 5, "03 0000000000000000 00 00", "a", 0, "2 elements in 10 bytes"),
        ("a: []int8", 0, "80000000", "a", 0, "a length of -2147483648"),
        ("a: []int8", 0, "ffffffff", "a", 0, "null, which is not allowed here"),
        ("a: []string nullable", 0, "00000002 0000 ffff", "a[1]", 6, "null, which is not allowed here"),
        ("a: []struct\n  b: string\n  c: []struct\n    d: int8", 0, "00000001 0000 00000002 01", "a[0].c", 6, "2 elements in 1 bytes"),
        ("a: []struct\n  b: []struct\n    c: string", 0, "00000001 00000002 0000 0001", "a[0].b[1].c", 12, "1 bytes expected, 0 left"),
        ("a: struct\n  b: bool", 0, "", "a.b", 0, "1 bytes expected, 0 left"),
        ("a: struct nullable\n  b: bool", 0, "01", "a.b", 1, "1 bytes expected, 0 left"),
        ("a: int8", 5, "00", "", 1, "a varint is cut off, or longer than 32 bits"),
        ("a: int8", 5, "00 05 0000", "", 1, "5 tagged fields in 2 bytes"),
        ("a: int8", 5, "00 02 0100 0100", "", 4, "tag 1 comes after tag 1"),
        ("a: int8", 5, "00 02 0200 0100", "", 4, "tag 1 comes after tag 2"),
        ("a: int8", 5, "00 01 0103 0000", "", 2, "tag 1 has 3 bytes, 2 are left"),
        ("a: int16 5+ tag 0", 5, "01 0003 000000", "a", 1, "tag 0 has 3 bytes, its value 2"),
        ("a: int16 5+ tag 0", 5, "01 0001 0000", "a", 3, "2 bytes expected, 1 left"),
        ("a: struct\n  b: int8", 5, "00 01 0009 00", "a", 2, "tag 0 has 9 bytes, 1 are left"),
    ],
)
def test_what_is_refused(fields: str, version: int, data: str, path: str, offset: int, reason: str) -> None:
    assert refusal(made(fields, version), data) == (path, offset, reason)


def test_tagged_fields() -> None:
    codec = made("a: int8\nb: string 5+ tag 1\nc: []int32 5+ nullable tag 4 = null\nd: struct 5+ nullable tag 9 = null\n  e: int8", 5)
    assert codec.encode({"a": 1, "b": "", "c": None, "d": None}) == bytes.fromhex("01 00")
    full = {"a": 1, "b": "x", "c": [7], "d": {"e": 2}}
    data = bytes.fromhex("01 03  01 02 0278  04 05 0200000007  09 03 01 02 00")
    assert (codec.encode(full), codec.decode(data)) == (data, full)
    # unknown ones before, between and behind are skipped, whatever is in them
    unknown = bytes.fromhex("01 06  00 01 ff  01 02 0278  03 00  04 05 0200000007  09 03 01 02 00  8001 02 ffff")
    assert codec.decode(unknown) == full
    assert codec.decode(bytes.fromhex("00 01 09 01 00"))["d"] is None
    # a large one moves by the width of its size
    assert codec.decode(codec.encode(full | {"b": "x" * 20_000})) == full | {"b": "x" * 20_000}


def test_a_nullable_tagged_field_whose_default_is_not_null() -> None:
    codec = made("a: string 5+ nullable tag 0", 5)
    assert codec.encode({"a": None}) == bytes.fromhex("01 00 01 00")
    assert codec.decode(bytes.fromhex("01 00 01 00")) == {"a": None}
    assert codec.encode({"a": ""}) == b"\0"


def test_a_tagged_struct_of_defaults_is_left_out() -> None:
    codec = made("a: struct 5+ tag 0\n  b: int32 = -1\n  c: []int8\n  d: struct\n    e: bool", 5)
    for same in ({}, {"b": -1}, {"b": -1, "c": (), "d": {}}, {"d": {"e": False}}):
        assert codec.encode({"a": same}) == b"\0"
    assert codec.encode({"a": {"d": {"e": True}}}) == bytes.fromhex("01 00 08 ffffffff 01 01 00 00")


def test_nullable_structs() -> None:
    codec = made("a: struct nullable\n  b: int8")
    assert (codec.encode({"a": None}), codec.encode({"a": {"b": 5}})) == (b"\xff", b"\x01\x05")
    assert (codec.decode(b"\xff"), codec.decode(b"\x01\x05")) == ({"a": None}, {"a": {"b": 5}})


def test_versions_decide_what_is_there() -> None:
    fields = "a: int8\nb: []int8 1+ ignorable\nc: string 1-2 nullable = null\nd: struct 2+\n  e: int8 = 3"
    encoded = [made(fields, version).encode({}) for version in range(4)]
    assert encoded == [b"\0", bytes(5) + b"\xff\xff", bytes(5) + b"\xff\xff\3", bytes(5) + b"\3"]
    assert made(fields, 0).decode(b"\1") == {"a": 1, "b": [], "c": None, "d": {"e": 3}}
    assert made(fields, 3).decode(bytes(5) + b"\4") == {"a": 0, "b": [], "c": None, "d": {"e": 4}}


def test_defaults_are_not_shared() -> None:
    codec = made("a: int8\nb: []int8 1+\nc: struct 1+\n  d: []int8")
    first = codec.decode(b"\0")
    first["b"].append(1)
    first["c"]["d"].append(1)
    assert codec.decode(b"\0") == {"a": 0, "b": [], "c": {"d": []}}


class Code(IntEnum):
    SOME = 3


@pytest.mark.parametrize(
    ("fields", "message", "path", "reason"),
    [
        ("a: int8", {"b": 1}, "", "there is no field 'b'"),
        ("a: []struct\n  b: int8", {"a": [{}, {"c": 1}]}, "a[1]", "there is no field 'c'"),
        ("a: int8 1+", {"a": 1}, "", "this version has no field 'a', whose value would be lost"),
        ("a: struct 1+\n  b: int8", {"a": {"b": 1}}, "", "this version has no field 'a', whose value would be lost"),
        ("a: int8", {"a": 128}, "a", "128 is not within -128 and 127"),
        ("a: uint16", {"a": -1}, "a", "-1 is not within 0 and 65535"),
        ("a: int64", {"a": 1 << 63}, "a", f"{1 << 63} is not within {-(1 << 63)} and {(1 << 63) - 1}"),
        ("a: int8", {"a": None}, "a", "NoneType instead of int"),
        ("a: int8", {"a": 1.0}, "a", "float instead of int"),
        ("a: bool", {"a": 1}, "a", "int instead of bool"),
        ("a: float64", {"a": "1"}, "a", "str instead of float"),
        ("a: uuid", {"a": str(ID)}, "a", "str instead of UUID"),
        ("a: string", {"a": b"x"}, "a", "bytes instead of str"),
        ("a: string", {"a": None}, "a", "None, which is not allowed here"),
        ("a: string", {"a": "ß" * 16_384}, "a", "a string of 32768 bytes, more than 32767"),
        ("a: string", {"a": "\ud800"}, "a", "cannot be UTF-8: surrogates not allowed"),
        ("a: bytes", {"a": "x"}, "a", "str instead of bytes"),
        ("a: []string nullable", {"a": ["", None]}, "a[1]", "None, which is not allowed here"),
        ("a: []int8", {"a": None}, "a", "None, which is not allowed here"),
        ("a: []string", {"a": "text"}, "a", "str instead of list or tuple"),
        ("a: []struct\n  b: int8", {"a": [1]}, "a[0]", "int instead of dict"),
        ("a: struct\n  b: int8", {"a": None}, "a", "NoneType instead of dict"),
    ],
)
def test_what_is_not_encoded(fields: str, message: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(EncodeError) as caught:
        made(fields).encode(message)
    assert isinstance(caught.value, ValueError)
    assert (caught.value.path, caught.value.reason) == (path, reason)
    assert str(caught.value) == f"x: {path or 'message'}: {reason}"


def test_what_a_version_lacks_may_be_given_when_nothing_is_lost() -> None:
    codec = made("a: int8 1+ = 4\nb: int8 1+ ignorable\nc: []int8 1+\nd: struct 1+\n  e: int8")
    assert codec.encode({"a": 4, "b": 9, "c": [], "d": {"e": 0}}) == b""
    assert codec.encode({"c": (), "d": {}}) == b""


def test_values_of_other_types_that_fit() -> None:
    codec = made("a: int8\nb: []int8\nc: bytes\nd: bytes\ne: float64")
    sample = {"a": Code.SOME, "b": (1, 2), "c": bytearray(b"x"), "d": memoryview(b"yz"), "e": 1}
    assert codec.decode(codec.encode(sample)) == {"a": 3, "b": [1, 2], "c": b"x", "d": b"yz", "e": 1.0}


def test_large_messages() -> None:
    codec = made("a: []bytes")
    sample = {"a": [bytes([n]) * 500_000 for n in range(9)]}
    for _ in range(2):
        assert codec.decode(codec.encode(sample)) == sample
    assert codec.encode({}) == bytes(4)


def test_elements_are_bounded() -> None:
    codec = made("a: []struct\n  b: []int8")
    data = "00000002 00000003 000000 00000001 00"
    assert codec.decode(bytes.fromhex(data), max_elements=6) == {"a": [{"b": [0, 0, 0]}, {"b": [0]}]}
    assert refusal(codec, data, max_elements=5) == ("a[1].b", 11, "1 elements more than a message may have")
    flat = made("a: []int8", 0)
    assert len(flat.decode(MAX_ELEMENTS.to_bytes(4, "big") + bytes(MAX_ELEMENTS))["a"]) == MAX_ELEMENTS
    with pytest.raises(DecodeError, match="elements more"):
        flat.decode((MAX_ELEMENTS + 1).to_bytes(4, "big") + bytes(MAX_ELEMENTS + 1))


@pytest.mark.parametrize("length", ["7fffffff", "7ffffffe", "00ffffff"])
def test_hostile_lengths_cost_nothing(length: str) -> None:
    codec = made("a: []struct\n  b: []int64\n  c: string")
    data = bytes.fromhex("00000002 00000000 0001 61" + length + "00" * 30)
    tracemalloc.start()
    begin = time.thread_time()  # its own time: other tests run beside it
    with pytest.raises(DecodeError):
        codec.decode(data)
    taken, (_, peak) = time.thread_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 0.1
    assert peak < 100_000


def test_structs_nest_to_a_depth() -> None:
    def nested(depth: int) -> schema.Plan:
        inner = None if depth == 1 else nested(depth - 1)
        return False, [("a", "int8" if inner is None else "struct", False, False, False, -1, 0 if inner is None else {}, inner)], {}

    codec = Codec("x", nested(16))
    assert codec.encode(codec.decode(b"\7")) == b"\7"
    with pytest.raises(ValueError, match="deeper than 16"):
        Codec("x", nested(17))


REQUESTS = [(found, version) for _, found, version in all_schemas() if not found.name.endswith("Response")]


@pytest.mark.parametrize(("found", "version"), [pytest.param(*case, id=f"{case[0].name}-{case[1]}") for case in REQUESTS])
def test_a_cut_request_is_refused_at_every_byte(found: Schema, version: int) -> None:
    codec = Codec(found.name, schema.plan(found, version))
    chance = random.Random(f"cut {found.name} {version}")
    for _ in range(3):
        data = codec.encode(message(found.fields, version, chance))
        for size in range(min(len(data), 2000)):
            with pytest.raises(DecodeError) as caught:
                codec.decode(data[:size])
            assert 0 <= caught.value.offset <= size


def test_garbage_is_a_message_or_refused() -> None:
    """Random bytes, and valid messages with bytes changed: never anything but a message or DecodeError."""
    chance = random.Random(7)
    codecs = [(Codec(found.name, schema.plan(found, version)), found, version) for _, found, version in all_schemas()]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(6000):
        codec, found, version = chance.choice(codecs)
        if chance.random() < 0.3:
            data = bytearray(chance.randbytes(chance.randrange(200)))
        else:
            data = bytearray(codec.encode(message(found.fields, version, chance)))
            for _ in range(chance.randint(1, 4)):
                if data:
                    data[chance.randrange(len(data))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        try:
            read = codec.decode(data)
        except DecodeError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert codec.decode(codec.encode(read)) == read or "nan" in repr(read)
    assert min(outcomes.values()) > 500, outcomes


def test_nothing_is_kept() -> None:
    """Neither by what succeeds nor by what fails half way."""
    codec = made("a: []struct\n  b: string\n  c: []int32\n  d: uuid\n  e: bytes nullable\nf: struct 5+ nullable tag 0 = null\n  g: int8", 5)
    item = {"b": "text", "c": [1, 2**30], "d": ID, "e": b"bytes"}
    good = codec.encode({"a": [item] * 3, "f": {"g": 1}})

    def work() -> None:
        for _ in range(300):
            codec.decode(good)
            codec.encode({"a": (item,), "f": None})
            for bad in ({"a": [item, {"c": [1, "2"]}]}, {"x": 1}, {"a": [{**item, "e": "no"}]}):
                with pytest.raises(EncodeError):
                    codec.encode(bad)
            for size in (3, 20, len(good) - 1):
                with pytest.raises(DecodeError):
                    codec.decode(good[:size])

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
