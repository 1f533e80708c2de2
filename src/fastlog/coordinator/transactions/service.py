"""The transaction coordinator as the broker's handlers see it: requests in, responses out, every failure already an error code in them."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.coordinator.failures import shown
from fastlog.coordinator.partitions import Partitions
from fastlog.coordinator.runtime import Status
from fastlog.coordinator.transactions.machine import NeedsProducerId, Transactions
from fastlog.coordinator.transactions.markers import OFFSETS_TOPIC, Markers
from fastlog.coordinator.transactions.settings import Metrics, Settings
from fastlog.coordinator.transactions.state import EPOCH_BUMPS, NO_EPOCH, NO_PRODUCER_ID, STATE_OF_NAME, Partition
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastlog.coordinator.operation import Clock, Result, Run
    from fastlog.coordinator.ports import Log, OffsetsLog, Topics
    from fastlog.coordinator.producer_ids import ProducerIds
    from fastlog.coordinator.runtime import PartitionRuntime
    from fastlog.coordinator.transactions.machine import Entry

log = logging.getLogger("fastlog.transactions")

Message: TypeAlias = dict[str, Any]
STATE_TOPIC: Final = "__transaction_state"


class TransactionService:
    """The transactional ids of this broker. All methods belong to the event loop's thread.

    `__transaction_state` is made when the first request needs it. The caller sees to what concerns topics (whether they exist).
    """

    def __init__(
        self,
        plane: Log,
        topics: Topics,
        values: Mapping[str, Any],
        clock: Clock,
        *,
        producer_ids: ProducerIds,
        offsets: OffsetsLog,
    ) -> None:
        """`values`: broker configs by Kafka's name; those that are missing have Kafka's defaults. `offsets`: the group coordinator."""
        self.settings = Settings.of(values)
        self._values = values  # an administrator may change some while the broker runs
        self.metrics = Metrics()
        self._plane = plane
        self._topics = topics
        self._clock = clock
        self._producer_ids = producer_ids
        self._offsets = offsets
        self._markers = Markers(plane, topics, offsets, self.metrics)
        self._partitions: Partitions[Transactions] = Partitions(
            STATE_TOPIC,
            plane,
            topics,
            clock,
            settings=self.settings,
            sweep_ms=self.settings.expiration_check_ms,
            metrics=self.metrics,
            count=self.settings.topic_partitions,
            configs={
                "cleanup.policy": "compact",
                "compression.type": "uncompressed",
                "segment.bytes": str(self.settings.topic_segment_size),
            },
        )
        self._partitions.make = self._make
        self._timeouts = self._partitions.timers.timer(self._abort_timed_out)
        self._aborting: set[asyncio.Task[None]] = set()

    # -- life -----------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to load `__transaction_state`; requests are answered from now on (COORDINATOR_LOAD_IN_PROGRESS until it is read). The
        group coordinator must have been started."""
        self._partitions.start()
        self._timeouts.arm(self.settings.timeout_check_ms)

    async def stop(self) -> None:
        """Waits for what is on its way to the log. Must come before the group coordinator's."""
        self._timeouts.disarm()
        await asyncio.gather(*self._aborting, return_exceptions=True)
        await self._markers.stop()
        await self._partitions.stop()

    async def ensure_topic(self) -> None:
        """When this returns `__transaction_state` exists, and can be used if it is new. Raises KafkaError COORDINATOR_NOT_AVAILABLE."""
        await self._partitions.ensure()

    def tick(self) -> None:
        """Fires the timers that are due."""
        self._partitions.tick()

    def gauges(self) -> dict[str, int]:
        """How many of each there are now."""
        shards = [runtime.shard for runtime in self._partitions.runtimes]
        return {
            "ids": sum(len(shard.entries) for shard in shards),
            "ongoing": sum(shard.ongoing for shard in shards),
            "completing": len(self._markers),
            **self._partitions.gauges(),
        }

    def _make(self, run: Run) -> Transactions:
        return Transactions(self.settings, self._clock, self.metrics, self._decided)

    def _decided(self, entry: Entry) -> None:
        runtime = self._partitions.holding(entry.transactional_id)
        self._markers.start(runtime, runtime.leader_epoch, entry)

    # -- operations -----------------------------------------------------------------------------------------------------------------

    async def _write(self, runtime: PartitionRuntime[Transactions], operation: Callable[[int | None], Result]) -> Result:
        """Runs an operation that may need a new producer id, and waits for the log. Raises KafkaError."""
        try:
            return await runtime.write(lambda: operation(None))
        except NeedsProducerId:
            new_id = await self._producer_ids.next_id()
            return await runtime.write(lambda: operation(new_id))

    async def _write_when_idle(
        self, runtime: PartitionRuntime[Transactions], transactional_id: str, operation: Callable[[], Result]
    ) -> Result:
        """The same for one that the end of the transaction before may hold up: it waits for that, for a while. Raises KafkaError.

        Kafka's clients try again every 20 ms, and Kafka's broker does so for them (add.partitions.to.txn.retry.backoff.ms).
        """
        until_ms = self._clock.monotonic_ms() + self.settings.wait_max_ms
        while True:
            try:
                return await runtime.write(operation)
            except KafkaError as failure:
                left_ms = until_ms - self._clock.monotonic_ms()
                if failure.code is not Error.CONCURRENT_TRANSACTIONS or left_ms <= 0:
                    raise
            entry = runtime.shard.entries.get(transactional_id)
            if entry is None or entry.pending is None:
                raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
            if not await _wait(entry, left_ms / 1000):
                raise KafkaError(Error.CONCURRENT_TRANSACTIONS)

    async def init_producer(self, transactional_id: str, timeout_ms: int, expected: tuple[int, int] | None) -> Message:
        """An InitProducerId response. `expected`: the producer id and epoch that the producer has."""
        try:
            if not transactional_id:
                raise KafkaError(Error.INVALID_REQUEST)
            if not 0 < timeout_ms <= self.settings.timeout_max_ms:
                raise KafkaError(Error.INVALID_TRANSACTION_TIMEOUT)
            runtime = await self._partitions.of(transactional_id)
            shard = runtime.shard
            result = await self._write(runtime, lambda new_id: shard.init_producer(transactional_id, timeout_ms, expected, new_id))
        except KafkaError as failure:
            return _failed(failure)
        assert result.response is not None
        return {"producer_id": NO_PRODUCER_ID, "producer_epoch": NO_EPOCH} | result.response

    async def add_partitions(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Sequence[Partition], *, client_version: int
    ) -> Error:
        """Adds partitions that exist to the producer's transaction."""
        try:
            if not transactional_id:
                raise KafkaError(Error.INVALID_REQUEST)
            runtime = await self._partitions.of(transactional_id)
            added = frozenset(partitions)
            await self._write_when_idle(
                runtime,
                transactional_id,
                lambda: runtime.shard.add_partitions(transactional_id, producer_id, epoch, added, client_version),
            )
        except KafkaError as failure:
            return shown(failure.code)
        return Error.NONE

    async def verify_partitions(self, transactional_id: str, producer_id: int, epoch: int, partitions: Sequence[Partition]) -> list[Error]:
        """Whether each partition is in the producer's transaction: NONE, or why not."""
        try:
            if not transactional_id:
                raise KafkaError(Error.INVALID_REQUEST)
            runtime = await self._partitions.of(transactional_id)
            return runtime.shard.verify_partitions(transactional_id, producer_id, epoch, partitions)
        except KafkaError as failure:
            return [shown(failure.code)] * len(partitions)

    async def check(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Sequence[Partition], *, add: bool
    ) -> list[Error]:
        """What a producer's first write to partitions depends on (KIP-890): that they are in its transaction; `add`: they are put there."""
        if add:
            error = await self.add_partitions(transactional_id, producer_id, epoch, partitions, client_version=EPOCH_BUMPS)
            return [error] * len(partitions)
        if not self._values.get("transaction.partition.verification.enable", True):
            return [Error.NONE] * len(partitions)
        return await self.verify_partitions(transactional_id, producer_id, epoch, partitions)

    async def verify_offsets(
        self, transactional_id: str, producer_id: int, producer_epoch: int, partition: Partition, *, add: bool
    ) -> Error:
        """The same for offsets that are committed inside a transaction, see `Verifier`."""
        (error,) = await self.check(transactional_id, producer_id, producer_epoch, [partition], add=add)
        return Error.INVALID_PRODUCER_EPOCH if error is Error.PRODUCER_FENCED else error

    async def add_offsets(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> Error:
        """AddOffsetsToTxn: the partition of a group's offsets."""
        try:
            await self._offsets.ensure_topic()
        except KafkaError as failure:
            return shown(failure.code)
        partition = (OFFSETS_TOPIC, self._offsets.partition_of(group_id))
        return await self.add_partitions(transactional_id, producer_id, epoch, [partition], client_version=0)

    async def end_transaction(self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool, client_version: int) -> Message:
        """An EndTxn response; it says that the decision is made, not that it is complete."""
        try:
            if not transactional_id:
                raise KafkaError(Error.INVALID_REQUEST)
            runtime = await self._partitions.of(transactional_id)
            end = partial(runtime.shard.end_transaction, transactional_id, producer_id, epoch, commit=commit, client_version=client_version)
            result = await self._write(runtime, lambda new_id: end(new_id=new_id))
        except KafkaError as failure:
            return _failed(failure)
        assert result.response is not None
        return result.response

    # -- time -----------------------------------------------------------------------------------------------------------------------

    def _abort_timed_out(self) -> None:
        self._timeouts.arm(self.settings.timeout_check_ms)
        for runtime in self._partitions.runtimes:
            if runtime.status is not Status.ACTIVE:
                continue
            for entry in runtime.shard.timed_out():
                task = asyncio.get_running_loop().create_task(self._abort(runtime, entry))
                self._aborting.add(task)
                task.add_done_callback(self._aborting.discard)

    async def _abort(self, runtime: PartitionRuntime[Transactions], entry: Entry) -> None:
        try:
            await self._write(runtime, partial(runtime.shard.abort, entry))
        except KafkaError as failure:
            log.warning("%s: can't be aborted: %s", runtime.name, failure)  # it is tried again when the next look finds it

    # -- administration -------------------------------------------------------------------------------------------------------------

    async def describe(self, transactional_ids: Sequence[str]) -> list[Message]:
        """DescribeTransactions states, in the order asked."""
        described: list[Message] = []
        for transactional_id in transactional_ids:
            try:
                if not transactional_id:
                    raise KafkaError(Error.INVALID_REQUEST)
                described.append((await self._partitions.of(transactional_id)).shard.describe(transactional_id))
            except KafkaError as failure:
                described.append({"error_code": shown(failure.code), "transactional_id": transactional_id})
        return described

    async def list(self, states: Sequence[str], producer_ids: Sequence[int], duration_ms: int, pattern: str | None) -> Message:
        """A ListTransactions response. Raises KafkaError INVALID_REGULAR_EXPRESSION."""
        try:
            matches = re.compile(pattern).fullmatch if pattern else None
        except re.error as failure:
            why = f"Transaction ID pattern `{pattern}` is not a valid regular expression: {failure}."
            raise KafkaError(Error.INVALID_REGULAR_EXPRESSION, why) from None
        if any(runtime.status is Status.LOADING for runtime in self._partitions.runtimes):
            return {"error_code": Error.COORDINATOR_LOAD_IN_PROGRESS}
        wanted = {STATE_OF_NAME[name] for name in states if name in STATE_OF_NAME}
        ids = set(producer_ids)
        now_ms = self._clock.now_ms()
        listed = [
            {"transactional_id": key, "producer_id": entry.value.producer_id, "transaction_state": entry.value.state.shown}
            for runtime in self._partitions.runtimes
            for key, entry in runtime.shard.entries.items()
            if (not ids or entry.value.producer_id in ids)
            and (not states or entry.value.state in wanted)
            and (duration_ms < 0 or now_ms - entry.value.start_ms > duration_ms)
            and (matches is None or matches(key) is not None)
        ]
        unknown = [name for name in states if name not in STATE_OF_NAME]
        return {"error_code": Error.NONE, "unknown_state_filters": unknown, "transaction_states": listed}


async def _wait(entry: Entry, timeout_s: float) -> bool:
    """Whether the entry came to rest in time."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def settle(at_rest: bool) -> None:
        if not future.done():
            future.set_result(at_rest)

    entry.waiters.append(partial(settle, True))
    alarm = loop.call_later(timeout_s, settle, False)
    try:
        return await future
    finally:
        alarm.cancel()


def _failed(failure: KafkaError) -> Message:
    return {"error_code": shown(failure.code), "producer_id": NO_PRODUCER_ID, "producer_epoch": NO_EPOCH}
