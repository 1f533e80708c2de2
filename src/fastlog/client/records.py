"""The small types of producer and consumer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]] | Mapping[str, bytes | None]


class TopicPartition(NamedTuple):
    """A partition of a topic. A plain tuple of the two does as well, wherever one is asked for."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """Where a record is. `offset` -1: it was not told (acks=0). `timestamp`: milliseconds; the first of its batch's, or the broker's."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class OffsetAndTimestamp(NamedTuple):
    """`timestamp`: of the record at `offset`, milliseconds since the epoch; -1 where there is no record."""

    offset: int
    timestamp: int
