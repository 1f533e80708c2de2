"""Small files that must be whole or not there: replaced by rename, synced before and after."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CHECKPOINT_VERSION = 0


class DamagedFileError(Exception):
    """A file can't be what it should be; says which and why."""


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """The file has `content` afterwards, or what it had, or is not there as before. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)  # noqa: PTH105  (all calls of this module go through os, where tests record them)
    if durable:
        sync_directory(path.parent)


def remove_file(path: Path) -> bool:
    """Removes a file durably. Returns whether it was there. Raises OSError."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    sync_directory(path.parent)
    return True


def write_checkpoint(path: Path, rows: Iterable[Sequence[object]], *, durable: bool = True) -> None:
    """Kafka's checkpoint format: a version, the number of rows, a row a line with blanks between. Raises OSError."""
    lines = [" ".join(map(str, row)) for row in rows]
    replace_file(path, "\n".join([str(CHECKPOINT_VERSION), str(len(lines)), *lines, ""]).encode(), durable=durable)


def read_checkpoint(path: Path, columns: int) -> list[list[str]]:
    """The rows of a checkpoint file; none when there is no file. Raises DamagedFileError, OSError."""
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path}: {error}") from None
    if lines[0] != str(CHECKPOINT_VERSION):
        raise DamagedFileError(f"{path}: version {lines[0]!r}, not {CHECKPOINT_VERSION}")
    rows = [line.split() for line in lines[2:] if line]
    if len(lines) < 2 or lines[1] != str(len(rows)) or any(len(row) != columns for row in rows):
        raise DamagedFileError(f"{path}: the number of rows or their columns is wrong")
    return rows
