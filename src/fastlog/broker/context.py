"""What a handler is given: the broker, and where the request came from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from logging import Logger

    from fastlog.broker.configs import ConfigManager
    from fastlog.broker.plane import Plane, StandingAnswer
    from fastlog.broker.quotas import QuotaManager
    from fastlog.broker.topics import TopicManager
    from fastlog.metadata.store import MetadataStore


@dataclass(slots=True)
class RequestContext:
    api_key: int
    version: int
    client_id: str | None
    peer: str
    """As the log names it: "127.0.0.1:51234", "unix:pid 4711"."""
    listener: str
    """The name of the listener that the connection came in by."""
    standing: StandingAnswer | None = None
    """Set by the handler: the data plane gives this response to the same request again, until this is revoked."""

    def stands(self, answer: StandingAnswer) -> None:
        self.standing = answer


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int


class Clock:
    """Time as handlers see it; tests put their own in its place."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Cluster:
    """The one node that there is."""

    cluster_id: str
    node_id: int
    endpoints: Mapping[str, Endpoint]
    """What clients are told to connect to, by the listener they came in by."""
    rack: str | None = None

    def endpoint(self, listener: str) -> Endpoint:
        """Falls back to the first listener's for a request that came in by none (the broker's own)."""
        found = self.endpoints.get(listener)
        return found if found is not None else next(iter(self.endpoints.values()))

    def broker(self, listener: str) -> dict[str, Any]:
        """This node as Metadata, DescribeCluster and FindCoordinator list it."""
        at = self.endpoint(listener)
        return {"node_id": self.node_id, "host": at.host, "port": at.port, "rack": self.rack}


@dataclass(slots=True)
class Context:
    """Everything that handlers use. Made once, when all of it runs."""

    plane: Plane
    store: MetadataStore
    topics: TopicManager
    configs: ConfigManager
    quotas: QuotaManager
    cluster: Cluster
    log: Logger
    clock: Clock
    coordinator: Any = None
    """The group coordinator (fastlog.coordinator), which its own handlers know the type of."""
    transactions: Any = None
    """The transaction coordinator, likewise."""
