"""What callers give to the client's calls, looked through before a broker is asked: TypeError and ValueError say what is wrong."""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from fastlog.client.records import Mark, Partition, TopicPartition

NAME_MAX = 32767  # bytes of a name, or of a commit's metadata, in the protocol
FOREVER_S = 1e9  # thirty years: the compiled core counts microseconds in 64 bits


def checked(given: object) -> list[TopicPartition]:
    """Partitions as a caller names them. Raises TypeError or ValueError for what is none."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"partitions: expected [(topic, number), ...], not {given!r}")
    made = []
    for one in given:
        number = _index(one[1]) if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) else None
        if number is None:
            raise TypeError(f"{one!r}: expected (topic, number of the partition)")
        if not 0 <= number < 1 << 31:
            raise ValueError(f"{one!r} can't be a partition")
        made.append(TopicPartition(checked_topic(one[0]), number))
    return made


def _index(given: Any) -> int | None:
    """An integer, NumPy's too; None for what is none."""
    if type(given) is int:
        return given
    try:
        return None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return None


def checked_one(given: object) -> TopicPartition:
    """One partition."""
    (made,) = checked([given])
    return made


def checked_places(given: Mapping[Partition, Any]) -> dict[TopicPartition, Any]:
    """A mapping by partition; its values are for others to look at. Raises TypeError or ValueError."""
    if not isinstance(given, Mapping):
        raise TypeError(f"expected a mapping by (topic, number), not {given!r}")
    return dict(zip(checked(given), given.values(), strict=True))


def checked_settings(given: Mapping[str, str]) -> dict[str, str]:
    """A topic's settings by name. Raises TypeError or ValueError."""
    if not isinstance(given, Mapping):
        raise TypeError(f"settings: expected a mapping, not {given!r}")
    for name, value in given.items():
        checked_name(name, "setting")
        if not isinstance(value, str):
            raise TypeError(f"setting {name}: expected its value as a string, not {value!r}")
    return dict(given)


def checked_mark(given: object) -> Mark:
    """An offset to commit, or one with metadata, as a caller gives it. Raises TypeError or ValueError."""
    if not isinstance(given, tuple):
        return Mark(checked_offset(given))
    if len(given) != 2 or not isinstance(given[1], str):
        raise TypeError(f"{given!r}: expected an offset, or (offset, metadata)")
    if len(given[1].encode()) > NAME_MAX:
        raise ValueError(f"metadata {given[1][:50]!r}...: longer than the {NAME_MAX} bytes that the protocol has for it")
    return Mark(checked_offset(given[0]), given[1])


def checked_offset(offset: object) -> int:
    """Raises TypeError or ValueError for what is no offset of a record."""
    return _whole(offset, "offset", 0)


def checked_time(when: object) -> int:
    """Milliseconds since the epoch. Raises TypeError or ValueError."""
    return _whole(when, "time", 0, " milliseconds since the epoch")


def checked_count(count: object, what: str) -> int:
    """1 or more, as many as an int32 counts. Raises TypeError or ValueError."""
    return _whole(count, what, 1, most=(1 << 31) - 1)


def checked_default(count: object, what: str) -> int:
    """1 or more, or -1: the broker's default. Raises TypeError or ValueError."""
    return -1 if _index(count) == -1 else checked_count(count, what)


def _whole(given: object, what: str, least: int, unit: str = "", most: int = (1 << 63) - 1) -> int:
    number = _index(given)
    if number is None:
        raise TypeError(f"{what} {given!r}: expected an integer")
    if not least <= number <= most:
        raise ValueError(f"{what} {number}: expected {least} or more{unit}" if number < least else f"{what} {number}: at most {most}")
    return number


def checked_timeout(timeout: object) -> float:
    """Seconds. Raises TypeError or ValueError for what is no time to wait."""
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"timeout {timeout!r}: expected seconds")
    if math.isnan(timeout):
        raise ValueError("timeout: expected seconds, not a NaN")
    return float(min(max(timeout, 0.0), FOREVER_S))


def checked_topic(topic: object) -> str:
    """A topic's name as a caller gives it; brokers say which of them they take. Raises TypeError or ValueError."""
    return checked_name(topic, "topic")


def checked_name(name: object, what: str) -> str:
    """Of a topic or group. Raises TypeError or ValueError."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"{what}: expected a name, not {name!r}")
    if len(name.encode()) > NAME_MAX:
        raise ValueError(f"{what} {name[:50]!r}...: longer than any name in the protocol")
    return name


def checked_id(broker: object) -> int:
    """A broker's. Raises TypeError or ValueError."""
    return _whole(broker, "broker", 0, most=(1 << 31) - 1)


def checked_number(given: object, what: str, *, bits: int) -> int:
    """0 or more, as many as a signed integer of so many bits holds. Raises TypeError or ValueError."""
    return _whole(given, what, 0, most=(1 << (bits - 1)) - 1)


def checked_topics(topics: object) -> list[str]:
    """Raises TypeError or ValueError."""
    return checked_names(topics, "topic")


def checked_names(names: object, what: str) -> list[str]:
    """Of topics or settings. Raises TypeError or ValueError."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"{what}s: expected a list of names, not {names!r}")
    return [checked_name(name, what) for name in names]
