"""The topics as consumer groups see them: ids, numbers of partitions, and a hash that says whether anything of that changed.

The hash is Kafka's (KIP-1101: XXH3 over id, name and partitions), so that a group that Kafka wrote is not rebalanced for nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from fastlog.coordinator.ports import Topic, TopicView

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_MAGIC = b"\0"  # of the hash's own format


class Topology:
    """What the groups of one partition of `__consumer_offsets` know of the topics."""

    def __init__(self, topics: TopicView) -> None:
        self._topics = topics
        self._hashes: dict[str, int] = {}
        self.new_topics_version = topics.version
        """The version of the metadata when the last topic came (or when this began to look)."""

    @property
    def version(self) -> int:
        return self._topics.version

    def on_change(self, name: str, *, created: bool) -> None:
        """A topic came, changed or went."""
        if created:
            self.new_topics_version = self._topics.version
        self._hashes.pop(name, None)

    def get(self, name: str) -> Topic | None:
        return self._topics.get(name)

    def by_id(self, topic_id: UUID) -> Topic | None:
        return self._topics.by_id(topic_id)

    def names(self) -> list[str]:
        return [topic.name for topic in self._topics.all()]

    def ids(self, names: Iterable[str]) -> set[UUID]:
        """The ids of those that exist."""
        return {topic.topic_id for name in names if (topic := self._topics.get(name)) is not None}

    def partitions(self, topic_id: UUID) -> int:
        """How many there are; none of a topic that is gone."""
        topic = self._topics.by_id(topic_id)
        return 0 if topic is None else topic.partition_count

    def hash(self, names: Iterable[str]) -> int:
        """Of the subscribed topics that exist, signed 64 bit; 0 when there are none."""
        from xxhash import xxh3_64_intdigest

        hashes = [self._hash(topic) for name in sorted(names) if (topic := self._topics.get(name)) is not None]
        return _signed(xxh3_64_intdigest(b"".join(map(_INT64.pack, hashes)))) if hashes else 0

    def _hash(self, topic: Topic) -> int:
        found = self._hashes.get(topic.name)
        if found is None:
            found = self._hashes[topic.name] = _topic_hash(topic)
        return found


def _topic_hash(topic: Topic) -> int:
    from xxhash import xxh3_64_intdigest

    units = topic.name.encode("utf-16-le", "surrogatepass")
    # The id as two big-endian halves, each written in the little-endian order of the hash stream.
    halves = topic.topic_id.bytes[7::-1] + topic.topic_id.bytes[:7:-1]
    data = [_MAGIC, halves, units, _INT32.pack(len(units) // 2), _INT32.pack(topic.partition_count)]
    data += map(_INT32.pack, range(topic.partition_count))
    return _signed(xxh3_64_intdigest(b"".join(data)))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
