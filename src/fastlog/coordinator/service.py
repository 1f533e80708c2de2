"""The group coordinator as the broker's handlers see it: requests in, responses out, every failure already an error code in them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastlog.coordinator.consumer_requests import check_heartbeat
from fastlog.coordinator.failures import shown, shown_to_fetch
from fastlog.coordinator.hashing import partition_of
from fastlog.coordinator.metrics import Metrics
from fastlog.coordinator.operation import Environment
from fastlog.coordinator.partitions import Partitions
from fastlog.coordinator.producer_ids import ProducerIds
from fastlog.coordinator.settings import GroupSettings, Settings
from fastlog.coordinator.shard import Shard
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastlog.coordinator.classic import Message
    from fastlog.coordinator.operation import Client, Clock, Marker, Result
    from fastlog.coordinator.ports import Log, Topics, Verifier
    from fastlog.coordinator.runtime import PartitionRuntime
    from fastlog.coordinator.standing import Give
    from fastlog.protocol.packing import Commit

OFFSETS_TOPIC: Final = "__consumer_offsets"
_ABORTABLE_FIRST: Final = 4  # TxnOffsetCommit from this version on knows TRANSACTION_ABORTABLE
_ADDING_FIRST: Final = 5  # and adds the partition to the transaction by itself (KIP-890)


class GroupService:
    """Groups, committed offsets and producer ids of this broker. All methods belong to the event loop's thread.

    `__consumer_offsets` is made when the first request needs it. Requests and responses are messages of the protocol; the caller sees to
    what concerns topics (whether they exist, their ids).
    """

    def __init__(
        self,
        plane: Log,
        topics: Topics,
        values: Mapping[str, Any],
        clock: Clock,
        *,
        reserve_block: Callable[[], Awaitable[range]],
        group_value: Callable[[str, str], int] | None = None,
    ) -> None:
        """`values`: broker configs by Kafka's name; those that are missing have Kafka's defaults.

        `reserve_block`: see `ProducerIds`. `group_value`: see `GroupSettings`.
        """
        self.producer_ids = ProducerIds(reserve_block)
        self.settings = Settings.of(values)
        self.metrics = Metrics()
        self._verifier: Verifier | None = None
        self._partitions: Partitions[Shard] = Partitions(
            OFFSETS_TOPIC,
            plane,
            topics,
            clock,
            settings=self.settings,
            sweep_ms=self.settings.retention_check_ms,
            metrics=self.metrics,
            count=self.settings.topic_partitions,
            configs={
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(self.settings.topic_segment_size),
            },
        )
        self._group_settings = GroupSettings(self.settings, group_value)
        environment = Environment(self.settings, clock, self._partitions.timers, self.metrics, topics, self._group_settings, plane.standing)
        self._partitions.make = partial(Shard, environment)

    # -- life -----------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to load `__consumer_offsets`; requests are answered from now on (COORDINATOR_LOAD_IN_PROGRESS until it is read)."""
        self._partitions.start()

    async def stop(self) -> None:
        """Waits for what is on its way to the log, and sends whoever waits to look for another coordinator."""
        await self._partitions.stop()

    async def ensure_topic(self) -> None:
        """When this returns `__consumer_offsets` exists, and can be used if it is new. Raises KafkaError COORDINATOR_NOT_AVAILABLE."""
        await self._partitions.ensure()

    def tick(self) -> None:
        """Fires the timers that are due."""
        self._partitions.tick()

    def verify_with(self, verifier: Verifier) -> None:
        """Who knows whether a producer may commit offsets in a transaction."""
        self._verifier = verifier

    # -- reading --------------------------------------------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """How many of each there are now."""
        shards = [runtime.shard for runtime in self._runtimes]
        return {
            "groups": sum(shard.group_count for shard in shards),
            "members": sum(shard.member_count for shard in shards),
            "offsets": sum(shard.offsets.count for shard in shards),
            "transactions": sum(shard.offsets.pending.transactions for shard in shards),
            **self._partitions.gauges(),
        }

    @property
    def _runtimes(self) -> list[PartitionRuntime[Shard]]:
        return self._partitions.runtimes

    async def _runtime(self, group_id: str) -> PartitionRuntime[Shard]:
        """The group's partition, loaded. Raises KafkaError."""
        return await self._partitions.of(group_id)

    # -- members --------------------------------------------------------------------------------------------------------------------

    async def join_group(self, client: Client, request: Message) -> Message:
        """Waits as long as the rebalance takes."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID, "member_id": request["member_id"]}
        if not self.settings.session_min_ms <= request["session_timeout_ms"] <= self.settings.session_max_ms:
            return {"error_code": Error.INVALID_SESSION_TIMEOUT, "member_id": request["member_id"]}
        if client.version == 0:
            request = request | {"rebalance_timeout_ms": request["session_timeout_ms"]}
        return await self._wait(request["group_id"], lambda shard, reply: shard.join(client, request, reply))

    async def sync_group(self, request: Message) -> Message:
        """Waits until the leader's assignment is stored."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        return await self._wait(request["group_id"], lambda shard, reply: shard.sync(request, reply))

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

    async def heartbeat(self, request: Message, give: Give | None = None) -> Message:
        """`give`: see `Give`."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        try:
            runtime = await self._runtime(request["group_id"])
        except KafkaError as failure:
            # While the group is being loaded nobody knows better; the member's session starts when it has been.
            return {"error_code": Error.NONE if failure.code is Error.COORDINATOR_LOAD_IN_PROGRESS else shown(failure.code)}
        error = runtime.shard.heartbeat(request)
        standing = runtime.shard.stand(request) if give is not None and error is Error.NONE else None
        if standing is not None:
            assert give is not None
            give(standing)
        return {"error_code": error}

    async def consumer_group_heartbeat(self, client: Client, request: Message, give: Give | None = None) -> Message:
        """Waits until what it brought about is in the log. `give`: see `Give`."""
        try:
            check_heartbeat(client.version, request, self.settings.consumer_assignors)
            runtime = await self._runtime(request["group_id"])
            result = await runtime.write(lambda: runtime.shard.heartbeats.heartbeat(client, request))
        except KafkaError as failure:
            return {"error_code": shown(failure.code), "error_message": failure.message or None}
        assert result.response is not None
        if give is not None and result.standing is not None:
            give(result.standing)
        return result.response

    async def leave_group(self, request: Message) -> Message:
        """`request` in the form of version 3 and later, with `members`."""
        if not request["group_id"]:
            return {"error_code": Error.INVALID_GROUP_ID}
        try:
            runtime = await self._runtime(request["group_id"])
            result = await runtime.write(lambda: runtime.shard.leave(request))
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
            return _refused(request, shown(failure.code))
        assert result.response is not None
        return result.response

    def begin_commit(self, client: Client, commit: Commit, names: list[str], answer: Callable[[Error], None]) -> bool:
        """`commit_offsets` of a request that was read in compiled code; `names`: of its topics. Gives the error code of all partitions to
        `answer`, now or when the log has them: nothing waits, which spares most of what a commit costs. False, with nothing done: the
        group's partition has to be waited for, or partitions differ in their answers."""
        runtime = self._partitions.ready(commit.head["group_id"])
        if runtime is None:
            return False
        try:
            result = runtime.shard.offsets.commit_read(client, commit, names)
        except KafkaError as failure:
            answer(shown(failure.code))
            return True
        if result is None:
            return False
        result.done = lambda error: answer(error if error is Error.NONE else shown(error))
        runtime.submit(result)
        return True

    async def fetch_offsets(
        self, group_id: str, topics: list[Message] | None, member_id: str | None = None, epoch: int = -1, *, require_stable: bool
    ) -> list[Message]:
        """OffsetFetch topics, each with name and id as asked; `topics` None: all. `require_stable`: waits for commits under way, and
        gives an error for what an open transaction may change.

        `member_id` and `epoch`: who asks, of a consumer group.

        Raises KafkaError for what concerns the whole group.
        """
        try:
            runtime = await self._runtime(group_id)
            if require_stable:
                await runtime.settled()
                runtime.check()
            runtime.shard.consumers.check_fetch(group_id, member_id, epoch)
            return runtime.shard.offsets.fetch(group_id, topics, require_stable=require_stable)
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

    # -- transactions ---------------------------------------------------------------------------------------------------------------

    def partition_of(self, group_id: str) -> int:
        """The partition of `__consumer_offsets`, which exists, that a group's offsets are in."""
        return partition_of(group_id, len(self._runtimes))

    async def commit_offsets_in_transaction(self, client: Client, request: Message) -> Message:
        """TxnOffsetCommit, as OffsetCommit; `request` has the field names of both."""
        group_id: str = request["group_id"]
        if not group_id:
            return _refused(request, Error.INVALID_GROUP_ID)
        try:
            runtime = await self._runtime(group_id)
            result = await self._commit_in_transaction(runtime, client, request)
        except KafkaError as failure:
            return _refused(request, shown(failure.code))
        assert result.response is not None
        return result.response

    async def _commit_in_transaction(self, runtime: PartitionRuntime[Shard], client: Client, request: Message) -> Result:
        offsets = runtime.shard.offsets
        producer_id: int = request["producer_id"]
        epoch: int = request["producer_epoch"]
        if offsets.pending.is_ongoing(producer_id, epoch):
            return await runtime.write(lambda: offsets.commit_in_transaction(client, request))
        verification = offsets.pending.verification(producer_id)
        assert self._verifier is not None
        error = await self._verifier.verify_offsets(
            request["transactional_id"],
            producer_id,
            epoch,
            (OFFSETS_TOPIC, runtime.partition),
            add=client.version >= _ADDING_FIRST,
        )
        if error is Error.TRANSACTION_ABORTABLE and client.version < _ABORTABLE_FIRST:
            error = Error.INVALID_TXN_STATE
        if error is not Error.NONE:
            raise KafkaError(error)

        def commit() -> Result:
            # Where the coordinator adds, the answer may have waited for the end of the transaction before; the epoch is of this one only.
            if client.version < _ADDING_FIRST and not offsets.pending.is_verified(producer_id, verification):
                raise KafkaError(Error.INVALID_TXN_STATE)
            result = offsets.commit_in_transaction(client, request)
            offsets.pending.going_on(producer_id, epoch)
            return result

        return await runtime.write(commit)

    async def end_transaction(self, partition: int, marker: Marker) -> Error:
        """Writes the end of a producer's transaction to a partition of `__consumer_offsets`: its offsets hold then, or are dropped."""
        if not 0 <= partition < len(self._runtimes):
            return Error.UNKNOWN_TOPIC_OR_PARTITION
        runtime = self._runtimes[partition]
        try:
            runtime.check()
            runtime.shard.offsets.pending.ending(marker.producer_id)
            await runtime.write_marker(marker)
        except KafkaError as failure:
            return shown(failure.code)
        return Error.NONE

    # -- topics ---------------------------------------------------------------------------------------------------------------------

    async def on_settings_change(self, group_id: str = "") -> None:
        """Somebody changed the settings of a group, or of the broker."""
        self._group_settings.forget()
        for runtime in self._runtimes:
            runtime.shard.consumers.on_settings_change()

    def on_topic_change(self, name: str, *, created: bool) -> None:
        """A topic came, got more partitions, or went."""
        for runtime in self._runtimes:
            runtime.shard.consumers.on_topic_change(name, created=created)

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
                is_consumer = group_id in runtime.shard.consumers.groups
                described.append(runtime.shard.membership.describe(group_id, version, is_consumer=is_consumer))
            except KafkaError as failure:
                described.append({"group_id": group_id, "error_code": shown(failure.code)})
        return described

    async def describe_consumer_groups(self, group_ids: list[str]) -> list[Message]:
        """ConsumerGroupDescribe groups, in the order asked."""
        described: list[Message] = []
        for group_id in group_ids:
            if not group_id:
                described.append({"group_id": "", "error_code": Error.INVALID_GROUP_ID})
                continue
            try:
                runtime = await self._runtime(group_id)
                await runtime.settled()
                runtime.check()
                described.append(runtime.shard.consumers.describe(group_id))
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
                groups += runtime.shard.listed(wanted_states, wanted_types)
        except KafkaError as failure:
            return {"error_code": shown(failure.code), "groups": []}
        return {"error_code": Error.NONE, "groups": groups}

    async def delete_groups(self, group_ids: list[str]) -> list[Message]:
        """DeleteGroups results, one for each group that is named."""
        by_runtime: dict[PartitionRuntime[Shard], list[str]] = {}
        results: list[Message] = []
        for group_id in dict.fromkeys(group_ids):
            try:
                by_runtime.setdefault(await self._runtime(group_id), []).append(group_id)
            except KafkaError as failure:
                results.append({"group_id": group_id, "error_code": shown(failure.code)})
        for deleted in await asyncio.gather(*(self._delete_groups(runtime, ids) for runtime, ids in by_runtime.items())):
            results += deleted
        return results

    async def _delete_groups(self, runtime: PartitionRuntime[Shard], group_ids: list[str]) -> list[Message]:
        try:
            result = await runtime.write(lambda: runtime.shard.delete_groups(group_ids))
        except KafkaError as failure:
            return [{"group_id": group_id, "error_code": shown(failure.code)} for group_id in group_ids]
        assert result.response is not None
        results: list[Message] = result.response["results"]
        return results


def _refused(request: Message, error: Error) -> Message:
    """The same error for every partition of a commit."""
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


def _answer(future: asyncio.Future[Message], message: Message) -> None:
    if not future.done():  # its handler may have been cancelled
        future.set_result(message)
