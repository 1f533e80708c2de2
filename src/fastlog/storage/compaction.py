"""What is compacted, and when: Kafka 4.3's rules for cleanup.policy=compact (LogCleanerManager, Cleaner).

A log has a clean part, from which everything but the newest record of each key is gone, and a dirty one behind it. The cleaner takes the
log with the largest dirty share first, and only one whose share is over min.cleanable.dirty.ratio, or with a record that waited for longer
than max.compaction.lag.ms. The active segment, what is not yet decided (past the last stable offset) and segments younger than
min.compaction.lag.ms stay out.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastlog.storage.files import DamagedFileError, read_checkpoint, write_checkpoint
from fastlog.storage.retention import list_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKPOINT: Final = "cleaner-offset-checkpoint"
"""Kafka's file: for each partition of a data directory the first dirty offset."""
OFFSETS_PER_SEGMENT: Final = 2**31 - 1
_BATCH_HEADER: Final = 61
_TIME_ENTRY: Final = struct.Struct(">qi")


@dataclass(frozen=True, slots=True)
class Part:
    """A segment that may be compacted."""

    base_offset: int
    next_offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What compacting a log would mean now."""

    parts: Sequence[Part]
    """From the log's start to where compaction has to stop."""
    first_dirty: int
    overdue: bool
    """A record waited for longer than max.compaction.lag.ms."""

    @property
    def end(self) -> int:
        return self.parts[-1].next_offset if self.parts else self.first_dirty

    @property
    def clean_bytes(self) -> int:
        return sum(part.bytes for part in self.parts if part.next_offset <= self.first_dirty)

    @property
    def dirty_bytes(self) -> int:
        return sum(part.bytes for part in self.parts if part.next_offset > self.first_dirty)

    @property
    def ratio(self) -> float:
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    def due(self, ratio_min: float) -> bool:
        return self.dirty_bytes > 0 and (self.overdue or self.ratio > ratio_min)


def largest_timestamp(directory: str, base_offset: int) -> int | None:
    """Of a sealed segment's records, in ms; None when they have none or the index does not tell. Blocks."""
    try:
        with (Path(directory) / f"{base_offset:020}.timeindex").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < _TIME_ENTRY.size or size % _TIME_ENTRY.size:
                return None
            file.seek(size - _TIME_ENTRY.size)
            timestamp = int(_TIME_ENTRY.unpack(file.read(_TIME_ENTRY.size))[0])
    except OSError:
        return None
    return timestamp if timestamp > 0 else None


def first_timestamp(directory: str, base_offset: int) -> int | None:
    """Of a segment's first batch, in ms; None when there is none. Blocks."""
    try:
        with (Path(directory) / f"{base_offset:020}.log").open("rb") as file:
            head = file.read(_BATCH_HEADER)
    except OSError:
        return None
    timestamp = int.from_bytes(head[35:43], "big", signed=True) if len(head) == _BATCH_HEADER else -1
    return timestamp if timestamp > 0 else None


def _time_of(directory: str, base_offset: int, now_ms: int) -> int:
    """What counts as a segment's age: its largest timestamp, or else when its file was written."""
    timestamp = largest_timestamp(directory, base_offset)
    if timestamp is not None:
        return timestamp
    try:
        return int((Path(directory) / f"{base_offset:020}.log").stat().st_mtime * 1000)
    except OSError:
        return now_ms


def make_plan(directory: str, *, log_start: int, limit: int, checkpoint: int | None, now_ms: int, lag_min_ms: int, lag_max_ms: int) -> Plan:
    """`limit`: where the segments end that can be compacted at all. `checkpoint`: first dirty offset, if one is known. Blocks; OSError."""
    found = [segment for segment in list_segments(directory) if segment.base_offset < limit]
    ends = [segment.base_offset for segment in found[1:]] + [limit] * bool(found)
    parts = [Part(segment.base_offset, end, segment.bytes) for segment, end in zip(found, ends, strict=True)]
    first_dirty = max(checkpoint or 0, log_start, parts[0].base_offset if parts else 0)
    if first_dirty > limit:  # of an earlier life of the log
        first_dirty = log_start
    kept: list[Part] = []
    overdue = False
    for part in parts:
        if part.next_offset > first_dirty:
            if lag_min_ms > 0 and _time_of(directory, part.base_offset, now_ms) > now_ms - lag_min_ms:
                break
            if lag_max_ms < now_ms:
                overdue = overdue or (first_timestamp(directory, part.base_offset) or now_ms) < now_ms - lag_max_ms
        kept.append(part)
    return Plan(kept, first_dirty, overdue)


def group_parts(directory: str, parts: Sequence[Part], bytes_max: int, index_bytes_max: int) -> list[tuple[int, int]]:
    """First and last of the parts that become one segment together, by their place. Blocks."""

    def index_bytes(part: Part) -> tuple[int, int]:
        base = Path(directory) / f"{part.base_offset:020}"
        return _size(base.with_suffix(".index")), _size(base.with_suffix(".timeindex"))

    groups: list[tuple[int, int]] = []
    size = offsets = times = 0
    for i, part in enumerate(parts):
        own_offsets, own_times = index_bytes(part)
        first = groups[-1][0] if groups else 0
        if (
            groups
            and size + part.bytes <= bytes_max
            and offsets + own_offsets <= index_bytes_max
            and times + own_times <= index_bytes_max
            and part.next_offset - 1 - parts[first].base_offset <= OFFSETS_PER_SEGMENT
        ):
            groups[-1] = first, i
            size, offsets, times = size + part.bytes, offsets + own_offsets, times + own_times
        else:
            groups.append((i, i))
            size, offsets, times = part.bytes, own_offsets, own_times
    return groups


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def transaction_indexes(directory: str) -> list[int]:
    """Base offsets of the segments that have a .txnindex. Blocks. Raises OSError."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".txnindex")]
    return sorted(int(name[:20]) for name in names if len(name) == 29 and name[:20].isdigit())


def load_clean_ends(path: Path) -> dict[tuple[str, int], int]:
    """First dirty offsets by topic and partition, as a data directory's checkpoint has them. Raises DamagedFileError, OSError."""
    file = path / CHECKPOINT
    try:
        return {(topic, int(partition)): int(offset) for topic, partition, offset in read_checkpoint(file, 3)}
    except ValueError as error:
        raise DamagedFileError(f"{file}: {error}") from None


def save_clean_ends(path: Path, ends: dict[tuple[str, int], int]) -> None:
    """Durable when it returns. Raises OSError."""
    write_checkpoint(path / CHECKPOINT, ((topic, partition, offset) for (topic, partition), offset in sorted(ends.items())))
