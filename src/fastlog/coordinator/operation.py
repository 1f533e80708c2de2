"""What an operation of the coordinator leaves behind: a response, and records whose acceptance by the log it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlog.coordinator.metrics import Metrics
    from fastlog.coordinator.ports import Log, StandingAnswer, TopicView
    from fastlog.coordinator.settings import GroupSettings, Settings
    from fastlog.coordinator.timers import TimerQueue
    from fastlog.protocol.errors import Error

Message: TypeAlias = dict[str, Any]


class Producer(NamedTuple):
    """Whose transaction records belong to."""

    producer_id: int
    epoch: int


class Marker(NamedTuple):
    """The end of a producer's transaction. `version`: of the transaction protocol, see `Plane.write_txn_marker`."""

    producer_id: int
    epoch: int
    coordinator_epoch: int
    commit: bool
    version: int


@dataclass(slots=True)
class Result:
    """Records are appended all or none, unless `divisible`; as a part of `producer`'s transaction if there is one.

    `replay`: apply the records when the log has accepted them; else the operation has changed its (soft) state already, and `done` tells it
    how the append ended (NONE: accepted). `done` runs after replay. `at_once`: what is decided next builds on these records, so they are
    applied (unless `replay` says that it is done) before the log has them; when it refuses them the partition is loaded again.
    `encoded`: keys and values of the records, where the operation has made them already. `standing`: the response stands until this is
    revoked.
    """

    records: list[Any] = field(default_factory=list)
    response: Message | None = None
    replay: bool = True
    done: Callable[[Error], None] | None = None
    divisible: bool = False
    producer: Producer | None = None
    at_once: bool = False
    encoded: list[tuple[bytes, bytes | None]] | None = None
    standing: StandingAnswer | None = None


class Clock(Protocol):
    """Milliseconds: since the epoch, and of a clock that never goes back."""

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Environment:
    """What all groups of a broker share."""

    settings: Settings
    clock: Clock
    timers: TimerQueue
    metrics: Metrics
    topics: TopicView
    groups: GroupSettings
    standing: Callable[[], StandingAnswer]


class LogSettings(Protocol):
    """What a coordinator's log is given: sizes in bytes, times in milliseconds."""

    @property
    def batch_size_max(self) -> int: ...
    @property
    def commit_ms(self) -> int: ...
    @property
    def load_buffer_size(self) -> int: ...


class LogMetrics(Protocol):
    """Counters that a coordinator's log keeps."""

    append_batches: int
    append_records: int
    append_bytes: int
    append_errors: int
    loads: int
    load_errors: int
    load_records: int
    load_records_skipped: int
    load_ms: int


@dataclass(frozen=True, slots=True)
class Host:
    """What the logs of one coordinator share. `topic`: its name. `sweep_ms`: time between two sweeps."""

    topic: str
    plane: Log
    settings: LogSettings
    sweep_ms: int
    clock: Clock
    timers: TimerQueue
    metrics: LogMetrics


Run: TypeAlias = "Callable[[Callable[[], Result]], None]"
"""Runs an operation that no request asked for (a timer, a failed append) and appends what it returns."""


class StateMachine(Protocol):
    """What the log of one partition is the log of. Records of its own kind; it sees them in the log's order."""

    def encode(self, records: Sequence[Any]) -> list[tuple[bytes, bytes | None]]:
        """Key and value of each. Raises ValueError for what can't be stored."""
        ...

    def decode(self, key: bytes, value: bytes | None) -> Any | None:
        """The reverse; None for a kind that is not known. Raises ValueError for what can't be read."""
        ...

    def begin(self, records: Sequence[Any]) -> None:
        """These, of one operation, are on their way to the log."""

    def end(self, records: Sequence[Any]) -> None:
        """They have arrived or failed."""

    def replay(self, record: Any, offset: int = 0, producer_id: int = -1) -> None:
        """Applies what the log has at an offset, as a part of a producer's transaction or (-1) for good."""

    def replay_all(self, records: Sequence[Any], offset: int, producer_id: int) -> None:
        """The same for several, of which the first is at `offset`."""

    def replay_marker(self, producer_id: int, commit: bool) -> None:
        """Applies the end of a producer's transaction."""

    def on_loaded(self) -> list[Result]:
        """All has been read; what is to be done then."""
        ...

    def sweep(self) -> Result:
        """Drops what has expired."""
        ...

    def unload(self) -> None:
        """Forgets everything; whoever waits is told that this is not the coordinator (any more)."""

    def summary(self) -> str:
        """How much there is, for the log: "3 groups"."""
        ...


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: what a request's header and connection say. `version` is the API version; `host` as Kafka shows it, "/" and the address."""

    version: int
    client_id: str
    host: str
