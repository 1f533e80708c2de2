"""Batches for tests: right ones, remade ones with a field or a record wrong, and a plain reference of how they are judged."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import crc32c

from fastlog.protocol.errors import Error
from fastlog.protocol.records import HEADER_BYTES, Codec, Record, build_batch
from tests.native import outside

if TYPE_CHECKING:
    import random

NOW = 1_700_000_000_000
HOUR = 3_600_000
NEVER = 2**63 - 1

_HEADER = struct.Struct(">qiibIhiqqqhii")
FIELDS = [
    *("base_offset", "length", "leader_epoch", "magic", "crc", "attributes", "last_offset_delta"),
    *("base_timestamp", "max_timestamp", "producer_id", "producer_epoch", "base_sequence", "count"),
]


def varint(value: int) -> bytes:
    """Zigzag; of any size, so that numbers can be too long."""
    value = (value << 1) ^ (value >> 63)
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def sized(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def record(
    delta: int,
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    *,
    timestamp_delta: int = 0,
    headers: bytes = b"\0",
    length: int | None = None,
) -> bytes:
    """One record's bytes. `headers`: their count and all; `length`: what it says of itself."""
    body = b"\0" + varint(timestamp_delta) + varint(delta) + sized(key) + sized(value) + headers
    return varint(len(body) if length is None else length) + body


def remake(batch: bytes | bytearray, *, body: bytes | None = None, **fields: Any) -> bytearray:
    """The batch with other header fields or other bytes behind the header; length and CRC follow unless they are given."""
    rest = batch[HEADER_BYTES:] if body is None else body
    header = dict(zip(FIELDS, _HEADER.unpack_from(batch), strict=True))
    header["length"] = HEADER_BYTES - 12 + len(rest)
    header |= fields
    made = bytearray(_HEADER.pack(*(header[name] for name in FIELDS)) + rest)
    if "crc" not in fields:
        struct.pack_into(">I", made, 17, crc32c.crc32c(bytes(made[21:])))
    return made


def simple(count: int = 3, *, codec: Codec = Codec.NONE, timestamp: int = NOW, **fields: Any) -> bytearray:
    """A right batch of `count` small records."""
    records = [Record(i, timestamp, b"key%d" % i, b"value%d" % i, (("h", b"x"), ("n", None))) for i in range(count)]
    return remake(build_batch(records, timestamp_ms=timestamp, codec=codec), **fields)


def of_records(body: bytes, count: int, codec: Codec = Codec.NONE, **fields: int) -> bytearray:
    """A batch around given record bytes, compressed by the libraries themselves."""
    given: dict[str, Any] = {"count": count, "last_offset_delta": count - 1, "attributes": int(codec)} | fields
    return remake(bytes(simple(1)), body=outside.compress(body, codec), **given)


