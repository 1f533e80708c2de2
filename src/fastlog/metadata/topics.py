"""What the store keeps of a topic, and how: one JSON value under /topics/NAME."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from fastlog.metadata.store import CorruptError

PREFIX: Final = "/topics/"


@dataclass(frozen=True, slots=True)
class PartitionRecord:
    directory: str
    """The id of the data directory that it lies in."""
    epoch: int
    """Its newest leader epoch."""


@dataclass(frozen=True, slots=True)
class TopicRecord:
    topic_id: UUID
    partitions: tuple[PartitionRecord, ...]
    made: int
    """How many of them, from the first on, are known to have been made. The others are in the making, and hold no records yet."""
    configs: dict[str, str] = field(default_factory=dict)
    """What the topic sets itself."""
    epochs: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """By partition: (leader epoch, first offset) of those that its leader-epoch-checkpoint may not have yet, ascending."""
    deleting: bool = False
    """It is gone for clients; what is left of its data is being removed."""

    def encode(self) -> bytes:
        value: dict[str, Any] = {
            "id": str(self.topic_id),
            "partitions": [[p.directory, p.epoch] for p in self.partitions],
            "made": self.made,
            "configs": self.configs,
        }
        if self.epochs:
            value["epochs"] = {str(index): entries for index, entries in self.epochs.items()}
        if self.deleting:
            value["deleting"] = True
        return json.dumps(value, separators=(",", ":")).encode()


def decode_topic(name: str, value: bytes) -> TopicRecord:
    """Raises CorruptError."""
    try:
        found = json.loads(value)
        return TopicRecord(
            UUID(found["id"]),
            tuple(PartitionRecord(str(directory), int(epoch)) for directory, epoch in found["partitions"]),
            int(found["made"]),
            {str(k): str(v) for k, v in found["configs"].items()},
            {int(k): tuple((int(epoch), int(start)) for epoch, start in v) for k, v in found.get("epochs", {}).items()},
            bool(found.get("deleting", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"the metadata of topic {name} can't be read: {error!r}") from error
