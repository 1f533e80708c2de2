"""Runs the coordinator of one partition against its log: loads it, appends what operations return, applies what the log accepts.

One append is under way at a time; what comes meanwhile goes out together in the next one. So operations are applied in the order of the
log, and when an append fails it is known what was in it: it and all behind it fail. Unless the log is certain not to have taken the
failed batch, the partition is loaded again, for then only the log knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from fastlog.coordinator.loader import LogLoader
from fastlog.coordinator.operation import Host, Marker, Producer, Result, StateMachine
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.packing import pairs_bytes
from fastlog.protocol.records import TRANSACTIONAL, build_pairs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from fastlog.coordinator.operation import Run
    from fastlog.coordinator.ports import AppendResult

log = logging.getLogger("fastlog.groups")

_BATCH_OVERHEAD: Final = 61  # bytes of a record batch without records
_RECORD_OVERHEAD: Final = 40  # more than a record's own fields take
_QUEUE_SIZE_MAX: Final = 64 * 1024 * 1024  # bytes waiting for the log
_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 10.0

Machine = TypeVar("Machine", bound=StateMachine)


class Status(Enum):
    LOADING = "loading"
    ACTIVE = "active"
    FAILED = "failed"  # could not be loaded; tried again
    CLOSED = "closed"


_PRODUCERS_OWN: Final = frozenset(
    (
        Error.INVALID_PRODUCER_EPOCH,
        Error.INVALID_PRODUCER_ID_MAPPING,
        Error.INVALID_TXN_STATE,
        Error.PRODUCER_FENCED,
        Error.TRANSACTION_COORDINATOR_FENCED,
        Error.UNKNOWN_PRODUCER_ID,
    )
)
"""What the log refuses a transactional write for: its producer's fault, of which nothing else in the queue knows or depends on."""

_REFUSAL: Final = {
    Status.LOADING: Error.COORDINATOR_LOAD_IN_PROGRESS,
    Status.FAILED: Error.COORDINATOR_NOT_AVAILABLE,
    Status.CLOSED: Error.NOT_COORDINATOR,
}


@dataclass(slots=True)
class _Write:
    """An operation's records on their way. A divisible operation's are several of these, of which the last has the result."""

    records: list[Any]
    encoded: list[tuple[bytes, bytes | None]]
    size: int
    result: Result
    ends: bool
    future: asyncio.Future[None] | None
    marker: Marker | None = None  # instead of records

    @property
    def producer(self) -> Producer | None:
        return self.result.producer

    def goes_with(self, other: _Write) -> bool:
        """Whether both may be in one batch."""
        return self.marker is None and other.marker is None and self.producer == other.producer


