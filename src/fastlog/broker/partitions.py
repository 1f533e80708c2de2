"""Topics and partitions as the broker holds them in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlog.broker.topic_names import INTERNAL
from fastlog.metadata.topics import PartitionRecord, TopicRecord
from fastlog.storage.epochs import Epochs

if TYPE_CHECKING:
    from uuid import UUID

    from fastlog.broker.plane import BatchRules, LogSettings
    from fastlog.storage.directory import DataDirectory


@dataclass(slots=True)
class Partition:
    index: int
    directory_id: str
    directory: DataDirectory | None
    """None: the data directory that it lies in is not there."""
    epoch: int
    """The leader epoch of appends."""
    epochs: Epochs = field(default_factory=Epochs)
    saved: int = -1
    """The newest epoch that its leader-epoch-checkpoint has; later ones are in the topic's record."""
    offline: str | None = None
    """Why it could not be opened. (What fails later is in the data plane's positions.)"""


@dataclass(slots=True)
class Topic:
    name: str
    topic_id: UUID
    partitions: list[Partition]
    configs: dict[str, str]
    """What the topic sets itself."""
    revision: int = 0
    """Of its record in the metadata store."""
    made: int = 0
    pushed: tuple[BatchRules | None, LogSettings] | None = None
    """What the data plane was told last. None for rules: it does not know the topic yet, only its partitions."""
    listing: list[dict[str, Any]] = field(default_factory=list)
    """Its partitions as Metadata shows them, as of `listed_ms`."""
    listed_ms: int | None = None

    @property
    def partition_count(self) -> int:
        """Of those that clients see."""
        return self.made

    @property
    def internal(self) -> bool:
        return self.name in INTERNAL

    def _unsaved(self, partition: Partition) -> tuple[tuple[int, int], ...]:
        return tuple(entry for entry in partition.epochs.entries if entry[0] > partition.saved)

    def record(self, *, made: int | None = None, deleting: bool = False) -> TopicRecord:
        return TopicRecord(
            self.topic_id,
            tuple(PartitionRecord(p.directory_id, p.epoch) for p in self.partitions),
            self.made if made is None else made,
            dict(self.configs),
            {p.index: self._unsaved(p) for p in self.partitions if p.epochs.latest > p.saved},
            deleting,
        )
