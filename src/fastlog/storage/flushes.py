"""Whether one flush of a device makes durable what was written to it through many files.

Where it does, many partitions with little each share a flush instead of paying one for every write. It is so when the file system passes
fdatasync on to the device even for a file with nothing of its own to write (ext4 and XFS do, with barriers on and no other device for
journal or data), which is not believed but counted: /sys/block/NAME/stat has the flushes that a device was given (Documentation/block/stat
of the kernel, Linux 5.5). A device without a volatile cache needs none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE_SYSTEMS: Final = ("ext4", "xfs")
SYNCED_WHOLE: Final = ("ext4", "overlay", "tmpfs", "xfs")
"""File systems of which syncfs(2) is known to leave nothing out. (FUSE takes it for done.)"""
UNSAFE_OPTIONS: Final = ("nobarrier", "barrier=0", "journal_dev", "journal_path", "logdev", "rtdev")
FLUSHES: Final = 3
"""How many are counted."""
BLOCK: Final = 4096
FLUSH_FIELD: Final = 15
"""Of a device's stat: flush requests completed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    why: str
    """For the operator."""


def one_flush_for_many(directories: list[Path], *, sys: Path = Path("/sys"), mounts: Path = Path("/proc/self/mountinfo")) -> Verdict:
    """Whether it may be relied on in all of the directories. Writes a block to a nameless file and flushes it; blocks for milliseconds."""
    seen: dict[int, Verdict] = {}
    for directory in directories:
        try:
            device = directory.stat().st_dev
            if device not in seen:
                seen[device] = _of(directory, device, sys, mounts)
        except (OSError, ValueError) as error:
            return Verdict(allowed=False, why=f"{directory}: {error}")
        if not seen[device].allowed:
            return seen[device]
    return Verdict(allowed=bool(seen), why=", ".join(dict.fromkeys(verdict.why for verdict in seen.values())))


def synced_whole(directory: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether syncfs(2) may stand for a flush of each file and directory that was written to. Raises OSError."""
    device = directory.stat().st_dev
    return _mount(f"{os.major(device)}:{os.minor(device)}", mounts)[0] in SYNCED_WHOLE


def _of(directory: Path, device: int, sys: Path, mounts: Path) -> Verdict:
    number = f"{os.major(device)}:{os.minor(device)}"
    kind, options = _mount(number, mounts)
    if kind not in FILE_SYSTEMS:
        return Verdict(allowed=False, why=f"{directory} is on {kind or 'a file system without a device'}, not {' or '.join(FILE_SYSTEMS)}")
    unsafe = [option for option in options if option.startswith(UNSAFE_OPTIONS)]
    if unsafe:
        return Verdict(allowed=False, why=f"{directory} is mounted with {', '.join(unsafe)}")
    disk = (sys / "dev/block" / number).resolve(strict=True)
    if (disk / "partition").exists():
        disk = disk.parent
    if (disk / "queue/write_cache").read_text().strip() == "write through":
        return Verdict(allowed=True, why=f"{kind} on {disk.name}, which has no volatile cache")
    given = _given(directory, disk / "stat")
    if given < FLUSHES:
        return Verdict(allowed=False, why=f"{disk.name} was given {given} of {FLUSHES} flushes")
    return Verdict(allowed=True, why=f"{kind} on {disk.name}")


def _mount(number: str, mounts: Path) -> tuple[str, list[str]]:
    """Type and options of the file system on a device, as in proc(5) on mountinfo; of the last mount of it."""
    kind, options = "", []
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) > 5 and len(tail) >= 2 and fields[2] == number:
            kind = tail[0]
            options = fields[5].split(",") + (tail[2].split(",") if len(tail) > 2 else [])
    return kind, options


def _given(directory: Path, stat: Path) -> int:
    """How many flushes reach the device for as many fdatasync calls on a file that has nothing left to write."""
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, bytes(BLOCK), 0)
        os.fsync(fd)
        before = _flushes(stat)
        for _ in range(FLUSHES):
            os.fdatasync(fd)
        return _flushes(stat) - before
    finally:
        os.close(fd)


def _flushes(stat: Path) -> int:
    fields = stat.read_text().split()
    return int(fields[FLUSH_FIELD]) if len(fields) > FLUSH_FIELD else 0
