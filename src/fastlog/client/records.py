"""The small types of producer and consumer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]] | Mapping[str, bytes | None]

Partition: TypeAlias = tuple[str, int]


class TopicPartition(NamedTuple):
    """A partition of a topic. A plain tuple of the two does as well, wherever one is asked for."""

    topic: str
    partition: int


def by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    """Topic -> numbers."""
    made: dict[str, list[int]] = {}
    for topic, number in partitions:
        made.setdefault(topic, []).append(number)
    return made


class Mark(NamedTuple):
    """What is committed of a partition: the offset to read next. `epoch`: of the leader that wrote what is before it; -1: not known."""

    offset: int
    metadata: str = ""
    epoch: int = -1


class RecordMetadata(NamedTuple):
    """Where a record is. `offset` -1: it was not told (acks=0, or a duplicate of one whose answer was lost). `timestamp`: milliseconds; the
    first of its batch's, or the broker's."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class OffsetAndTimestamp(NamedTuple):
    """`timestamp`: of the record at `offset`, milliseconds since the epoch; -1 where there is no record."""

    offset: int
    timestamp: int
