"""Looking at the files of logs without opening them: what `fastlog log` does. Reads only; a broker may go on writing.

A segment is batches one after the other. The CRC of a batch covers all from its attributes on; what lies before (base offset, length,
leader epoch, magic) is checked against its neighbours and the partition's leader-epoch-checkpoint. Past the end of an active segment
there are zeroes, or what a removed segment had there (native/recycle.pxd), of which nothing is a batch.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastlog._core import crc32c, peek
from fastlog.protocol.records import CONTROL, TRANSACTIONAL, iter_batches
from fastlog.storage.compaction import CHECKPOINT as CLEAN_ENDS
from fastlog.storage.directory import CLEAN, LOCK, LOG_STARTS, META
from fastlog.storage.epochs import FILE as EPOCHS
from fastlog.storage.epochs import load_epochs
from fastlog.storage.files import DamagedFileError, damaged_byte, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER: Final = 61
CRC_FROM: Final = 21
WINDOW: Final = 4 << 20
SNAPSHOT_HEAD: Final = 10
SNAPSHOT_CRC_FROM: Final = 6
BLOCK: Final = 4096
MARK: Final = b"fastlog: space of a removed segment\n"
"""How the last block of a segment begins whose space came from a removed one, until the log comes to there."""
ABORT: Final = 0
COMMIT: Final = 1
ABORTED_ENTRY: Final = struct.Struct(">hqqqq")
"""Of a .txnindex: version, producer id, first offset, offset of the marker, last stable offset."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written."""

    partition: str
    """TOPIC-PARTITION, as its directory is named; "" for a file of the data directory itself."""
    file: str
    byte: int
    """Where in the file; of a batch, its first byte."""
    offset: int
    """The record offset there, or -1."""
    what: str


@dataclass(frozen=True, slots=True)
class Found:
    """A whole batch in a file."""

    at: int
    size: int
    base_offset: int
    last_offset: int
    leader_epoch: int
    max_timestamp: int
    crc_ok: bool
    producer_id: int
    transactional: bool
    marker: int
    """ABORT or COMMIT, or -1: it is no end of a transaction."""


@dataclass(slots=True)
class Pace:
    """Holds reading to a rate in bytes/s; 0: none. Counts what was read."""

    rate: float = 0.0
    bytes: int = 0
    _began: float = field(default_factory=time.monotonic)

    def took(self, count: int) -> None:
        """Sleeps as long as the rate wants."""
        self.bytes += count
        if self.rate > 0:
            wait = self._began + self.bytes / self.rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)


def partitions(directory: Path) -> list[Path]:
    """The partitions' directories in a data directory, or the one given itself. Raises OSError."""
    if any(directory.glob("*.log")):
        return [directory]
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.endswith("-delete") and any(path.glob("*.log")))


