"""What an operation of the coordinator leaves behind: a response, and records whose acceptance by the log it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlog.coordinator.metrics import Metrics
    from fastlog.coordinator.records import CoordinatorRecord
    from fastlog.coordinator.settings import Settings
    from fastlog.coordinator.timers import TimerQueue
    from fastlog.protocol.errors import Error

Message: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class Result:
    """Records are appended all or none, unless `divisible`.

    `replay`: apply the records when the log has accepted them; else the operation has changed its (soft) state already, and `done` tells it
    how the append ended (NONE: accepted). `done` runs after replay.
    """

    records: list[CoordinatorRecord] = field(default_factory=list)
    response: Message | None = None
    replay: bool = True
    done: Callable[[Error], None] | None = None
    divisible: bool = False


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


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: what a request's header and connection say. `version` is the API version; `host` as Kafka shows it, "/" and the address."""

    version: int
    client_id: str
    host: str
