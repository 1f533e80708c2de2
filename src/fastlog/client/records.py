"""The small types of producer and consumer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]] | Mapping[str, bytes | None]

Partition: TypeAlias = tuple[str, int]
NAME_MAX = 32767  # bytes of a name in the protocol


class TopicPartition(NamedTuple):
    """A partition of a topic. A plain tuple of the two does as well, wherever one is asked for."""

    topic: str
    partition: int


def checked(given: Iterable[Partition]) -> list[TopicPartition]:
    """Partitions as a caller names them. Raises TypeError or ValueError for what is none."""
    made = []
    for one in given:
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], str) or not isinstance(one[1], int):
            raise TypeError(f"{one!r}: expected (topic, number of the partition)")
        if not one[0] or not 0 <= one[1] < 1 << 31:
            raise ValueError(f"{one!r} can't be a partition")
        made.append(TopicPartition(*one))
    return made


class Mark(NamedTuple):
    """What is committed of a partition: the offset to read next. `epoch`: of the leader that wrote what is before it; -1: not known."""

    offset: int
    metadata: str = ""
    epoch: int = -1


def checked_mark(given: object) -> Mark:
    """An offset to commit, or one with metadata, as a caller gives it. Raises TypeError or ValueError."""
    if not isinstance(given, tuple):
        return Mark(checked_offset(given))
    if len(given) != 2 or not isinstance(given[1], str):
        raise TypeError(f"{given!r}: expected an offset, or (offset, metadata)")
    return Mark(checked_offset(given[0]), given[1])


def checked_offset(offset: object) -> int:
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise TypeError(f"offset {offset!r}: expected an integer")
    if not 0 <= offset < 1 << 63:
        raise ValueError(f"offset {offset}: expected 0 or more")
    return offset


def checked_topic(topic: object) -> str:
    """A topic's name as a caller gives it; brokers say which of them they take. Raises TypeError or ValueError."""
    if not isinstance(topic, str) or not topic:
        raise TypeError(f"topic: expected a name, not {topic!r}")
    if len(topic.encode()) > NAME_MAX:
        raise ValueError(f"topic {topic[:50]!r}...: longer than any name in the protocol")
    return topic


def by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    """Topic -> numbers."""
    made: dict[str, list[int]] = {}
    for topic, number in partitions:
        made.setdefault(topic, []).append(number)
    return made


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
