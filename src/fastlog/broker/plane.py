"""The data plane as the control plane sees it: partitions to open and publish, batches to append and read, requests to answer.

All coroutines are called on the event loop's thread. Times are milliseconds, sizes bytes. An outcome that a client may be told comes
back as an `Error` in a result; only a defect raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from fastlog.protocol.errors import Error

INT64_MAX = 2**63 - 1
CODEC_PRODUCER = -1  # BatchRules.codec: keep what was sent


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What a topic asks of its logs; Kafka's settings of the same names."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 604_800_000
    segment_jitter_ms: int = 0
    index_interval_bytes: int = 4096
    segment_index_bytes: int = 10 << 20
    flush_messages: int = INT64_MAX
    flush_ms: int = INT64_MAX
    write_caching: bool = False
    disk_reserve: int = 1 << 30
    """Free bytes of the disk that the log leaves to others, at most a twentieth of it."""
    verify_reads: bool = True
    recycle_bytes: int = 4 << 30
    """Bytes that removed segments may hold in the data directory, as space for next ones."""


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What a topic asks of a record batch."""

    size_max: int = 1_048_588
    before_max_ms: int = INT64_MAX
    after_max_ms: int = 3_600_000
    log_append_time: bool = False
    keys_required: bool = False
    look_inside: bool = True
    codec: int = CODEC_PRODUCER
    level: int = 0
    """Of `codec`; 0 is the codec's own default."""


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    topic_id: UUID
    topic: str
    partition: int
    path: str
    leader_epoch: int
    create: bool
    """The directory must not exist and is made, durably."""
    clean: bool
    """Its data directory was shut down cleanly: the log's end need not be searched for."""
    settings: LogSettings
    together: bool = False
    """What recovery leaves is flushed by the caller, with that of others, before anything else is done with the partition."""


@dataclass(frozen=True, slots=True)
class OpenResult:
    error: Error
    why: str = ""
    recovered: bool = False
    """The end was searched for: the leader epoch must be raised before appends."""
    lost_bytes: int = 0
    arena_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AppendResult:
    error: Error
    base_offset: int = -1


@dataclass(frozen=True, slots=True)
class ReadResult:
    error: Error
    data: bytes = b""
    log_start: int = -1
    last_stable: int = -1
    high_watermark: int = -1


@dataclass(frozen=True, slots=True)
class DeleteRecordsResult:
    error: Error
    low_watermark: int = -1


@dataclass(frozen=True, slots=True)
class TimeResult:
    error: Error
    offset: int = -1
    timestamp: int = -1


class StandingAnswer(Protocol):
    def revoke(self) -> None: ...

    @property
    def seen_ms(self) -> int:
        """When the response was given last without coming here, milliseconds of the monotonic clock; 0: not yet."""
        ...


@dataclass(frozen=True, slots=True)
class ProducerState:
    """What a partition knows of a producer that wrote to it (DescribeProducers)."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    """-1: none, as after the end of a transaction in a newer epoch."""
    last_timestamp: int
    coordinator_epoch: int
    """Of the newest transaction marker; -1: none."""
    txn_start_offset: int
    """First offset of the transaction that is under way; -1: none."""


@dataclass(frozen=True, slots=True)
class TxnCheck:
    """A produce that begins a transaction in partitions of it (KIP-890): it waits until `Plane.txn_checked` says what the coordinator
    thinks of it."""

    token: int
    transactional_id: str
    producer_id: int
    producer_epoch: int
    add: bool
    """The partitions are to be added to the transaction (Produce v12+); else only whether they are in it is asked."""
    partitions: Sequence[tuple[UUID, str, int]]
    """(topic id, topic, partition)."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Offsets, with log_start <= last_stable <= high_watermark <= log_end."""

    log_start: int
    last_stable: int
    high_watermark: int
    log_end: int
    leader_epoch: int
    offline: int
    """0, or the Kafka error code that every request gets."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the data plane hands over. It is answered once, by `Plane.respond` or `Plane.close`."""

    token: int
    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    peer: str
    listener: str
    body: memoryview


def host_and_port(host: str, port: int) -> str:
    """As it is written for people and in settings: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: a TCP host and port (0: any free one), or the path of a Unix socket."""

    name: str
    host: str | None = None
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        return host_and_port(self.host or "", self.port) if self.path is None else f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class QuotaBound:
    rate: float | None = None
    """Bytes, per cent of a thread, or partitions, each a second; None: no bound."""
    shared: bool = False
    """All clients that it holds for are counted together; else each by itself."""


@dataclass(frozen=True, slots=True)
class ClientBounds:
    """What the data plane counts of a client."""

    produce: QuotaBound = QuotaBound()
    fetch: QuotaBound = QuotaBound()
    request: QuotaBound = QuotaBound()


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """What the data plane is started with. Nothing here changes later."""

    cores: Sequence[int]
    """One shard is pinned to each."""
    memory: int
    """Bytes, for everything that the data plane keeps: buffers, tail cache, arena."""
    io: str
    """"uring", "epoll" or "auto"."""
    arena: str | None
    """Directory of a tmpfs for the append arenas; None: no arena, acks=1 waits for the write."""
    relics: Sequence[str] = ()
    """Arenas that earlier processes of these data directories left."""
    lock_fds: Sequence[int] = ()
    """The data directories' lock files: held by every ring until its last request has ended."""
    one_flush_for_many: bool = False
    """A flush of their device makes durable what was written before through all of its files (fastlog.storage.flushes)."""
    limits: dict[str, int] = field(default_factory=dict)
    """Broker settings that bound requests and connections, by Kafka's name."""
    quota_samples: int = 11
    quota_window_ms: int = 1000


