"""The group coordinator as the broker's handlers see it: requests in, responses out, every failure already an error code in them."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastlog.coordinator.failures import shown, shown_to_fetch
from fastlog.coordinator.hashing import partition_of
from fastlog.coordinator.metrics import Metrics
from fastlog.coordinator.operation import Environment
from fastlog.coordinator.producer_ids import ProducerIds
from fastlog.coordinator.runtime import PartitionRuntime, Status
from fastlog.coordinator.settings import Settings
from fastlog.coordinator.timers import TimerQueue
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastlog.coordinator.classic import Message
    from fastlog.coordinator.operation import Client, Clock, Result
    from fastlog.coordinator.ports import Log, Topic, Topics
    from fastlog.coordinator.shard import Shard

log = logging.getLogger("fastlog.groups")

OFFSETS_TOPIC: Final = "__consumer_offsets"
_LOADS_MAX: Final = 4  # partitions that are read at the same time
_NEW_LOAD_S: Final = 1.0  # how long whoever first needs the topic waits for its empty partitions to be loaded


class GroupService:
    """Groups, committed offsets and producer ids of this broker. All methods belong to the event loop's thread.

    `__consumer_offsets` is made when the first request needs it. Requests and responses are messages of the protocol; the caller sees to
    what concerns topics (whether they exist, their ids).
    """

    def __init__(
        self, plane: Log, topics: Topics, values: Mapping[str, Any], clock: Clock, *, reserve_block: Callable[[], Awaitable[range]]
    ) -> None:
        """`values`: broker configs by Kafka's name; those that are missing have Kafka's defaults.

        `reserve_block`: see `ProducerIds`.
        """
        self.producer_ids = ProducerIds(reserve_block)
        self.settings = Settings.of(values)
        self.metrics = Metrics()
        self._plane = plane
        self._topics = topics
        self._clock = clock
        self._timers = TimerQueue(clock.monotonic_ms, self._wind)
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._runtimes: list[PartitionRuntime] = []
        self._opening: asyncio.Task[None] | None = None
        self._running = False

    # -- life -----------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to load `__consumer_offsets`; requests are answered from now on (COORDINATOR_LOAD_IN_PROGRESS until it is read)."""
        self._running = True
        topic = self._topics.find(OFFSETS_TOPIC)
        if topic is not None:
            self._open(topic)

    async def stop(self) -> None:
        """Waits for what is on its way to the log, and sends whoever waits to look for another coordinator."""
        self._running = False
        if self._opening is not None:
            await asyncio.wait({self._opening})
        await asyncio.gather(*(runtime.close() for runtime in self._runtimes))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def ensure_topic(self) -> None:
        """When this returns `__consumer_offsets` exists, and can be used if it is new. Raises KafkaError COORDINATOR_NOT_AVAILABLE."""
        if self._opening is None:
            if self._runtimes:
                return
            if not self._running:
                raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
            self._opening = asyncio.get_running_loop().create_task(self._make_topic())
        await asyncio.shield(self._opening)
        if not self._runtimes:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)

    async def _make_topic(self) -> None:
        settings = self.settings
        configs = {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(settings.topic_segment_size),
        }
        try:
            topic = await self._topics.ensure_internal_topic(OFFSETS_TOPIC, settings.topic_partitions, configs)
        except KafkaError as failure:
            log.error("%s can't be made: %s", OFFSETS_TOPIC, failure)
        except Exception:
            log.exception("%s can't be made", OFFSETS_TOPIC)
        else:
            self._open(topic)
            loads = [runtime.loading for runtime in self._runtimes if runtime.loading is not None]
            await asyncio.wait(loads, timeout=_NEW_LOAD_S)  # there is nothing to read
        finally:
            self._opening = None

    def _open(self, topic: Topic) -> None:
        environment = Environment(self.settings, self._clock, self._timers, self.metrics)
        turns = asyncio.Semaphore(_LOADS_MAX)
        self._runtimes = [
            PartitionRuntime(topic.topic_id, index, self._plane, environment, turns) for index in range(topic.partition_count)
        ]
        for runtime in self._runtimes:
            runtime.load()

    def _wind(self) -> None:
        """Sets the alarm for the next timer, unless it is early enough already."""
        next_ms = self._timers.next_ms()
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
        self._timers.run_due()
        if self._running:
            self._wind()

    # -- reading --------------------------------------------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """How many of each there are now."""
        shards = [runtime.shard for runtime in self._runtimes]
        gauges = {
            "groups": sum(len(shard.groups) for shard in shards),
            "members": sum(shard.member_count for shard in shards),
            "offsets": sum(shard.offsets.count for shard in shards),
            "timers": self._timers.armed,
        }
        for status in Status:
            gauges[f"partitions_{status.value}"] = sum(runtime.status is status for runtime in self._runtimes)
        return gauges

    async def _runtime(self, group_id: str) -> PartitionRuntime:
        """The group's partition, loaded. Raises KafkaError."""
        if not self._runtimes or self._opening is not None:
            await self.ensure_topic()
        runtime = self._runtimes[partition_of(group_id, len(self._runtimes))]
        runtime.check()
        return runtime

    # -- members --------------------------------------------------------------------------------------------------------------------

    async def join_group(self, client: Client, request: Message) -> Message:
        """Waits as long as the rebalance takes."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID, "member_id": request["member_id"]}
        if not self.settings.session_min_ms <= request["session_timeout_ms"] <= self.settings.session_max_ms:
            return {"error_code": Error.INVALID_SESSION_TIMEOUT, "member_id": request["member_id"]}
        if client.version == 0:
            request = request | {"rebalance_timeout_ms": request["session_timeout_ms"]}
        return await self._wait(request["group_id"], lambda shard, reply: shard.joining.join(client, request, reply))

    async def sync_group(self, request: Message) -> Message:
        """Waits until the leader's assignment is stored."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        return await self._wait(request["group_id"], lambda shard, reply: shard.membership.sync(request, reply))

    async def _wait(self, group_id: str, operation: Callable[[Shard, Callable[[Message], None]], Result]) -> Message:
        """Starts an operation that answers through a callback, and waits for that."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        try:
            runtime = await self._runtime(group_id)
            runtime.start_operation(partial(operation, runtime.shard, partial(_answer, answer)))
        except KafkaError as failure:
            if not answer.done():
                return {"error_code": shown(failure.code)}
        return await answer

    async def heartbeat(self, request: Message) -> Message:
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        try:
            runtime = await self._runtime(request["group_id"])
        except KafkaError as failure:
            # While the group is being loaded nobody knows better; the member's session starts when it has been.
            return {"error_code": Error.NONE if failure.code is Error.COORDINATOR_LOAD_IN_PROGRESS else shown(failure.code)}
        return {"error_code": runtime.shard.membership.heartbeat(request)}

    async def leave_group(self, request: Message) -> Message:
        """`request` in the form of version 3 and later, with `members`."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        try:
            runtime = await self._runtime(request["group_id"])
            result = await runtime.write(lambda: runtime.shard.membership.leave(request))
        except KafkaError as failure:
            return {"error_code": shown(failure.code)}
        assert result.response is not None
        return result.response

    # -- offsets --------------------------------------------------------------------------------------------------------------------

    async def commit_offsets(self, client: Client, request: Message) -> Message:
        """Every partition of the request exists, and every topic has name and id."""
        try:
            runtime = await self._runtime(request["group_id"])
            result = await runtime.write(lambda: runtime.shard.offsets.commit(client, request))
        except KafkaError as failure:
            error = shown(failure.code)
            return {
                "topics": [
                    {
                        "name": topic["name"],
                        "topic_id": topic["topic_id"],
                        "partitions": [{"partition_index": each["partition_index"], "error_code": error} for each in topic["partitions"]],
                    }
                    for topic in request["topics"]
                ]
            }
        assert result.response is not None
        return result.response

    async def fetch_offsets(self, group_id: str, topics: list[Message] | None, *, require_stable: bool) -> list[Message]:
        """OffsetFetch topics, each with name and id as asked; `topics` None: all. `require_stable`: waits for commits under way.

        Raises KafkaError for what concerns the whole group.
        """
        try:
            runtime = await self._runtime(group_id)
            if require_stable:
                await runtime.settled()
                runtime.check()
            return runtime.shard.offsets.fetch(group_id, topics)
        except KafkaError as failure:
            raise KafkaError(shown_to_fetch(failure.code), failure.message) from failure

    async def delete_offsets(self, request: Message) -> Message:
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        try:
            runtime = await self._runtime(request["group_id"])
            result = await runtime.write(lambda: runtime.shard.offsets.delete(request))
        except KafkaError as failure:
            return {"error_code": shown(failure.code)}
        assert result.response is not None
        return result.response

    def on_topic_deleted(self, name: str) -> None:
        """Offsets of a deleted topic go too, in the background; those in partitions that are being loaded, when they have been."""
        for runtime in self._runtimes:
            runtime.run_when_loaded(partial(runtime.shard.delete_topic, name))

    # -- administration -------------------------------------------------------------------------------------------------------------

    async def describe_groups(self, group_ids: list[str], version: int) -> list[Message]:
        """DescribeGroups groups, in the order asked."""
        described: list[Message] = []
        for group_id in group_ids:
            try:
                runtime = await self._runtime(group_id)
                described.append(runtime.shard.membership.describe(group_id, version))
            except KafkaError as failure:
                described.append({"group_id": group_id, "error_code": shown(failure.code)})
        return described

    async def list_groups(self, states: list[str], types: list[str]) -> Message:
        wanted_states = {state.strip().lower() for state in states}
        wanted_types = {kind.strip().lower() for kind in types}
        groups: list[Message] = []
        try:
            for runtime in self._runtimes:
                runtime.check()
                groups += runtime.shard.membership.listed(wanted_states, wanted_types)
        except KafkaError as failure:
            return {"error_code": shown(failure.code), "groups": []}
        return {"error_code": Error.NONE, "groups": groups}

    async def delete_groups(self, group_ids: list[str]) -> list[Message]:
        """DeleteGroups results, one for each group that is named."""
        by_runtime: dict[PartitionRuntime, list[str]] = {}
        results: list[Message] = []
        for group_id in dict.fromkeys(group_ids):
            try:
                by_runtime.setdefault(await self._runtime(group_id), []).append(group_id)
            except KafkaError as failure:
                results.append({"group_id": group_id, "error_code": shown(failure.code)})
        for deleted in await asyncio.gather(*(self._delete_groups(runtime, ids) for runtime, ids in by_runtime.items())):
            results += deleted
        return results

    async def _delete_groups(self, runtime: PartitionRuntime, group_ids: list[str]) -> list[Message]:
        try:
            result = await runtime.write(lambda: runtime.shard.delete_groups(group_ids))
        except KafkaError as failure:
            return [{"group_id": group_id, "error_code": shown(failure.code)} for group_id in group_ids]
        assert result.response is not None
        results: list[Message] = result.response["results"]
        return results


def _answer(future: asyncio.Future[Message], message: Message) -> None:
    if not future.done():  # its handler may have been cancelled
        future.set_result(message)