class PartitionRuntime(Generic[Machine]):
    """One partition of a coordinator's log. All methods belong to the event loop's thread."""

    def __init__(self, topic_id: UUID, partition: int, host: Host, turns: asyncio.Semaphore, make: Callable[[Run], Machine]) -> None:
        """`turns`: how many partitions may be read at the same time, each through a buffer of its own. `make`: makes the state machine,
        which is given a way to run operations that no request asked for."""
        self.name = f"{host.topic}-{partition}"
        self.partition = partition
        self.status = Status.LOADING
        self.shard = make(self.run)
        self._topic_id = topic_id
        self._plane = host.plane
        self._turns = turns
        self._settings = host.settings
        self._sweep_ms = host.sweep_ms
        self._clock = host.clock
        self._metrics = host.metrics
        self._queue: deque[_Write] = deque()
        self._queue_size = 0
        self._writing = False
        self._rested: asyncio.Future[None] | None = None  # to be told when nothing is being written any more
        self._under_way: tuple[asyncio.Future[AppendResult], list[_Write]] | None = None
        self._append_size = 0  # bytes of the append that is under way
        self._due = 0.0  # when it must have ended, by the loop's clock
        self._alarm: asyncio.TimerHandle | None = None
        self.loading: asyncio.Task[None] | None = None
        self._late: asyncio.Future[AppendResult] | None = None  # an append that took longer than anybody waits for
        self._log_end = 0
        self._failing = Error.NONE  # what the last append ended with
        self._after_load: list[Callable[[], Result]] = []
        self._sweep_timer = host.timers.timer(self._sweep)

    @property
    def leader_epoch(self) -> int:
        positions = self._plane.positions(self._topic_id, self.partition)
        return -1 if positions is None else positions.leader_epoch

    # -- operations -----------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises KafkaError unless the partition is loaded."""
        if self.status is not Status.ACTIVE:
            raise KafkaError(_REFUSAL[self.status])

    def start_operation(self, operation: Callable[[], Result]) -> Result:
        """Runs an operation and queues its records, without waiting for them. Raises KafkaError."""
        self.check()
        result = operation()
        self._submit(result, None)
        return result

    def submit(self, result: Result) -> None:
        """Queues the records of an operation that has been run; its `done` is told how that ended, now if it can't be queued. Only while
        the partition is loaded."""
        with contextlib.suppress(KafkaError):
            self._submit(result, None)

    async def write(self, operation: Callable[[], Result]) -> Result:
        """Runs an operation and waits until the log has accepted its records. Raises KafkaError, also when the append fails."""
        self.check()
        result = operation()
        if result.records:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._submit(result, future)
            await future
        else:
            self._submit(result, None)
        return result

    async def write_marker(self, marker: Marker) -> None:
        """Ends a transaction here, after all that is on its way. Raises KafkaError."""
        self.check()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Write([], [], 0, Result(), True, future, marker))
        self._start_writer()
        await future

    async def settled(self) -> None:
        """Waits for all that is on its way now. Raises KafkaError when it fails."""
        self.check()
        if not self._writing:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Write([], [], 0, Result(), True, future))
        await future

    def run(self, operation: Callable[[], Result]) -> None:
        """Runs an operation that nobody waits for: a timer's, or what follows from a failure."""
        if self.status is not Status.ACTIVE:
            return
        try:
            self._submit(operation(), None)
        except KafkaError as failure:
            log.warning("%s: %s", self.name, failure)

    def run_when_loaded(self, operation: Callable[[], Result]) -> None:
        if self.status is Status.ACTIVE:
            self.run(operation)
        elif self.status is not Status.CLOSED:
            self._after_load.append(operation)

    def _submit(self, result: Result, future: asyncio.Future[None] | None) -> None:
        if not result.records:
            if result.done is not None:
                result.done(Error.NONE)
            return
        try:
            writes = self._encode(result, future)
        except KafkaError as failure:
            if result.done is not None:
                result.done(failure.code)
            raise
        if result.at_once and result.replay:
            for record in result.records:
                self.shard.replay(record)
        for write in writes:
            self.shard.begin(write.records)
            self._queue.append(write)
            self._queue_size += write.size
        self._start_writer()

    def _start_writer(self) -> None:
        """Appends in the event loop's next turn, so that what comes in this one goes out together."""
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write_next)

    def _encode(self, result: Result, future: asyncio.Future[None] | None) -> list[_Write]:
        """Raises KafkaError for what can't be appended at all."""
        try:
            encoded = self.shard.encode(result.records) if result.encoded is None else result.encoded
        except ValueError as failure:
            raise KafkaError(Error.UNKNOWN_SERVER_ERROR, str(failure)) from failure
        size_max = self._settings.batch_size_max - _BATCH_OVERHEAD
        size = pairs_bytes(encoded) + _RECORD_OVERHEAD * len(encoded)
        if self._queue_size + size > _QUEUE_SIZE_MAX:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE, "too much is waiting for the log")
        if size <= size_max:
            return [_Write(result.records, encoded, size, result, True, future)]
        writes: list[_Write] = []
        write = _Write([], [], 0, result, False, None)
        for record, pair in zip(result.records, encoded, strict=True):
            size = _RECORD_OVERHEAD + len(pair[0]) + len(pair[1] or b"")
            if write.size + size > size_max:
                if not result.divisible or size > size_max:
                    raise KafkaError(Error.RECORD_LIST_TOO_LARGE, f"the records of one operation exceed {size_max} bytes")
                writes.append(write)
                write = _Write([], [], 0, result, False, None)
            write.records.append(record)
            write.encoded.append(pair)
            write.size += size
        write.ends = True
        write.future = future
        writes.append(write)
        return writes

    # -- appending ------------------------------------------------------------------------------------------------------------------

    def _write_next(self) -> None:
        """Appends what has gathered, and when the log has answered what came meanwhile. Callbacks and no task: an append costs little."""
        while self._queue:
            writes = self._take()
            try:
                under_way = self._append(writes)
            except Exception:
                log.exception("%s: append", self.name)
                self._ended(writes, Error.UNKNOWN_SERVER_ERROR, -1)
                continue
            if under_way is not None:
                self._under_way = under_way, writes
                under_way.add_done_callback(self._appended)
                return
            self._ended(writes, Error.NONE, self._log_end)
        self._writing = False
        if self._rested is not None:
            self._rested.set_result(None)
            self._rested = None

    def _appended(self, append: asyncio.Future[AppendResult]) -> None:
        if self._under_way is None or self._under_way[0] is not append:
            return  # nobody waits for it any more
        writes = self._under_way[1]
        self._under_way = None
        try:
            outcome = append.result()
        except Exception:
            log.exception("%s: append", self.name)
            error, base_offset = Error.UNKNOWN_SERVER_ERROR, -1
        else:
            error, base_offset = outcome.error, outcome.base_offset
        try:
            if error is Error.NONE:
                self._count(writes, base_offset)
            self._ended(writes, error, base_offset)
        finally:
            self._write_next()

    def _ended(self, writes: list[_Write], error: Error, base_offset: int) -> None:
        if error is Error.NONE:
            self._accept(writes, base_offset)
        elif error in _PRODUCERS_OWN and (writes[0].producer is not None or writes[0].marker is not None):
            self._refuse(writes, error)
        else:
            self._fail(writes, error)

    def _count(self, writes: list[_Write], base_offset: int) -> None:
        """The log has accepted these."""
        count = 1 if writes[0].marker is not None else sum(len(write.records) for write in writes)
        self._log_end = base_offset + count
        if self._failing is not Error.NONE:
            log.info("%s: appends succeed again", self.name)
            self._failing = Error.NONE
        self._metrics.append_batches += 1
        self._metrics.append_records += count
        self._metrics.append_bytes += self._append_size

    def _take(self) -> list[_Write]:
        """The next batch: as many operations as fit, at least one."""
        size = _BATCH_OVERHEAD
        writes: list[_Write] = []
        while self._queue:
            following = self._queue[0]
            if writes and (size + following.size > self._settings.batch_size_max or not following.goes_with(writes[0])):
                break
            write = self._queue.popleft()
            size += write.size
            self._queue_size -= write.size
            writes.append(write)
        return writes

    def _append(self, writes: list[_Write]) -> asyncio.Future[AppendResult] | None:
        """Starts an append; None: there is nothing to be appended."""
        marker = writes[0].marker
        if marker is not None:
            self._append_size = 0
            append = self._append_marker(marker)
        else:
            pairs = writes[0].encoded if len(writes) == 1 else [pair for write in writes for pair in write.encoded]
            if not pairs:
                return None
            batch = self._build(pairs, writes[0].producer)
            self._append_size = len(batch)
            append = self._plane.append(self._topic_id, self.partition, batch)
        self._watch()
        return asyncio.ensure_future(append)

    def _watch(self) -> None:
        """An append begins: it must have ended in time. One alarm serves many of them, as nearly all have ended long before."""
        loop = asyncio.get_running_loop()
        timeout_s = self._settings.commit_ms / 1000
        self._due = loop.time() + timeout_s
        if self._alarm is None:
            self._alarm = loop.call_later(timeout_s, self._look)

    def _look(self) -> None:
        """Gives an append up that takes too long."""
        self._alarm = None
        if self._under_way is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            self._alarm = loop.call_at(self._due, self._look)
            return
        self._late, writes = self._under_way
        self._under_way = None
        self._ended(writes, Error.REQUEST_TIMED_OUT, -1)
        self._write_next()

    def _build(self, pairs: list[tuple[bytes, bytes | None]], producer: Producer | None) -> bytes:
        now_ms = self._clock.now_ms()
        if producer is None:
            return build_pairs(pairs, timestamp_ms=now_ms)
        return build_pairs(
            pairs,
            timestamp_ms=now_ms,
            attributes=TRANSACTIONAL,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
        )

    def _append_marker(self, marker: Marker) -> Awaitable[AppendResult]:
        return self._plane.write_txn_marker(
            self._topic_id,
            self.partition,
            producer_id=marker.producer_id,
            producer_epoch=marker.epoch,
            coordinator_epoch=marker.coordinator_epoch,
            commit=marker.commit,
            version=marker.version,
        )

    def _accept(self, writes: list[_Write], base_offset: int) -> None:
        offset = base_offset
        for write in writes:
            self.shard.end(write.records)
            if write.marker is not None:
                self.shard.replay_marker(write.marker.producer_id, write.marker.commit)
            elif write.result.replay and not write.result.at_once:
                producer_id = write.producer.producer_id if write.producer is not None else -1
                self.shard.replay_all(write.records, offset, producer_id)
            offset += len(write.records)
            self._finish(write, Error.NONE)

    def _refuse(self, writes: list[_Write], error: Error) -> None:
        """Fails these alone."""
        for write in writes:
            self.shard.end(write.records)
            self._finish(write, error)

    def _fail(self, writes: list[_Write], error: Error) -> None:
        """Fails these and all behind them, which were decided in the belief that these would succeed."""
        self._metrics.append_errors += 1
        if error is not self._failing:  # once, however many clients try again
            log.error("%s: append failed: %s", self.name, error.name)
            self._failing = error
        failed = [*writes, *self._queue]
        self._queue.clear()
        self._queue_size = 0
        ahead = any(write.result.at_once for write in failed)  # what these were to do has been done
        reload = self.status is not Status.CLOSED and (ahead or self._late is not None or not self._is_unchanged())
        if reload:
            self.status = Status.LOADING  # before anybody is told: what they do next must wait for the log's word
        for write in failed:
            self.shard.end(write.records)
        for write in failed:
            self._finish(write, error)
        if reload:
            self.shard.unload()
            self.load()

    def _finish(self, write: _Write, error: Error) -> None:
        if write.ends and write.result.done is not None:
            try:
                write.result.done(error)
            except Exception:
                log.exception("%s: after an append", self.name)
        if write.future is not None and not write.future.done():
            if error is Error.NONE:
                write.future.set_result(None)
            else:
                write.future.set_exception(KafkaError(error))

    def _is_unchanged(self) -> bool:
        """Whether the log is as it was before the failed append: nothing of that is in it, nor will be."""
        positions = self._plane.positions(self._topic_id, self.partition)
        return positions is not None and not positions.offline and positions.log_end == self._log_end

    # -- loading and closing --------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Starts to read the partition from its beginning; operations are refused until it has been read."""
        self.status = Status.LOADING
        self._sweep_timer.disarm()
        self.loading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        if self._late is not None:
            await asyncio.wait({self._late})
            self._late = None
        delay_s = _RETRY_FIRST_S
        while True:
            started_ms = self._clock.monotonic_ms()
            loader = LogLoader(self.name, self._plane, self._topic_id, self.partition, self._settings.load_buffer_size)
            try:
                async with self._turns:
                    self._log_end = await loader.load(self.shard)
                break
            except KafkaError as failure:
                log.error("%s: can't be loaded: %s; trying again", self.name, failure)
            except Exception:
                log.exception("%s: can't be loaded; trying again", self.name)
            self._metrics.load_errors += 1
            self.status = Status.FAILED
            self.shard.unload()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RETRY_MAX_S)
        took_ms = self._clock.monotonic_ms() - started_ms
        self._metrics.loads += 1
        self._metrics.load_records += loader.records
        self._metrics.load_records_skipped += loader.skipped
        self._metrics.load_ms += took_ms
        if loader.records:
            log.info("%s: loaded %s from %d records in %d ms", self.name, self.shard.summary(), loader.records, took_ms)
        self.status = Status.ACTIVE
        self.loading = None
        for result in self.shard.on_loaded():
            self._submit(result, None)
        waiting, self._after_load = self._after_load, []
        for operation in waiting:
            self.run(operation)
        self._sweep_timer.arm(self._sweep_ms)

    def _sweep(self) -> None:
        self._sweep_timer.arm(self._sweep_ms)
        self.run(self.shard.sweep)

    async def close(self) -> None:
        """Waits for what is on its way, then forgets all; whoever waits has to look for the coordinator."""
        self.status = Status.CLOSED
        self._sweep_timer.disarm()
        if self._writing:
            self._rested = asyncio.get_running_loop().create_future()
            await self._rested
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.loading is not None:
            self.loading.cancel()
            await asyncio.wait({self.loading})
        self.shard.unload()
