"""Record batches (magic 2) in Python: for the control plane's own topics and for tests. The data plane has native/batch.

Format: the Kafka protocol guide, "Record Batch"; varints are zigzag (Protocol Buffers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from fastlog._core import compress, crc32c, decompress, pack_pairs, pack_records, peek

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

HEADER_BYTES = 61
PREFIX_BYTES = 12  # base offset and length
CRC_FROM = 21
OFFSETS_MAX = 2**31 - 1  # of a batch

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20

_PREFIX = struct.Struct(">qiibI")
_REST = struct.Struct(">hiqqqhii")
_MARKER_KEY = struct.Struct(">hh")  # version, type: 0 abort, 1 commit
_MARKER_VALUE = struct.Struct(">hi")  # version, coordinator epoch


class Codec(IntEnum):
    """Compression of a batch: the lowest bits of its attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `timestamp`: ms since the epoch, -1 for none. Headers may repeat a name; one that is not UTF-8 comes as surrogate
    escapes (PEP 383)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it lies in a log. `size`: bytes of all of it; timestamps: ms; producer_id and base_sequence: -1 for none."""

    base_offset: int
    size: int
    leader_epoch: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: tuple[Record, ...]

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> Codec:
        return Codec(self.attributes & CODEC_MASK)

    @property
    def log_append_time(self) -> bool:
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def control(self) -> bool:
        return bool(self.attributes & CONTROL)


def build_batch(
    records: Iterable[Record],
    *,
    timestamp_ms: int,
    base_offset: int = 0,
    leader_epoch: int = -1,
    codec: Codec = Codec.NONE,
    level: int = 0,
    attributes: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes:
    """One batch of these records, in this order: their offsets are given by it, and those without a time (-1) get `timestamp_ms`.

    `attributes`: the bits beside the codec's. ValueError for no records.
    """
    given = list(records)
    if not given:
        raise ValueError("a batch has at least one record")
    times = [timestamp_ms if r.timestamp == -1 else r.timestamp for r in given]
    body = pack_records([(at - times[0], r.key, r.value, _encoded(r.headers)) for r, at in zip(given, times, strict=True)])
    packed = compress(body, codec, level) if codec else body
    return _whole(
        packed,
        len(given),
        times[0],
        max(times),
        base_offset,
        leader_epoch,
        attributes & ~CODEC_MASK | codec,
        producer_id,
        producer_epoch,
        base_sequence,
    )


def build_pairs(
    pairs: list[tuple[bytes, bytes | None]], *, timestamp_ms: int, attributes: int = 0, producer_id: int = -1, producer_epoch: int = -1
) -> bytes:
    """`build_batch` for keys and values of one time, of which there is at least one."""
    body = pack_pairs(pairs)
    return _whole(body, len(pairs), timestamp_ms, timestamp_ms, 0, -1, attributes, producer_id, producer_epoch, -1)


def _whole(  # noqa: PLR0917 - the fields of the header, in its order
    packed: bytes,
    count: int,
    first_ms: int,
    max_ms: int,
    base_offset: int,
    leader_epoch: int,
    attributes: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
) -> bytes:
    rest = _REST.pack(attributes, count - 1, first_ms, max_ms, producer_id, producer_epoch, base_sequence, count)
    size = HEADER_BYTES - PREFIX_BYTES + len(packed)
    return _PREFIX.pack(base_offset, size, leader_epoch, 2, crc32c(packed, crc32c(rest))) + rest + packed


def build_placeholder(base_offset: int, end: int, *, leader_epoch: int, timestamp_ms: int) -> bytes:
    """A batch without records that takes the offsets from `base_offset` up to `end`, as compaction leaves one where all records of a batch
    went. ValueError for more offsets than a batch can have.
    """
    if not 0 < end - base_offset <= OFFSETS_MAX:
        raise ValueError(f"a batch of {end - base_offset} offsets")
    rest = _REST.pack(0, end - base_offset - 1, -1, timestamp_ms, -1, -1, -1, 0)
    return _PREFIX.pack(base_offset, HEADER_BYTES - PREFIX_BYTES, leader_epoch, 2, crc32c(rest)) + rest


def _encoded(headers: tuple[tuple[str, bytes | None], ...]) -> tuple[tuple[bytes, bytes | None], ...]:
    return tuple((name.encode(errors="surrogateescape"), value) for name, value in headers) if headers else ()


def build_end_marker(*, producer_id: int, producer_epoch: int, coordinator_epoch: int, commit: bool, timestamp_ms: int) -> bytes:
    """The control batch that ends a transaction: Kafka's EndTransactionMarker, version 0 of key and value."""
    record = Record(0, timestamp_ms, _MARKER_KEY.pack(0, int(commit)), _MARKER_VALUE.pack(0, coordinator_epoch))
    return build_batch(
        [record], timestamp_ms=timestamp_ms, attributes=TRANSACTIONAL | CONTROL, producer_id=producer_id, producer_epoch=producer_epoch
    )


