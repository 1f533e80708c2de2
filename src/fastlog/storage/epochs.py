"""From which offset on each leader epoch of a partition wrote (KIP-101), kept in the partition's leader-epoch-checkpoint.

A consumer that read past what a crash took away learns of it here: the unclean start begins a new epoch at the end that is left, and
the old epoch's end is then below the consumer's position.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastlog.storage.files import DamagedFileError, checkpoint, read_checkpoint, replace_files, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE: Final = "leader-epoch-checkpoint"
UNDEFINED: Final = (-1, -1)
"""Epoch and offset where there is nothing to say."""


class Epochs:
    """The epochs of one partition, ascending in epoch and in start offset. Changes are in memory until `save`."""

    __slots__ = ("_epochs", "_starts")

    def __init__(self) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []

    @property
    def entries(self) -> list[tuple[int, int]]:
        """(epoch, first offset) pairs."""
        return list(zip(self._epochs, self._starts, strict=True))

    @property
    def latest(self) -> int:
        """The newest epoch, or -1."""
        return self._epochs[-1] if self._epochs else -1

    def assign(self, epoch: int, start: int) -> bool:
        """From `start` on `epoch` writes. What contradicts it goes: a later or equal epoch, or one that starts at or past it.

        Returns whether anything changed.
        """
        if epoch < 0 or start < 0:
            raise ValueError(f"epoch {epoch} from offset {start}")
        if self._epochs and epoch == self._epochs[-1] and start >= self._starts[-1]:
            return False
        while self._epochs and (self._epochs[-1] >= epoch or self._starts[-1] >= start):
            self._pop()
        self._epochs.append(epoch)
        self._starts.append(start)
        return True

    def end_offset(self, epoch: int, log_end: int) -> tuple[int, int]:
        """The largest epoch up to `epoch` and where it ended, as OffsetForLeaderEpoch answers; UNDEFINED for an epoch still to come."""
        if epoch < 0 or not self._epochs or epoch > self._epochs[-1]:
            return UNDEFINED
        if epoch == self._epochs[-1]:
            return epoch, log_end
        after = bisect_right(self._epochs, epoch)
        return (self._epochs[after - 1] if after else epoch), self._starts[after]

    def truncate_end(self, log_end: int) -> bool:
        """The log was cut: epochs that wrote nothing below `log_end` go. Returns whether any did."""
        before = len(self._epochs)
        while self._epochs and self._starts[-1] >= log_end:
            self._pop()
        return len(self._epochs) < before

    def truncate_start(self, log_start: int) -> bool:
        """The log now begins at `log_start`: the newest epoch from before it is left, and starts there. Returns whether any changed."""
        count = bisect_right(self._starts, log_start)
        if count == 0 or (count == 1 and self._starts[0] == log_start):
            return False
        del self._epochs[: count - 1], self._starts[: count - 1]
        self._starts[0] = log_start
        return True

    def _pop(self) -> None:
        self._epochs.pop()
        self._starts.pop()

    def save(self, directory: str, *, durable: bool = True) -> None:
        """Replaces the partition's checkpoint. Raises OSError."""
        write_checkpoint(Path(directory) / FILE, self.entries, durable=durable)


def save_epochs(changed: Mapping[str, Epochs], sync: Callable[[], None]) -> None:
    """Replaces the checkpoints of many partitions, by directory; `sync` makes all durable that was written so far. Raises OSError."""
    replace_files({Path(directory) / FILE: checkpoint(epochs.entries) for directory, epochs in changed.items()}, sync)


def load_epochs(directory: str) -> Epochs:
    """What the partition's checkpoint says; empty when there is none. Raises DamagedFileError, OSError."""
    path = Path(directory) / FILE
    epochs = Epochs()
    for epoch, start in read_checkpoint(path, 2):
        try:
            epochs.assign(int(epoch), int(start))
        except ValueError as error:
            raise DamagedFileError(f"{path}: {error}") from None
    return epochs