def random_records(chance: random.Random, count: int, size_max: int = 60) -> list[Record]:
    def some() -> bytes | None:
        if chance.random() < 0.1:
            return None
        return bytes(chance.choices(b"abcdefgh ", k=chance.randrange(size_max))) if chance.random() < 0.7 else chance.randbytes(9)

    return [
        Record(
            i,
            NOW - chance.randrange(10_000),
            some(),
            some(),
            tuple((chance.choice(["", "a", "trace", "Ü"]), some()) for _ in range(chance.choice([0, 0, 0, 1, 3]))),
        )
        for i in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Rules:
    """BatchRules, for both the compiled check and the reference."""

    size_max: int = 1 << 20
    before_max_ms: int = NEVER
    after_max_ms: int = HOUR
    log_append_time: bool = False
    keys_required: bool = False

    def given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class _BrokenError(Exception):
    """The record bytes don't hold what the header says."""


@dataclass(slots=True)
class _Walk:
    data: bytes
    at: int = 0
    deltas: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    keyed: list[bool] = field(default_factory=list)

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise _BrokenError
        self.at += 1
        return self.data[self.at - 1]

    def number(self, bytes_max: int, bits: int) -> int:
        value = 0
        for i in range(bytes_max):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if bits == 32 and value >> 32:
                    raise _BrokenError
                value &= (1 << bits) - 1
                return value >> 1 ^ -(value & 1)
        raise _BrokenError

    def skip(self) -> int:
        n = self.number(5, 32)
        if n > len(self.data) - self.at:
            raise _BrokenError
        self.at += max(0, n)
        return n

    def record(self) -> None:
        length = self.number(5, 32)
        end = self.at + length
        self.byte()
        self.timestamps.append(self.number(10, 64))
        self.deltas.append(self.number(5, 32))
        self.keyed.append(self.skip() >= 0)
        self.skip()
        headers = self.number(5, 32)
        if headers < 0:
            raise _BrokenError
        for _ in range(headers):
            if self.skip() < 0:
                raise _BrokenError
            self.skip()
        if self.at != end:
            raise _BrokenError


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def judge(data: bytes, now: int, rules: Rules) -> tuple[Error, bytes]:  # the rules in order, as one list
    """What batch_check must say of `data`, and the bytes that it must leave. Plain and slow, written from Kafka's rules."""
    if len(data) < 12:
        return Error.INVALID_RECORD, data
    length = struct.unpack_from(">i", data, 8)[0]
    if length < 14 or length > 2**31 - 13:
        return Error.CORRUPT_MESSAGE, data
    if len(data) < 17:
        return Error.INVALID_RECORD, data
    if data[16] > 2:
        return Error.CORRUPT_MESSAGE, data
    if len(data) != length + 12 or data[16] != 2:
        return Error.INVALID_RECORD, data
    if len(data) < HEADER_BYTES:
        return Error.CORRUPT_MESSAGE, data
    h = dict(zip(FIELDS, _HEADER.unpack_from(data), strict=True))
    if h["base_offset"]:
        return Error.INVALID_RECORD, data
    if len(data) > rules.size_max:
        return Error.MESSAGE_TOO_LARGE, data
    if crc32c.crc32c(data[21:]) != h["crc"]:
        return Error.CORRUPT_MESSAGE, data
    if h["attributes"] & 7 > 4:
        return Error.UNSUPPORTED_COMPRESSION_TYPE, data
    if h["count"] <= 0 or h["last_offset_delta"] != h["count"] - 1:
        return Error.INVALID_RECORD, data
    if h["attributes"] & 0x20 or (h["producer_id"] >= 0 and h["base_sequence"] < 0):
        return Error.INVALID_RECORD, data
    if h["attributes"] & 0x10 and h["producer_id"] < 0:
        return Error.INVALID_RECORD, data
    try:
        walk = _Walk(outside.decompress(data[HEADER_BYTES:], Codec(h["attributes"] & 7)))
    except ValueError:
        return Error.CORRUPT_MESSAGE, data
    try:
        for i in range(h["count"]):
            walk.record()
            if walk.deltas[-1] != i:
                raise _BrokenError
    except _BrokenError:
        return Error.INVALID_RECORD, data
    if walk.at != len(walk.data):
        return Error.INVALID_RECORD, data
    return _judge_times(data, h, walk, now, rules)


def _judge_times(data: bytes, h: dict[str, int], walk: _Walk, now: int, rules: Rules) -> tuple[Error, bytes]:
    claims = bool(h["attributes"] & 0x08)
    times = [h["max_timestamp"] if claims else _wrap(h["base_timestamp"] + delta) for delta in walk.timestamps]
    keyless = untimely = False
    for time, keyed in zip(times, walk.keyed, strict=True):
        if rules.keys_required and not keyed:
            keyless = True
        elif not rules.log_append_time and time != -1:
            age = _wrap(now - time)
            untimely |= age > rules.before_max_ms or _wrap(-age) > rules.after_max_ms
        else:
            untimely |= claims
    if untimely:
        return Error.INVALID_TIMESTAMP, data
    if keyless:
        return Error.INVALID_RECORD, data
    newest = now if rules.log_append_time else max(-1, *times)
    if newest != h["max_timestamp"] or rules.log_append_time != claims:
        attributes = h["attributes"] & 0x77 | (0x08 if rules.log_append_time else 0)
        return Error.NONE, bytes(remake(data, attributes=attributes, max_timestamp=newest))
    return Error.NONE, data
