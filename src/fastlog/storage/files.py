"""Small files that must be whole or not there: replaced by rename, synced before and after."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

CHECKPOINT_VERSION = 0
CHECKSUM: Final = "user.fastlog.crc32"
"""Extended attribute of each file that `replace_file` made: its content's CRC-32 in hexadecimal. Kafka's formats have no place for one."""
LOCATED_BYTES_MAX: Final = 4096
"""In a damaged file up to this size the flipped bit is looked for."""


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
    temporary = _put_beside(path, content, durable=durable)
    os.replace(temporary, path)  # noqa: PTH105  (all calls of this module go through os, where tests record them)
    if durable:
        sync_directory(path.parent)


def replace_files(contents: Mapping[Path, bytes], sync: Callable[[], None]) -> None:
    """The same for many files, where `sync` makes all durable that was written so far. Raises OSError: then it is so for each of them."""
    made = [(_put_beside(path, content, durable=False), path) for path, content in contents.items()]
    sync()
    for temporary, path in made:
        os.replace(temporary, path)  # noqa: PTH105
    sync()


def _put_beside(path: Path, content: bytes, *, durable: bool) -> Path:
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        with contextlib.suppress(OSError):  # a file system without such attributes
            os.setxattr(fd, CHECKSUM, b"%08x" % crc32(content))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    return temporary


def damaged_byte(path: Path) -> int | None:
    """Where a file is no longer what `replace_file` made of it: the byte, if one bit of a small file was flipped, else 0. None: it is as it
    was written, or has no checksum (another program or file system wrote it). Raises OSError.
    """
    with path.open("rb") as file:
        content = file.read()
        try:
            wanted = int(os.getxattr(file.fileno(), CHECKSUM), 16)
        except (OSError, ValueError):
            return None
    if crc32(content) == wanted:
        return None
    if len(content) <= LOCATED_BYTES_MAX:
        guess = bytearray(content)
        for bit in range(len(content) * 8):
            guess[bit // 8] ^= 1 << bit % 8
            if crc32(guess) == wanted:
                return bit // 8
            guess[bit // 8] ^= 1 << bit % 8
    return 0


def remove_file(path: Path) -> bool:
    """Removes a file durably. Returns whether it was there. Raises OSError."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    sync_directory(path.parent)
    return True


def checkpoint(rows: Iterable[Sequence[object]]) -> bytes:
    """Kafka's checkpoint format: a version, the number of rows, a row a line with blanks between."""
    lines = [" ".join(map(str, row)) for row in rows]
    return "\n".join([str(CHECKPOINT_VERSION), str(len(lines)), *lines, ""]).encode()


def write_checkpoint(path: Path, rows: Iterable[Sequence[object]], *, durable: bool = True) -> None:
    """Raises OSError."""
    replace_file(path, checkpoint(rows), durable=durable)


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
