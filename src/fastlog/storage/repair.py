"""Making damaged logs usable again: what can be told of the damage, what its repair costs, and the repair itself.

What is whole stays where it is, at its offset. Bytes that are no batch are taken out; the offsets they had are taken by a batch without
records, as after compaction, so that the log has no hole and consumers pass over it. So are offsets of which there is no file any more.
Where nothing whole follows in the last segment, the log is cut. Indexes and snapshots are removed where they are wrong: they are made anew.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastlog.protocol.records import OFFSETS_MAX, build_placeholder
from fastlog.storage.compaction import load_clean_ends
from fastlog.storage.directory import CLEAN, META, DirectoryError, take_lock
from fastlog.storage.epochs import FILE as EPOCHS
from fastlog.storage.epochs import Epochs, load_epochs
from fastlog.storage.files import DamagedFileError, remove_file, sync_directory
from fastlog.storage.inspect import (
    HEADER,
    WINDOW,
    Aborts,
    Pace,
    Reader,
    batch_at,
    check_indexes,
    check_snapshots,
    first_byte_set,
    partitions,
    segments,
)
from fastlog.storage.inspect import Found as Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC_AT: Final = 16
_STEP: Final = 1 << 20


@dataclass(slots=True)
class Part:
    """What a segment is to be made of, in order: bytes [at, end) of it, or else `data`."""

    at: int = 0
    end: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Repair:
    """What is done to one file."""

    path: Path
    what: str
    """What is wrong, and what it costs."""
    lost: int = 0
    """Offsets whose records are gone, as far as that can be told."""
    parts: list[Part] | None = None
    """What the file is to be made of; None: it is removed."""
    epochs: Epochs | None = None
    """Or what the leader-epoch-checkpoint is to say."""


@dataclass(slots=True)
class _State:
    """Where a walk through a partition's log is."""

    expected: int = -1
    """The next offset."""
    epoch: int = -1
    timestamp: int = -1
    epochs: Epochs = field(default_factory=Epochs)

    def pass_over(self, batch: Batch) -> None:
        self.expected = batch.last_offset + 1
        self.timestamp = max(self.timestamp, batch.max_timestamp)
        if batch.leader_epoch > self.epoch:
            self.epoch = batch.leader_epoch
            self.epochs.assign(batch.leader_epoch, batch.base_offset)

    def fill(self, end: int) -> list[Part]:
        """Batches without records up to an offset."""
        parts = []
        while self.expected < end:
            upto = min(end, self.expected + OFFSETS_MAX)
            data = build_placeholder(self.expected, upto, leader_epoch=max(self.epoch, 0), timestamp_ms=self.timestamp)
            parts.append(Part(data=data))
            self.expected = upto
        return parts


def find_repairs(directory: Path, pace: Pace | None = None) -> Iterator[Repair]:
    """What has to be done in a data directory, or that of one partition, on which no broker runs. Blocks. Raises OSError."""
    pace = pace or Pace()
    for path in partitions(directory):
        try:
            clean = load_clean_ends(path.parent)
        except (DamagedFileError, OSError):
            clean = {}
        topic, _, number = path.name.rpartition("-")
        yield from _partition(path, clean.get((topic, int(number)), 0) if number.isdigit() else 0, pace)


def _partition(path: Path, compacted_to: int, pace: Pace) -> Iterator[Repair]:
    state = _State()
    aborts = Aborts()
    files = segments(path)
    clean = (path.parent / CLEAN).exists()
    unreadable = {problem.file: problem for problem in check_snapshots(path)}
    stored = max((int(file.stem) for file in path.glob("*.snapshot") if file.stem.isdigit() and file.name not in unreadable), default=0)
    for file, following in zip(files, [*files[1:], None], strict=True):
        known: dict[int, Batch] = {}
        limit = int(following.stem) if following is not None else None
        repair = _Walk(file, limit, compacted_to, state, known, None if clean else stored).run(pace)
        for batch in known.values():
            aborts.add(batch)
        if repair is not None:
            yield repair
            yield from _indexes(file, "it points into the segment as it was")
        else:
            problems = [*check_indexes(path, file, known), *aborts.check(path, file)]
            if problems:
                yield from _indexes(file, f"{problems[0].file} byte {problems[0].byte}: {problems[0].what}")
        aborts.ended.clear()
    for name, problem in unreadable.items():
        yield Repair(path / name, f"{problem.what}: what it knew of producers is read from the batches again")
    for snapshot in sorted(path.glob("*.snapshot")):
        if snapshot.stem.isdigit() and int(snapshot.stem) > max(state.expected, 0) and snapshot.name not in unreadable:
            yield Repair(
                snapshot, f"the log ends at offset {max(state.expected, 0)}; records up to {int(snapshot.stem)} were there and are lost"
            )
    try:
        load_epochs(str(path))
    except (DamagedFileError, OSError) as error:
        yield Repair(path / EPOCHS, f"{error}: written anew from the batches", epochs=state.epochs)


def _indexes(file: Path, why: str) -> Iterator[Repair]:
    """All of a segment's indexes go: one that is missing alone would say that there is nothing in it."""
    for suffix in (".index", ".timeindex", ".txnindex"):
        if file.with_suffix(suffix).exists():
            yield Repair(file.with_suffix(suffix), f"{why}: the index is made anew when it is needed")


