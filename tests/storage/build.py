"""Record batches for tests of the log, what they look like once stored, and a plain reference of Kafka's sparse indexes."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlog.protocol.records import Record, build_batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fastlog.native.logtool import LocalLog

BLOCK = 4096
CHUNK = 65536

_random = random.Random(7)
_NOISE = _random.randbytes(1 << 20)


def batch(count: int = 1, size: int = 100, timestamp: int = 1000, **fields: Any) -> bytes:
    """One batch of `count` records with values of `size` incompressible bytes; timestamps in ms, one apart. `fields`: of build_batch."""
    records = []
    for i in range(count):
        at = _random.randrange(len(_NOISE) - size) if size < len(_NOISE) else 0
        records.append(Record(i, timestamp + i, b"k%d" % i, (_NOISE[at : at + size] * (size // len(_NOISE) + 1))[:size]))
    return build_batch(records, timestamp_ms=timestamp, **fields)


def count_of(data: bytes) -> int:
    """Offsets that a batch takes."""
    return int.from_bytes(data[23:27], "big") + 1


def stored(data: bytes, base_offset: int, leader_epoch: int = 0) -> bytes:
    """The batch as it lies in the log: base offset and leader epoch are the broker's."""
    return struct.pack(">q", base_offset) + data[8:12] + struct.pack(">i", leader_epoch) + data[16:]


def split(data: bytes) -> list[bytes]:
    """Whole batches at the start of bytes read; a cut one at the end is left out."""
    found = []
    at = 0
    while at + 61 <= len(data):
        size = 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        if at + size > len(data):
            break
        found.append(data[at : at + size])
        at += size
    return found


@dataclass
class Expected:
    """What a log must hold: batches in order, as stored."""

    batches: list[tuple[int, bytes]] = field(default_factory=list)
    start: int = 0
    end: int = 0

    def add(self, data: bytes, leader_epoch: int = 0) -> int:
        """Appends; the base offset."""
        base = self.end
        self.batches.append((base, stored(data, base, leader_epoch)))
        self.end += count_of(data)
        return base

    def cut(self, end: int) -> None:
        """The log ends at an offset from here on, which must lie between batches."""
        while self.batches and self.batches[-1][0] >= end:
            self.batches.pop()
        assert not self.batches or self.batches[-1][0] + count_of(self.batches[-1][1]) == end
        self.end = end

    def bytes_from(self, offset: int) -> bytes:
        return b"".join(data for base, data in self.batches if base + count_of(data) > offset)


def read_all(log: LocalLog, offset: int, *, max_bytes: int = 1 << 20, to_log_end: bool = False) -> bytes:
    """Reads as a consumer does, from an offset to the end: all whole batches."""
    out: list[bytes] = []
    while True:
        result = log.read(offset, max_bytes, to_log_end=to_log_end)
        assert result.error == 0, result
        got = split(result.data)
        if not got:
            assert result.data == b""
            return b"".join(out)
        out += got
        offset = int.from_bytes(got[-1][:8], "big") + count_of(got[-1])


def check(log: LocalLog, expected: Expected, *, max_bytes: int = 1 << 20) -> None:
    """The log holds exactly what is expected from its start to its end."""
    positions = log.positions
    assert (positions.log_start, positions.log_end, positions.high_watermark) == (expected.start, expected.end, expected.end)
    assert read_all(log, expected.start, max_bytes=max_bytes) == expected.bytes_from(expected.start)


def reference_indexes(batches: Iterable[tuple[int, bytes]], base_offset: int, interval: int) -> tuple[bytes, bytes]:
    """`.index` and `.timeindex` of an inactive segment, the way Kafka 4.3's LogSegment.append and onBecomeInactiveSegment make them."""
    offsets = bytearray()
    times = bytearray()
    position = 0
    since = 0
    latest, latest_offset, last_time = -1, base_offset, -1
    for base, data in batches:
        last = base + count_of(data) - 1
        timestamp = int.from_bytes(data[35:43], "big", signed=True)
        if timestamp > latest:
            latest, latest_offset = timestamp, last
        if since > interval:
            offsets += struct.pack(">ii", last - base_offset, position)
            if latest > last_time:
                times += struct.pack(">qi", latest, latest_offset - base_offset)
                last_time = latest
            since = 0
        position += len(data)
        since += len(data)
    if latest > last_time:
        times += struct.pack(">qi", latest, latest_offset - base_offset)
    return bytes(offsets), bytes(times)


def segment_names(directory: Path) -> Sequence[str]:
    """The segments of a partition's directory by base offset."""
    return sorted(p.name for p in directory.glob("*.log"))
