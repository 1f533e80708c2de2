"""The partitions of a coordinator's log: made when first needed, loaded at the start, driven by one queue of timers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Generic

from fastlog.coordinator.hashing import partition_of
from fastlog.coordinator.operation import Host
from fastlog.coordinator.runtime import Machine, PartitionRuntime, Status
from fastlog.coordinator.timers import TimerQueue
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastlog.coordinator.operation import Clock, LogMetrics, LogSettings, Run
    from fastlog.coordinator.ports import Log, Topic, Topics

log = logging.getLogger("fastlog.groups")

_LOADS_MAX: Final = 4  # partitions that are read at the same time
_NEW_LOAD_S: Final = 1.0  # how long whoever first needs the topic waits for its empty partitions to be loaded


class Partitions(Generic[Machine]):
    """One coordinator's. All methods belong to the event loop's thread."""

    def __init__(
        self,
        topic: str,
        plane: Log,
        topics: Topics,
        clock: Clock,
        *,
        settings: LogSettings,
        sweep_ms: int,
        metrics: LogMetrics,
        count: int,
        configs: Mapping[str, str],
    ) -> None:
        """`count` and `configs`: the topic's, when it is made. `make`, to be set before the start, makes a partition's state machine."""
        self.timers = TimerQueue(clock.monotonic_ms, self._wind)
        self.runtimes: list[PartitionRuntime[Machine]] = []
        self.topic = topic
        self.make: Callable[[Run], Machine]
        self._topics = topics
        self._clock = clock
        self._host = Host(topic, plane, settings, sweep_ms, clock, self.timers, metrics)
        self._count = count
        self._configs = configs
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._opening: asyncio.Task[None] | None = None
        self._running = False

    # -- life -----------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to load the topic, if there is one."""
        self._running = True
        topic = self._topics.find(self.topic)
        if topic is not None:
            self._open(topic)

    async def stop(self) -> None:
        """Waits for what is on its way to the log, and sends whoever waits to look for another coordinator."""
        self._running = False
        if self._opening is not None:
            await asyncio.wait({self._opening})
        await asyncio.gather(*(runtime.close() for runtime in self.runtimes))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def ensure(self) -> None:
        """When this returns the topic exists, and can be used if it is new. Raises KafkaError COORDINATOR_NOT_AVAILABLE."""
        if self._opening is None:
            if self.runtimes:
                return
            if not self._running:
                raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
            self._opening = asyncio.get_running_loop().create_task(self._make_topic())
        await asyncio.shield(self._opening)
        if not self.runtimes:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)

    async def _make_topic(self) -> None:
        try:
            topic = await self._topics.ensure_internal_topic(self.topic, self._count, self._configs)
        except KafkaError as failure:
            log.error("%s can't be made: %s", self.topic, failure)
        except Exception:
            log.exception("%s can't be made", self.topic)
        else:
            self._open(topic)
            loads = [runtime.loading for runtime in self.runtimes if runtime.loading is not None]
            await asyncio.wait(loads, timeout=_NEW_LOAD_S)  # there is nothing to read
        finally:
            self._opening = None

    def _open(self, topic: Topic) -> None:
        turns = asyncio.Semaphore(_LOADS_MAX)
        self.runtimes = [PartitionRuntime(topic.topic_id, index, self._host, turns, self.make) for index in range(topic.partition_count)]
        for runtime in self.runtimes:
            runtime.load()

    # -- use ------------------------------------------------------------------------------------------------------------------------

    async def of(self, key: str) -> PartitionRuntime[Machine]:
        """The partition of a key, loaded. Raises KafkaError."""
        if not self.runtimes or self._opening is not None:
            await self.ensure()
        runtime = self.holding(key)
        runtime.check()
        return runtime

    def ready(self, key: str) -> PartitionRuntime[Machine] | None:
        """The partition of a key, if it can be used at once."""
        if not self.runtimes or self._opening is not None:
            return None
        runtime = self.holding(key)
        return runtime if runtime.status is Status.ACTIVE else None

    def holding(self, key: str) -> PartitionRuntime[Machine]:
        """The partition of a key, in whatever status; the topic exists."""
        return self.runtimes[partition_of(key, len(self.runtimes))]

    def gauges(self) -> dict[str, int]:
        """How many timers are armed, and how many partitions are in each status."""
        gauges = {"timers": self.timers.armed}
        for status in Status:
            gauges[f"partitions_{status.value}"] = sum(runtime.status is status for runtime in self.runtimes)
        return gauges

    # -- time -----------------------------------------------------------------------------------------------------------------------

    def _wind(self) -> None:
        """Sets the alarm for the next timer, unless it is early enough already."""
        next_ms = self.timers.next_ms()
        if next_ms is None or (self._alarm is not None and self._alarm_ms <= next_ms):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ms = next_ms
        delay_s = max(next_ms - self._clock.monotonic_ms(), 0) / 1000
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self.tick)

    def tick(self) -> None:
        """Fires the timers that are due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.timers.run_due()
        if self._running:
            self._wind()
