"""Brings decided transactions to their end: a marker into every partition, then the record that says so."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastlog.coordinator.operation import Marker
from fastlog.coordinator.printable import printable
from fastlog.coordinator.runtime import Status
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastlog.coordinator.ports import Log, OffsetsLog, Topics
    from fastlog.coordinator.runtime import PartitionRuntime
    from fastlog.coordinator.transactions.machine import Entry, Transactions
    from fastlog.coordinator.transactions.settings import Metrics
    from fastlog.coordinator.transactions.state import Partition

log = logging.getLogger("fastlog.transactions")

_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 5.0
_NEEDLESS: Final = frozenset((Error.UNKNOWN_TOPIC_OR_PARTITION, Error.UNKNOWN_TOPIC_ID))
"""The partition is gone, and the transaction's records with it."""
_OVERTAKEN: Final = frozenset((Error.INVALID_PRODUCER_EPOCH, Error.TRANSACTION_COORDINATOR_FENCED))
"""The partition has seen a newer epoch of the producer or of the coordinator: it has had an end to this transaction, and won't take
another one however often it is asked."""
OFFSETS_TOPIC: Final = "__consumer_offsets"


class Markers:
    """One task for each decided transaction, until it is complete or its partition of `__transaction_state` is loaded again."""

    def __init__(self, plane: Log, topics: Topics, offsets: OffsetsLog, metrics: Metrics) -> None:
        self._plane = plane
        self._topics = topics
        self._offsets = offsets
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, runtime: PartitionRuntime[Transactions], coordinator_epoch: int, entry: Entry) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(runtime, coordinator_epoch, entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """What is not finished is taken up at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _finish(self, runtime: PartitionRuntime[Transactions], coordinator_epoch: int, entry: Entry) -> None:
        txn = entry.value
        marker = Marker(txn.producer_id, txn.epoch, coordinator_epoch, txn.committed, txn.client_version)

        def current() -> bool:
            return runtime.status is Status.ACTIVE and runtime.shard.entries.get(entry.transactional_id) is entry

        partitions = list(entry.unmarked)
        if len(partitions) == 1:  # most transactions: spare the tasks
            await self._mark(entry, partitions[0], marker, current)
        else:
            await asyncio.gather(*(self._mark(entry, partition, marker, current) for partition in partitions))
        await _insist(lambda: self._complete(runtime, entry), current, f"{printable(entry.transactional_id)}: its end can't be stored")

    async def _complete(self, runtime: PartitionRuntime[Transactions], entry: Entry) -> Error:
        try:
            await runtime.write(lambda: runtime.shard.complete(entry))
        except KafkaError as failure:
            return failure.code
        return Error.NONE

    async def _mark(self, entry: Entry, partition: Partition, marker: Marker, current: Callable[[], bool]) -> None:
        await _insist(lambda: self._write(partition, marker), current, f"{partition[0]}-{partition[1]}: no transaction marker")
        entry.unmarked.discard(partition)

    async def _write(self, partition: Partition, marker: Marker) -> Error:
        """One attempt; NONE when the partition needs no other."""
        name, index = partition
        topic = self._topics.find(name)
        if topic is None:
            return Error.NONE
        if name == OFFSETS_TOPIC:
            error = await self._offsets.end_transaction(index, marker)
        else:
            outcome = await self._plane.write_txn_marker(
                topic.topic_id,
                index,
                producer_id=marker.producer_id,
                producer_epoch=marker.epoch,
                coordinator_epoch=marker.coordinator_epoch,
                commit=marker.commit,
                version=marker.version,
            )
            error = outcome.error
        if error is Error.NONE:
            self._metrics.markers_written += 1
        elif error in _OVERTAKEN:
            log.warning(
                "%s-%d: the marker of producer %d, epoch %d is refused: %s", *partition, marker.producer_id, marker.epoch, error.name
            )
        elif error not in _NEEDLESS:
            self._metrics.marker_errors += 1
            return error
        return Error.NONE


async def _insist(attempt: Callable[[], Awaitable[Error]], current: Callable[[], bool], what: str) -> None:
    """Tries until it succeeds, or it is somebody else's task."""
    delay_s = _RETRY_FIRST_S
    while True:
        error = await attempt()
        if error is Error.NONE:
            return
        if not current():
            raise asyncio.CancelledError
        if error is not Error.COORDINATOR_LOAD_IN_PROGRESS:
            log.warning("%s: %s; trying again", what, error.name)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _RETRY_MAX_S)
