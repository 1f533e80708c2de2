"""Reads the topics out of consumers' protocol metadata (ConsumerProtocolSubscription), which is theirs and may be anything."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


def subscribed_topics(metadata: Iterable[bytes]) -> set[str] | None:
    """The topics of all members' subscriptions; None if one of them can't be read.

    Each metadata is an int16 version, then what every version begins with: int32 count, then that many strings with int16 lengths.
    """
    topics: set[str] = set()
    try:
        for data in metadata:
            (version,) = _INT16.unpack_from(data, 0)
            (count,) = _INT32.unpack_from(data, 2)
            if version < 0 or not 0 <= count <= len(data) // 2:
                return None
            position = 6
            for _ in range(count):
                (length,) = _INT16.unpack_from(data, position)
                end = position + 2 + length
                if length < 0 or end > len(data):
                    return None
                topics.add(data[position + 2 : end].decode())
                position = end
    except (struct.error, UnicodeDecodeError):
        return None
    return topics