def iter_batches(data: Buffer) -> Iterator[Batch]:
    """The batches in `data`, one after another; one that is cut short by the end ends it (a Fetch may end anywhere).

    Raises ValueError for bytes that are no batch, a wrong CRC, or records that can't be decoded.
    """
    view = memoryview(data).cast("B")
    at = 0
    while len(view) - at >= HEADER_BYTES:
        info = peek(view[at:])
        if info is None:
            raise ValueError(f"no record batch at byte {at}")
        batch = view[at : at + info["size"]]
        if len(batch) < info["size"]:
            return
        if crc32c(batch[CRC_FROM:]) != info["crc"]:
            raise ValueError(f"the record batch at byte {at} has a wrong CRC")
        attributes = info["attributes"]
        codec = attributes & CODEC_MASK
        packed = batch[HEADER_BYTES:]
        body = decompress(packed, codec) if codec else bytes(packed)
        appended = info["max_timestamp"] if attributes & LOG_APPEND_TIME else None
        try:
            records = tuple(_take_records(body, info["count"], info["base_offset"], info["base_timestamp"], appended))
        except IndexError as error:
            raise ValueError(f"the record batch at byte {at} has a broken record") from error
        yield Batch(
            base_offset=info["base_offset"],
            size=info["size"],
            leader_epoch=info["leader_epoch"],
            attributes=attributes,
            last_offset_delta=info["last_offset_delta"],
            base_timestamp=info["base_timestamp"],
            max_timestamp=info["max_timestamp"],
            producer_id=info["producer_id"],
            producer_epoch=info["producer_epoch"],
            base_sequence=info["base_sequence"],
            records=records,
        )
        at += info["size"]


class _Cursor:
    """Reads varints and bytes; IndexError past the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def varint(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        value = byte & 0x7F
        shift = 7
        while byte & 0x80:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 70:
                raise IndexError("a number of more than ten bytes")
        return value >> 1 ^ -(value & 1)

    def bytes_or_none(self) -> bytes | None:
        length = self.varint()
        if length < 0:
            return None
        start = self.at
        self.at += length
        if self.at > len(self.data):
            raise IndexError("bytes past the end")
        return self.data[start : self.at]

    def headers(self) -> Iterator[tuple[str, bytes | None]]:
        count = self.varint()
        if count < 0:
            raise IndexError("a negative number of headers")
        for _ in range(count):
            name = self.bytes_or_none()
            if name is None:
                raise IndexError("a header without a name")
            yield name.decode(errors="surrogateescape"), self.bytes_or_none()


def _take_records(body: bytes, count: int, base_offset: int, base_timestamp: int, appended: int | None) -> Iterator[Record]:
    cursor = _Cursor(body)
    for _ in range(count):
        end = cursor.varint() + cursor.at
        cursor.at += 1  # attributes
        timestamp = base_timestamp + cursor.varint()
        offset = base_offset + cursor.varint()
        key = cursor.bytes_or_none()
        value = cursor.bytes_or_none()
        headers = tuple(cursor.headers())
        if cursor.at != end:
            raise IndexError("a record's length is wrong")
        yield Record(offset, timestamp if appended is None else appended, key, value, headers)
    if cursor.at != len(body):
        raise IndexError("bytes behind the last record")
