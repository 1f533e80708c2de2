"""What the coordinator needs of the rest of the broker, which lies above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping
    from uuid import UUID

    from fastlog.coordinator.operation import Marker
    from fastlog.protocol.errors import Error


class AppendResult(Protocol):
    @property
    def error(self) -> Error: ...
    @property
    def base_offset(self) -> int: ...


class ReadResult(Protocol):
    @property
    def error(self) -> Error: ...
    @property
    def data(self) -> bytes: ...
    @property
    def log_start(self) -> int: ...


class Positions(Protocol):
    @property
    def log_start(self) -> int: ...
    @property
    def log_end(self) -> int: ...
    @property
    def leader_epoch(self) -> int: ...
    @property
    def offline(self) -> int: ...


class StandingAnswer(Protocol):
    """A response that the data plane gives to the same request again, until it is revoked."""

    def revoke(self) -> None: ...

    @property
    def seen_ms(self) -> int:
        """When it was given last that way, milliseconds of the monotonic clock; 0: not yet."""
        ...


class Log(Protocol):
    """The data plane, as far as the coordinator uses it."""

    def standing(self) -> StandingAnswer: ...

    def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> Awaitable[AppendResult]: ...

    def write_txn_marker(
        self,
        topic_id: UUID,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
        version: int = 1,
    ) -> Awaitable[AppendResult]: ...

    async def read(self, topic_id: UUID, partition: int, offset: int, max_bytes: int, *, to_log_end: bool = False) -> ReadResult: ...

    def positions(self, topic_id: UUID, partition: int) -> Positions | None: ...


class Topic(Protocol):
    """A topic that exists, with this many partitions."""

    @property
    def name(self) -> str: ...
    @property
    def topic_id(self) -> UUID: ...
    @property
    def partition_count(self) -> int: ...


class TopicView(Protocol):
    """What topics there are now."""

    @property
    def version(self) -> int:
        """Of the metadata: grows with every change, over restarts too."""
        ...

    def get(self, name: str) -> Topic | None: ...

    def by_id(self, topic_id: UUID) -> Topic | None: ...

    def all(self) -> Iterator[Topic]: ...


class Topics(TopicView, Protocol):
    """The topic manager."""

    def find(self, name: str) -> Topic | None: ...

    async def ensure_internal_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        """The topic, created unless it exists. Raises KafkaError."""
        ...


class Verifier(Protocol):
    """The transaction coordinator, as far as the group coordinator uses it."""

    async def verify_offsets(
        self, transactional_id: str, producer_id: int, producer_epoch: int, partition: tuple[str, int], *, add: bool
    ) -> Error:
        """Whether the partition (topic, index) is in the producer's transaction; `add`: puts it there."""
        ...


class OffsetsLog(Protocol):
    """The group coordinator, as far as the transaction coordinator uses it."""

    async def ensure_topic(self) -> None:
        """When this returns `__consumer_offsets` exists. Raises KafkaError."""

    def partition_of(self, group_id: str) -> int:
        """The partition of `__consumer_offsets`, which exists, that a group's offsets are in."""
        ...

    async def end_transaction(self, partition: int, marker: Marker) -> Error:
        """Writes the end of a producer's transaction to a partition of `__consumer_offsets`."""
        ...