def in_use(directory: Path) -> bool:
    """Whether a broker runs on the data directory (or that of a partition)."""
    for place in (directory, directory.parent):
        try:
            fd = os.open(place / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
    return False


def segments(path: Path) -> list[Path]:
    """A partition's segments, oldest first."""
    return sorted(found for found in path.glob("*.log") if found.stem.isdigit())


class Reader:
    """The bytes of a file, read in windows at a pace."""

    def __init__(self, path: Path, pace: Pace) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size
        self._pace = pace
        self._from = 0
        self._window = b""

    def get(self, at: int, count: int) -> bytes:
        """`count` bytes, fewer at the end."""
        if at < self._from or at + count > self._from + len(self._window):
            self._window = os.pread(self.fd, max(count, WINDOW), at)
            self._from = at
            self._pace.took(len(self._window))
            os.posix_fadvise(self.fd, at, len(self._window), os.POSIX_FADV_DONTNEED)
        return self._window[at - self._from : at - self._from + count]

    def close(self) -> None:
        os.close(self.fd)


def batch_at(reader: Reader, at: int) -> Found | None:
    """The batch at a position, if its length is one that a batch there can have."""
    head = reader.get(at, HEADER)
    info = peek(head) if len(head) == HEADER else None
    if info is None or info["magic"] != 2 or at + info["size"] > reader.size:
        return None
    whole = reader.get(at, info["size"])
    base = info["base_offset"]
    return Found(
        at,
        info["size"],
        base,
        base + info["last_offset_delta"],
        info["leader_epoch"],
        info["max_timestamp"],
        sound := crc32c(memoryview(whole)[CRC_FROM:]) == info["crc"],
        info["producer_id"],
        bool(info["attributes"] & TRANSACTIONAL),
        _marker(whole) if sound and info["attributes"] & CONTROL else -1,
    )


def batches(reader: Reader) -> Iterator[Found]:
    """The batches from the file's start up to the first bytes that can't be one."""
    at = 0
    while (found := batch_at(reader, at)) is not None:
        yield found
        at += found.size


def _marker(data: bytes) -> int:
    """The kind of a control batch: its record's key is an int16 version and an int16 type."""
    (batch,) = iter_batches(data)
    key = batch.records[0].key if batch.records else None
    return int.from_bytes(key[2:4], "big") if key is not None and len(key) >= 4 and key[3] in (ABORT, COMMIT) else -1


def first_byte_set(reader: Reader, at: int) -> int:
    """The position of the first byte from `at` on that is not zero, or -1."""
    while at < reader.size:
        piece = reader.get(at, WINDOW)
        if not piece:
            return -1
        rest = piece.lstrip(b"\0")
        if rest:
            return at + len(piece) - len(rest)
        at += len(piece)
    return -1


def recycled(reader: Reader) -> bool:
    """Whether the space past the end of the log is that of a removed segment."""
    return reader.size >= BLOCK and os.pread(reader.fd, len(MARK), reader.size - BLOCK) == MARK


def check(directory: Path, pace: Pace | None = None) -> Iterator[Problem]:
    """All that is wrong in a data directory or a partition's. The last segments of a running broker's logs are checked up to what is
    being written. Raises OSError.
    """
    pace = pace or Pace()
    busy = in_use(directory)
    for name in (META, CLEAN, LOG_STARTS, CLEAN_ENDS):
        yield from _check_small(directory / name, "", 3 if name in (LOG_STARTS, CLEAN_ENDS) else 0)
    for path in partitions(directory):
        yield from _check_partition(path, pace, busy)


def _check_small(path: Path, partition: str, columns: int) -> Iterator[Problem]:
    """A file that is replaced as a whole, by the checksum beside its content; a checkpoint's form too, if it has `columns`."""
    try:
        byte = damaged_byte(path)
        if byte is not None:
            yield Problem(partition, path.name, byte, -1, "the file is not what was written (its checksum says so)")
        elif columns:
            read_checkpoint(path, columns)
    except FileNotFoundError:
        pass
    except DamagedFileError as error:
        yield Problem(partition, path.name, 0, -1, str(error))


def _check_partition(path: Path, pace: Pace, busy: bool) -> Iterator[Problem]:
    files = segments(path)
    starts: list[tuple[int, int]] = []
    damage = list(_check_small(path / EPOCHS, path.name, 2))
    yield from damage
    if not damage:
        try:
            starts = load_epochs(str(path)).entries
        except (DamagedFileError, OSError) as error:
            yield Problem(path.name, EPOCHS, 0, -1, str(error))
    aborts = Aborts()
    offset = -1
    epoch = -1
    for file, following in zip(files, [*files[1:], None], strict=True):
        known: dict[int, Found] = {}
        try:
            reader = Reader(file, pace)
        except FileNotFoundError:
            continue  # retention was there
        try:
            end = 0
            foreign = recycled(reader)
            for found in batches(reader):
                if foreign and not found.crc_ok and found.base_offset != max(offset, int(file.stem)):
                    break  # what the removed segment had there
                known[found.last_offset] = found
                aborts.add(found)
                wrong = _wrong(found, max(offset, int(file.stem)), epoch, starts)
                if wrong:
                    yield Problem(path.name, file.name, found.at, found.base_offset, wrong)
                offset, epoch, end = found.last_offset + 1, max(epoch, found.leader_epoch), found.at + found.size
            stray = -1 if foreign or (busy and following is None) else first_byte_set(reader, end)
            if stray >= 0:
                yield Problem(path.name, file.name, stray, max(offset, int(file.stem)), "no record batch begins here")
            elif following is not None and end < reader.size and not busy:
                yield Problem(path.name, file.name, end, max(offset, int(file.stem)), "zeroes inside the log")
        finally:
            reader.close()
        if following is not None or not busy:
            yield from check_indexes(path, file, known)
            yield from aborts.check(path, file)
        aborts.ended.clear()
    snapshots = sorted(path.glob("*.snapshot"))
    if snapshots and not busy and any((place / CLEAN).exists() for place in (path, path.parent)) and int(snapshots[-1].stem) != offset >= 0:
        yield Problem(path.name, files[-1].name, 0, offset, f"ends at offset {offset}; when it was closed, at {int(snapshots[-1].stem)}")
    yield from check_snapshots(path)


def check_snapshots(path: Path) -> Iterator[Problem]:
    """The producer snapshots of a partition that can't be read. Raises OSError."""
    for snapshot in sorted(path.glob("*.snapshot")):
        data = snapshot.read_bytes()
        if len(data) < SNAPSHOT_HEAD or data[:2] != b"\0\1" or crc32c(data[SNAPSHOT_CRC_FROM:]) != int.from_bytes(data[2:6], "big"):
            yield Problem(path.name, snapshot.name, 0, int(snapshot.stem), "the producer snapshot has another version or a wrong CRC")


@dataclass(slots=True)
class Aborts:
    """What a .txnindex has to say, from the batches: transactions under way, and those that were aborted in the segment at hand."""

    open: dict[int, int] = field(default_factory=dict)
    """First offset by producer, in order; as far as records of the transaction are still there."""
    ended: dict[int, tuple[int, int | None, int | None]] = field(default_factory=dict)
    """By the marker's offset: producer, first offset and last stable offset; None where compaction took what would tell."""
    expected: int = 0
    """Where the next batch begins, if none is missing."""
    whole_from: int = 0
    """From here on no batch is missing; 0: none is at all."""

    def add(self, found: Found) -> None:
        if found.base_offset != self.expected:
            self.whole_from = found.base_offset
        self.expected = found.last_offset + 1
        if found.marker < 0:
            if found.transactional and found.crc_ok:
                self.open.setdefault(found.producer_id, found.base_offset)
            return
        first = self.open.pop(found.producer_id, None)
        if found.marker == ABORT:
            stable = min(self.open.values(), default=found.base_offset + 1) if self.whole_from == 0 else None
            known = first is not None and first >= self.whole_from
            self.ended[found.base_offset] = found.producer_id, first if known else None, stable

    def check(self, path: Path, file: Path) -> Iterator[Problem]:
        name = file.with_suffix(".txnindex").name
        try:
            data = (path / name).read_bytes()
        except FileNotFoundError:
            data = b""
        seen = set()
        for i in range(0, len(data), ABORTED_ENTRY.size):
            if len(data) - i < ABORTED_ENTRY.size:
                yield Problem(path.name, name, i, -1, "half an entry")
                break
            version, producer, first, last, stable = ABORTED_ENTRY.unpack_from(data, i)
            seen.add(last)
            wanted = self.ended.get(last)
            if (
                version
                or wanted is None
                or producer != wanted[0]
                or first != (first if wanted[1] is None else wanted[1])
                or stable != (stable if wanted[2] is None else wanted[2])
                or not first <= last
                or not 0 <= stable <= last + 1
            ):
                what = f"the entry says that producer {producer} aborted offsets {first} to {last}, with all below {stable} decided"
                yield Problem(path.name, name, i, last, what)
        for last in sorted(self.ended.keys() - seen):
            if self.ended[last][1] is not None:
                yield Problem(path.name, name, len(data), last, f"the transaction that was aborted at offset {last} is missing")


def _wrong(found: Found, expected: int, epoch: int, starts: list[tuple[int, int]]) -> str:
    """What is wrong with a batch in its place, or nothing."""
    if not found.crc_ok:
        return f"the record batch of {found.size} bytes has a wrong CRC"
    if found.base_offset < expected:
        return f"the batch's base offset {found.base_offset} is below {expected}, where the one before ended"
    if found.leader_epoch < epoch:
        return f"the batch's leader epoch {found.leader_epoch} is below {epoch}, that of an earlier one"
    owners = [number for number, start in starts if start <= found.base_offset]
    newest = starts[-1][0] if starts else -1  # later ones may still be in the metadata only
    if owners and found.leader_epoch not in (owners[-1], -1) and found.leader_epoch <= newest:
        return f"the batch's leader epoch is {found.leader_epoch}, that of its offset {owners[-1]}"
    return ""


def check_indexes(path: Path, file: Path, known: dict[int, Found]) -> Iterator[Problem]:
    """What is wrong with the indexes of a segment whose batches are known, by their last offsets. Raises OSError."""
    base = int(file.stem)
    offsets = _entries(file.with_suffix(".index"), ">II", 8)
    for i, (relative, position) in enumerate(offsets):
        found = known.get(base + relative)
        if relative == position == 0 and i:
            break
        if found is None or found.at != position:
            what = f"the entry says that the batch that ends with offset {base + relative} is at {position}"
            yield Problem(path.name, file.with_suffix(".index").name, i * 8, base + relative, what)
    ends = sorted(known)
    for i, (timestamp, relative) in enumerate(_entries(file.with_suffix(".timeindex"), ">qI", 12)):
        if timestamp == relative == 0 and i:
            break
        at = bisect_left(ends, base + relative)
        if at == len(ends) or known[ends[at]].max_timestamp != timestamp:
            what = f"the entry says that {timestamp} is the newest time up to offset {base + relative}"
            yield Problem(path.name, file.with_suffix(".timeindex").name, i * 12, base + relative, what)


def _entries(path: Path, form: str, size: int) -> list[tuple[int, ...]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(struct.iter_unpack(form, data[: len(data) // size * size]))


def snapshot(path: Path, target: Path, pace: Pace | None = None) -> int:
    """Copies a partition's segments, each up to its last whole batch, into a new directory that Kafka's tools read; a broker may write
    meanwhile. Returns the offset after the last record. Raises FileExistsError, OSError.
    """
    pace = pace or Pace()
    target.mkdir(parents=True)
    end = 0
    for file in segments(path):
        reader = Reader(file, pace)
        try:
            with (target / file.name).open("xb") as out:
                for found in batches(reader):
                    if not found.crc_ok:
                        break
                    out.write(reader.get(found.at, found.size))
                    end = found.last_offset + 1
        finally:
            reader.close()
    return end
