"""What was asked of a log and what was promised, as a crash finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastlog.protocol.records import iter_batches
from tests.storage.build import count_of, split, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastlog.protocol.records import Record


@dataclass
class Model:
    """One partition. Moments are numbers of events on the tape."""

    name: str
    index: int
    eras: list[tuple[int, list[tuple[int, bytes]]]] = field(default_factory=lambda: [(0, [])])
    """From which moment on the log was a prefix of which batches, each with its base offset and as stored."""
    durable: list[tuple[int, int]] = field(default_factory=list)
    """From which moment on all below which offset was promised to survive a power cut."""
    kept: int = 0
    """All below this offset was promised to survive the process."""
    starts: list[tuple[int, int]] = field(default_factory=list)
    """From which moment on all below which offset might be deleted."""
    epochs: list[tuple[int, int]] = field(default_factory=list)
    """From which moment on which leader epoch was on the disk."""
    noted: list[tuple[int, int, int]] = field(default_factory=list)
    """From which moment on which leader epoch was in the metadata, and its first offset."""
    epoch: int = 0
    created: int | None = None
    """The moment from which on the directory must be there."""
    keyed: bool = False
    """It is compacted."""
    cleaned: list[tuple[int, int]] = field(default_factory=list)
    """From which moment on all below which offset might be compacted."""
    sequence: int = 0
    """Of the next batch of this partition's idempotent producer."""

    @property
    def batches(self) -> list[tuple[int, bytes]]:
        return self.eras[-1][1]

    @property
    def end(self) -> int:
        return self.batches[-1][0] + count_of(self.batches[-1][1]) if self.batches else 0

    def add(self, data: bytes) -> int:
        """The batch was accepted; its base offset."""
        base = self.end
        self.batches.append((base, stored(data, base, self.epoch)))
        return base

    def promise(self, when: int, end: int, *, durable: bool) -> None:
        self.kept = max(self.kept, end)
        if durable:
            self.durable.append((when, end))

    def at(self, when: int) -> Model:
        """The model for a machine that a power cut right before an event leaves."""
        batches = next(batches for since, batches in reversed(self.eras) if since <= when)
        there = self.created is not None and self.created <= when
        needed = max((end for since, end in self.durable if since <= when), default=0)
        return Model(
            self.name,
            self.index,
            eras=[(0, list(batches))],
            durable=[(0, needed)],
            kept=needed,
            starts=[(0, max((start for since, start in self.starts if since <= when), default=0))],
            epochs=[(0, max((epoch for since, epoch in self.epochs if since <= when), default=-1))],
            noted=[(0, epoch, start) for since, epoch, start in self.noted if since <= when],
            epoch=self.epoch,
            created=0 if there else None,
            keyed=self.keyed,
            cleaned=[(0, max((end for since, end in self.cleaned if since <= when), default=0))],
        )

    def found(self, data: bytes, log_start: int) -> str:
        """Compares what recovery made of it; what is wrong with it, or nothing."""
        batches = split(data)
        if sum(map(len, batches)) != len(data):
            return f"{self.name}: a torn batch is served"
        if log_start > max((start for _, start in self.starts), default=0):
            return f"{self.name}: starts at {log_start}"
        if self.keyed:
            return self._found_compacted(batches, log_start)
        expected = [pair for pair in self.batches if pair[0] + count_of(pair[1]) > log_start]
        end = log_start
        for got, (base, want) in zip(batches, expected, strict=False):
            if got != want:
                return f"{self.name}: offset {base} is not what was appended there, but {got[:24].hex()}..., not {want[:24].hex()}..."
            end = base + count_of(want)
        if len(batches) > len(expected):
            return f"{self.name}: batches past offset {end} were never appended there"
        if end < self.kept:
            return f"{self.name}: ends at {end}, {self.kept} was promised"
        return ""

    def _found_compacted(self, batches: list[bytes], log_start: int) -> str:
        """The same of a log whose older part may be compacted: past that all is as it was; before, of each key the newest record is there,
        a tombstone perhaps not, and nothing that was not appended."""
        clean = max((end for _, end in self.cleaned), default=0)
        end = log_start
        for got in batches:
            base = int.from_bytes(got[:8], "big", signed=True)
            if base < end and base + count_of(got) <= end:
                return f"{self.name}: offset {base} comes after {end}"
            end = base + count_of(got)
        if end < self.kept:
            return f"{self.name}: ends at {end}, {self.kept} was promised"
        appended = {record.offset: record for record in _records(data for _, data in self.batches) if record.offset < end}
        newest = {record.key: record for _, record in sorted(appended.items())}
        found = {record.offset: record for record in _records(batches)}
        for offset, record in found.items():
            if appended.get(offset) != record:
                return f"{self.name}: offset {offset} is not what was appended there"
        for offset, record in appended.items():
            kept = offset >= clean or (newest[record.key] is record and record.value is not None)
            if kept and offset >= log_start and offset not in found:
                return f"{self.name}: offset {offset} is gone; up to {clean} the log may be compacted"
        return ""


def _records(batches: Iterable[bytes]) -> Iterator[Record]:
    for batch in iter_batches(b"".join(batches)):
        yield from batch.records
