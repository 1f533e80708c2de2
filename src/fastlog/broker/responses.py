"""Encoded Metadata responses, kept for a moment.

Every consumer of a topic asks the same, and all of them at once after a restart; a response of 1,000 partitions takes a quarter of a
millisecond to make and a twentieth to send again. One is kept while no topic came, went or grew, and no longer than a partition may be
shown in a state that it no longer has.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from fastlog.broker.listing import LISTING_AGE_MAX_MS

if TYPE_CHECKING:
    from fastlog.broker.context import Clock
    from fastlog.broker.topics import TopicManager

BYTES_MAX: Final = 8 << 20
REQUEST_BYTES_MAX: Final = 64 << 10

Key: TypeAlias = tuple[int, str, bytes]
"""Version, listener, request."""


class Responses:
    def __init__(self, topics: TopicManager, clock: Clock) -> None:
        self._topics = topics
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0
        self._changes = topics.changes

    def get(self, key: Key) -> bytes | None:
        if self._changes != self._topics.changes:
            self._kept.clear()
            self._bytes = 0
            self._changes = self._topics.changes
        found = self._kept.get(key)
        if found is None or self._clock.monotonic_ms() - found[0] > LISTING_AGE_MAX_MS:
            return None
        return found[1]

    def put(self, key: Key, response: bytes) -> None:
        """After `get` found nothing; topics may have changed since, then it is not kept."""
        if self._changes != self._topics.changes or len(key[2]) > REQUEST_BYTES_MAX or len(response) > BYTES_MAX // 2:
            return
        before = self._kept.pop(key, None)
        self._bytes += len(response) - (len(before[1]) if before is not None else 0)
        self._kept[key] = self._clock.monotonic_ms(), response
        while self._bytes > BYTES_MAX:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= len(dropped)
