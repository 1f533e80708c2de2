"""Looking at the files of logs without opening them: what `fastlog log` does. Reads only; a broker may go on writing.

A segment is batches one after the other. The CRC of a batch covers all from its attributes on; what lies before (base offset, length,
leader epoch, magic) is checked against its neighbours and the partition's leader-epoch-checkpoint. Past the end of an active segment
there are zeroes.
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
from fastlog.storage.directory import CLEAN, LOCK
from fastlog.storage.epochs import load_epochs
from fastlog.storage.files import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER: Final = 61
CRC_FROM: Final = 21
WINDOW: Final = 4 << 20
SNAPSHOT_HEAD: Final = 10
SNAPSHOT_CRC_FROM: Final = 6


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written."""

    partition: str
    """TOPIC-PARTITION, as its directory is named."""
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


def batches(reader: Reader) -> Iterator[Found]:
    """The batches from the file's start up to the first bytes that can't be one."""
    at = 0
    while reader.size - at >= HEADER:
        head = reader.get(at, HEADER)
        info = peek(head) if len(head) == HEADER else None
        if info is None or info["magic"] != 2 or at + info["size"] > reader.size:
            return
        whole = reader.get(at, info["size"])
        base = info["base_offset"]
        yield Found(
            at,
            info["size"],
            base,
            base + info["last_offset_delta"],
            info["leader_epoch"],
            info["max_timestamp"],
            crc32c(memoryview(whole)[CRC_FROM:]) == info["crc"],
        )
        at += info["size"]


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


def check(directory: Path, pace: Pace | None = None) -> Iterator[Problem]:
    """All that is wrong in a data directory or a partition's. The last segments of a running broker's logs are checked up to what is
    being written. Raises OSError.
    """
    pace = pace or Pace()
    busy = in_use(directory)
    for path in partitions(directory):
        yield from _check_partition(path, pace, busy)


def _check_partition(path: Path, pace: Pace, busy: bool) -> Iterator[Problem]:
    files = segments(path)
    starts: list[tuple[int, int]] = []
    try:
        starts = load_epochs(str(path)).entries
    except (DamagedFileError, OSError) as error:
        yield Problem(path.name, "leader-epoch-checkpoint", 0, -1, str(error))
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
            for found in batches(reader):
                known[found.last_offset] = found
                wrong = _wrong(found, max(offset, int(file.stem)), epoch, starts)
                if wrong:
                    yield Problem(path.name, file.name, found.at, found.base_offset, wrong)
                offset, epoch, end = found.last_offset + 1, max(epoch, found.leader_epoch), found.at + found.size
            stray = -1 if busy and following is None else first_byte_set(reader, end)
            if stray >= 0:
                yield Problem(path.name, file.name, stray, max(offset, int(file.stem)), "no record batch begins here")
            elif following is not None and end < reader.size and not busy:
                yield Problem(path.name, file.name, end, max(offset, int(file.stem)), "zeroes inside the log")
        finally:
            reader.close()
        if following is not None or not busy:
            yield from _check_indexes(path, file, known)
    snapshots = sorted(path.glob("*.snapshot"))
    if snapshots and not busy and any((place / CLEAN).exists() for place in (path, path.parent)) and int(snapshots[-1].stem) != offset >= 0:
        yield Problem(path.name, files[-1].name, 0, offset, f"ends at offset {offset}; when it was closed, at {int(snapshots[-1].stem)}")
    for snapshot in snapshots:
        data = snapshot.read_bytes()
        if len(data) < SNAPSHOT_HEAD or data[:2] != b"\0\1" or crc32c(data[SNAPSHOT_CRC_FROM:]) != int.from_bytes(data[2:6], "big"):
            yield Problem(path.name, snapshot.name, 0, int(snapshot.stem), "the producer snapshot has another version or a wrong CRC")


def _wrong(found: Found, expected: int, epoch: int, starts: list[tuple[int, int]]) -> str:
    """What is wrong with a batch in its place, or nothing."""
    if not found.crc_ok:
        return f"the record batch of {found.size} bytes has a wrong CRC"
    if found.base_offset < expected:
        return f"the batch's base offset {found.base_offset} is below {expected}, where the one before ended"
    if found.leader_epoch < epoch:
        return f"the batch's leader epoch {found.leader_epoch} is below {epoch}, that of an earlier one"
    owners = [number for number, start in starts if start <= found.base_offset]
    if owners and found.leader_epoch not in (owners[-1], -1):
        return f"the batch's leader epoch is {found.leader_epoch}, that of its offset {owners[-1]}"
    return ""


def _check_indexes(path: Path, file: Path, known: dict[int, Found]) -> Iterator[Problem]:
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
