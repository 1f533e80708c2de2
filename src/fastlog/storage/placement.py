"""Which data directory a new partition goes to, and which directories in them nobody knows."""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING, Final

from fastlog.storage.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from fastlog.storage.directory import DataDirectory

_PARTITION: Final = re.compile(r".+-[0-9]+")
_LEFT: Final = re.compile(r".+\.[0-9a-f]+-delete")
NAME_MAX: Final = 255
LOW_SPACE: Final = 0.1
"""A directory with less than this share of the roomiest one's free space gets a partition only when all have so little."""


class Placement:
    """Deals partitions to data directories: the one with the fewest, of those with room; of equals the one with the most room."""

    def __init__(self, directories: Sequence[DataDirectory], used: Iterable[str]) -> None:
        """`used`: the directory id of each partition that there is."""
        self._directories = list(directories)
        self._counts = {directory.id: 0 for directory in directories}
        self._free: dict[str, int] = {}
        for directory_id in used:
            self.count(directory_id, 1)
        self.refresh()

    def refresh(self) -> None:
        """Looks at the free space again. A directory that can't say, or whose disk has failed, has none."""
        for directory in self._directories:
            try:
                self._free[directory.id] = directory.free_bytes() if directory.failed is None else 0
            except OSError:
                self._free[directory.id] = 0

    def count(self, directory_id: str, change: int) -> None:
        if directory_id in self._counts:
            self._counts[directory_id] += change

    def choose(self) -> DataDirectory:
        """The directory for the next partition, which it counts there."""
        most = max(self._free.values())
        working = [d for d in self._directories if d.failed is None] or self._directories
        roomy = [d for d in working if self._free[d.id] >= most * LOW_SPACE]
        chosen = min(roomy, key=lambda d: (self._counts[d.id], -self._free[d.id]))
        self._counts[chosen.id] += 1
        return chosen


def survey(directory: DataDirectory, known: Collection[str]) -> tuple[list[str], list[str]]:
    """The partition directories that `known` (directory names) has not, and those that a deletion left. Blocks. Raises OSError."""
    with os.scandir(directory.path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    left = [name for name in names if _LEFT.fullmatch(name)]
    return [name for name in names if _PARTITION.fullmatch(name) and name not in known], left


def remove_partition(path: Path) -> None:
    """Removes a partition's directory; a crash leaves it whole or named as deleted. Blocks. Raises OSError."""
    import shutil  # with it come three compression libraries, and most starts remove nothing

    ending = f".{secrets.token_hex(16)}-delete"
    marked = path.with_name(path.name[: NAME_MAX - len(ending)] + ending)
    try:
        path.rename(marked)
    except FileNotFoundError:
        return
    sync_directory(path.parent)
    shutil.rmtree(marked)
