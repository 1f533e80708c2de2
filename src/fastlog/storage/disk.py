"""How a data directory's disk is: its space, and whether it still takes and keeps what is written to it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

RECYCLED: Final = "[0-9][0-9].recycled"
"""Files of removed segments that wait for another use: native/recycle.pxd."""
PROBE: Final = ".fastlog-probe"
PROBE_BYTES: Final = 4096
RESERVE_SHARE: Final = 20
"""The reserve is at most one twentieth of a disk, whatever its setting says."""


@dataclass(frozen=True, slots=True)
class Space:
    """Of a file system, in bytes."""

    total: int
    usable: int


def measure(path: Path) -> Space:
    """Blocks. Raises OSError."""
    found = os.statvfs(path)
    return Space(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail)


def give_back(path: Path) -> None:
    """Removes what a data directory keeps for next segments only. Blocks. Raises OSError."""
    for file in path.glob(RECYCLED):
        file.unlink(missing_ok=True)  # a log may just have taken it


def reserve_of(space: Space, wanted: int) -> int:
    return min(wanted, space.total // RESERVE_SHARE)


def probe(path: Path, directory_id: str) -> None:
    """Writes a block to the directory and has it on stable storage, and looks whether it is still the directory that it was.

    Blocks. Raises OSError: the disk has failed, is read-only or is gone. A full disk has not failed.
    """
    try:
        found = (path / "meta.properties").read_bytes()
    except FileNotFoundError:
        raise OSError(errno.ENODEV, "meta.properties is gone: another disk, or none, is where it was") from None
    if f"directory.id={directory_id}\n".encode() not in found:
        raise OSError(errno.ENODEV, "another data directory is where it was")
    try:
        fd = os.open(path / PROBE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, os.urandom(PROBE_BYTES), 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