@dataclass(frozen=True, slots=True)
class PlaneFacts:
    """What the data plane decided at its start, for the operator."""

    io: str
    io_why: str
    arenas: Sequence[str] = ()
    """The arenas in use now: recorded in the data directory, so that a successor finds them after a kill."""
    arena_why: str = ""
    relics_why: str = ""


class Plane(Protocol):
    """What handlers, the topic manager and the coordinator use."""

    async def open_partition(self, spec: PartitionSpec) -> OpenResult: ...

    async def close_partition(self, topic_id: UUID, partition: int) -> None:
        """Clean: flushed, trimmed, indexes and snapshot written. Raises OSError when that could not be done; closed it is all the same."""

    async def delete_partition(self, topic_id: UUID, partition: int) -> None:
        """The data goes."""

    async def publish_topic(self, name: str, topic_id: UUID, partitions: int, rules: BatchRules, internal: bool) -> None:
        """Makes the opened ones of partitions [0, n) visible to clients, on every shard; again: more partitions, other rules."""

    async def unpublish_topic(self, topic_id: UUID) -> None:
        """Returns when no shard knows it any more."""

    async def set_log_settings(self, topic_id: UUID, partition: int, settings: LogSettings) -> None: ...

    async def set_leader_epoch(self, topic_id: UUID, partition: int, epoch: int) -> None: ...

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
    ) -> Awaitable[AppendResult]:
        """Ends the producer's transaction in a partition: a control batch, on stable storage when this returns. `version`: of the
        transaction's protocol; from 2 on each end has an epoch of its own (KIP-890). Errors: INVALID_PRODUCER_EPOCH,
        TRANSACTION_COORDINATOR_FENCED."""

    async def describe_producers(self, topic_id: UUID, partition: int) -> list[ProducerState]: ...

    def txn_checked(self, token: int, errors: Sequence[Error]) -> None:
        """Answers a TxnCheck: one error for each of its partitions, in order; where it is NONE the produce goes on. The data plane turns
        coordinator errors into those that a producer of that version knows. One that has ended meanwhile is not an error."""

    async def read(self, topic_id: UUID, partition: int, offset: int, max_bytes: int, *, to_log_end: bool = False) -> ReadResult: ...

    async def delete_records(self, topic_id: UUID, partition: int, offset: int) -> DeleteRecordsResult: ...

    async def find_time(self, topic_id: UUID, partition: int, timestamp: int) -> TimeResult: ...

    async def roll(self, topic_id: UUID, partition: int) -> Error:
        """Begins a new segment, unless the active one is empty."""

    async def fail_partition(self, topic_id: UUID, partition: int, error: int) -> None:
        """Its disk has failed, with an errno: every request gets KAFKA_STORAGE_ERROR from here on."""

    async def compactable(self, topic_id: UUID, partition: int) -> int | None:
        """The offset below which segments are whole on disk and below the last stable offset; None: not open, or offline."""

    async def swap_segments(self, topic_id: UUID, partition: int, base_offset: int, end: int) -> tuple[Error, str]:
        """The .cleaned files at `base_offset` take the place of the segments from there to `end`, durably; or an error, and why.

        OFFSET_OUT_OF_RANGE: the segments have changed; UNKNOWN_TOPIC_OR_PARTITION: the partition is closing. The files stay then.
        """

    def positions(self, topic_id: UUID, partition: int) -> Positions | None:
        """Reads the published positions; no round trip. None: not open."""

    def stats(self) -> dict[str, Any]: ...

    def expire_producers(self, after_ms: int) -> None:
        """How long a producer id may be idle before a partition forgets it, from now on."""

    def set_quotas(self, default: ClientBounds, named: Mapping[str, ClientBounds]) -> None:
        """What holds from now on for clients by their id, and for those that are not named."""

    def requests_counted(self) -> bool:
        """Whether some client's time is bounded: then `count_request` is to be told of it."""

    def count_request(self, client_id: str | None, spent_ns: int) -> int:
        """Counts what a request took of the control plane. Milliseconds that its client has to wait."""

    def respond(self, token: int, body: bytes, throttle_ms: int = 0, standing: StandingAnswer | None = None) -> None:
        """`throttle_ms`: nothing is read from its connection for so long. `standing`: from `standing()`; until it is revoked, the same
        request on the same connection gets this response without coming here (but while a quota counts what requests cost)."""

    def standing(self) -> StandingAnswer:
        """For one response that may be given again."""
        ...

    def close(self, token: int, why: str) -> None:
        """Closes the connection and logs a line that names the peer and why."""


class DataPlane(Plane, Protocol):
    """The whole of it, as the server starts and stops it."""

    async def start(
        self, config: PlaneConfig, on_request: Callable[[Request], None], on_txn_check: Callable[[TxnCheck], None]
    ) -> PlaneFacts:
        """Starts the shards. `on_request` and `on_txn_check` are called on the event loop's thread. Raises OSError."""

    async def drop_relics(self) -> None:
        """Every partition was opened: what earlier processes left in their arenas is in the logs, durably."""

    async def bind(self, addresses: Sequence[ListenAddress]) -> list[ListenAddress]:
        """Binds, without accepting; answers with the real ports. Raises OSError, which names the address."""

    async def accept(self) -> None:
        """From now on clients are served."""

    async def drain(self, timeout_ms: int) -> int:
        """Accepts and reads no more, waits until what was read is answered; returns the number of connections cut off at the end."""

    async def stop(self) -> None:
        """Ends the shards; partitions that are still open are left as a crash would."""