@dataclass(slots=True)
class _Walk:
    """Through one segment."""

    file: Path
    limit: int | None
    """Where the next one begins."""
    compacted_to: int
    state: _State
    known: dict[int, Batch]
    """The whole batches in it, by their last offsets."""
    stored: int | None
    """Without a stop in order: up to where the log was durable. What is torn behind that is the next start's business."""
    parts: list[Part] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lost: int = 0

    def run(self, pace: Pace) -> Repair | None:
        """What has to be done to it."""
        self.state.expected = max(self.state.expected, int(self.file.stem))
        reader = Reader(self.file, pace)
        try:
            at = 0
            while at < reader.size:
                batch = _batch_at(reader, at, self.state.expected, self.limit)
                if batch is None:
                    at = self._damage(reader, at)
                    continue
                self.known[batch.last_offset] = batch
                self.state.pass_over(batch)
                self._keep(batch)
                at += batch.size
        finally:
            reader.close()
        if self.limit is not None and self.state.expected < self.limit and self.compacted_to < self.limit:
            self.said.append(f"no file has offsets {self.state.expected} to {self.limit - 1}: their records are lost")
            self._fill(self.limit)
        return Repair(self.file, "; ".join(self.said), self.lost, self.parts) if self.said else None

    def _damage(self, reader: Reader, at: int) -> int:
        """At bytes that are no batch; where to go on."""
        if first_byte_set(reader, at) < 0:
            if self.limit is not None:
                self.said.append(f"zeroes from byte {at} on: cut")
            return reader.size
        after = _resume(reader, at + 1, self.state.expected, self.limit)
        end = after.at if after is not None else reader.size
        until = after.base_offset if after is not None else self.limit
        gone = f"bytes {at} to {end} are no whole batch"
        if until is None and self.stored is not None and self.state.expected >= self.stored:
            return reader.size
        if until is None:
            self.said.append(f"{gone}: the log is cut there; records from offset {self.state.expected} on are lost")
        elif until > self.state.expected:
            self.said.append(f"{gone}: records of offsets {self.state.expected} to {until - 1} are lost")
            self._fill(until)
        else:
            self.said.append(f"{gone}: taken out, no offset is missing")
        return end

    def _fill(self, end: int) -> None:
        self.lost += end - self.state.expected
        self.parts += self.state.fill(end)

    def _keep(self, batch: Batch) -> None:
        if self.parts and not self.parts[-1].data and self.parts[-1].end == batch.at:
            self.parts[-1].end += batch.size
        else:
            self.parts.append(Part(batch.at, batch.at + batch.size))


def _batch_at(reader: Reader, at: int, expected: int, limit: int | None) -> Batch | None:
    """The whole batch there, if it goes on with the log."""
    head = reader.get(at, HEADER)
    if len(head) < HEADER or head[_MAGIC_AT] != 2:
        return None
    base = int.from_bytes(head[:8], "big", signed=True)
    if not expected <= base <= expected + OFFSETS_MAX or (limit is not None and base >= limit):
        return None  # most of what only looks like a batch: its CRC need not be known
    batch = batch_at(reader, at)
    return batch if batch is not None and batch.crc_ok and (limit is None or batch.last_offset < limit) else None


def _resume(reader: Reader, at: int, expected: int, limit: int | None) -> Batch | None:
    """The first whole batch from `at` on that goes on with the log."""
    while at + HEADER <= reader.size:
        window = reader.get(at, min(_STEP, WINDOW, reader.size - at))
        found = window.find(b"\x02", _MAGIC_AT)
        while found >= 0:
            batch = _batch_at(reader, at + found - _MAGIC_AT, expected, limit)
            if batch is not None:
                return batch
            found = window.find(b"\x02", found + 1)
        at += max(len(window) - _MAGIC_AT, 1)
    return None


def hold(directory: Path) -> int:
    """A descriptor that keeps a broker from the data directory (or the one that a partition's is in). Raises DirectoryError, OSError."""
    for place in (directory, directory.parent):
        if (place / META).exists():
            return take_lock(place)
    raise DirectoryError(f"{directory} is no data directory, nor that of a partition: there is no {META}")


def carry_out(repairs: list[Repair], keep: Path | None = None) -> None:
    """Does what they say, durably; with `keep` after a copy of each file there. The next start searches for the ends of the logs.

    Blocks. Raises OSError.
    """
    for place in {repair.path.parent.parent for repair in repairs}:
        remove_file(place / CLEAN)
    for repair in repairs:
        if not repair.path.exists():
            continue
        if keep is not None:
            kept = keep / repair.path.parent.name
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repair.path, kept / repair.path.name)
        if repair.epochs is not None:
            repair.epochs.save(str(repair.path.parent))
        elif repair.parts is None:
            remove_file(repair.path)
        else:
            _rewrite(repair.path, repair.parts)


def _rewrite(path: Path, parts: list[Part]) -> None:
    made = path.with_name(path.name + ".tmp")
    with path.open("rb") as old, made.open("wb") as new:
        for part in parts:
            new.write(part.data)
            old.seek(part.at)
            left = part.end - part.at
            while left > 0:
                piece = old.read(min(left, WINDOW))
                if not piece:
                    raise OSError(f"{path} is shorter than it was")
                new.write(piece)
                left -= len(piece)
        new.flush()
        os.fsync(new.fileno())
    made.replace(path)
    sync_directory(path.parent)
