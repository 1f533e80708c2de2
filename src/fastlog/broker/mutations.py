"""The quota of changes of topics: partitions made or deleted, a second (KIP-599). A token bucket for each client, as Kafka's."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Clock

CLIENTS_MAX: Final = 10_000
"""The bucket unused for longest makes room."""


class TokenBuckets:
    def __init__(self, burst_s: int, clock: Clock) -> None:
        """`burst_s`: a full bucket holds what may be changed in so many seconds."""
        self._burst_s = burst_s
        self._clock = clock
        self._tokens: OrderedDict[str | None, tuple[float, int]] = OrderedDict()

    def tokens(self, client: str | None, rate: float) -> float:
        """What the client may change now; negative: it has to wait."""
        now = self._clock.monotonic_ms()
        full = rate * self._burst_s
        left, at = self._tokens.pop(client, (full, now))
        left = min(full, left + (now - at) * rate / 1000)
        self._tokens[client] = left, now
        if len(self._tokens) > CLIENTS_MAX:
            self._tokens.popitem(last=False)
        return left

    def take(self, client: str | None, n: int) -> None:
        """After `tokens`: takes n, even when there are fewer."""
        left, at = self._tokens[client]
        self._tokens[client] = left - n, at


class Mutations:
    """The changes of one request."""

    def __init__(self, buckets: TokenBuckets, client: str | None, rate: float | None, *, strict: bool) -> None:
        """`rate`: partitions a second; None: no quota."""
        self._buckets = buckets
        self._client = client
        self._rate = rate
        self._strict = strict
        self.throttle_ms = 0
        """How long the client has to wait after this request."""

    def take(self, partitions: int) -> None:
        """Counts a change before it is made. Raises KafkaError when the quota is used up and the client understands that."""
        if self._rate is None:
            return
        left = self._buckets.tokens(self._client, self._rate)
        if self._strict and left < 0:
            self.throttle_ms = max(self.throttle_ms, round(-left / self._rate * 1000))
            raise KafkaError(Error.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded.")
        self._buckets.take(self._client, partitions)
        if not self._strict and left < partitions:
            self.throttle_ms = max(self.throttle_ms, round((partitions - left) / self._rate * 1000))
