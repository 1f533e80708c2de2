"""The consumer for asyncio: records that the core has fetched ahead, taken in the loop; an eventfd tells when there are more."""

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastlog._core import Record, RecordBatch, RecordBatches
from fastlog.client import checks
from fastlog.client.aio.calls import Calls, Signal
from fastlog.client.consumer import Consumer, Listener
from fastlog.client.failures import ClientError, ClosedError
from fastlog.client.records import OffsetAndTimestamp, Partition, TopicPartition

if TYPE_CHECKING:
    from fastlog.client.transactions import GroupMetadata

AsyncListener = Callable[[list[TopicPartition]], Awaitable[object] | object]
TURN = 1024  # records given out one by one before other tasks have their turn
LOOK_S = 0.5  # a wait looks after the group, and commits that are due, this often


class AsyncConsumer:
    """Reads records, from partitions given (`assign`) or as a member of a group (`subscribe`). For one task at a time.

        async with AsyncConsumer(bootstrap_servers="127.0.0.1:9092", group_id="billing") as consumer:
            await consumer.subscribe(["orders"])
            async for record in consumer:
                print(record.key, record.value)

    Settings as of `Consumer`. A task that is cancelled while it waits for records has taken none.
    """

    def __init__(self, config_map: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        self._consumer = Consumer(config_map, **settings)
        self._calls = Calls("fastlog-consumer")
        self._found: Signal | None = None
        self._service: asyncio.Task[None] | None = None
        self._callback: asyncio.Task[Any] | None = None  # runs a listener, for which the service waits

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, checked."""
        return self._consumer.settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _signal(self) -> Signal:
        """In the loop of the first call; RuntimeError in another one."""
        if self._found is None:
            self._found = Signal(self._consumer._ready_fd(), self._consumer._clear_ready)
        return self._found.of("consumer")

    # --- what is read

    async def subscribe(
        self,
        topics: Iterable[str] = (),
        *,
        pattern: str | None = None,
        on_assign: AsyncListener | None = None,
        on_revoke: AsyncListener | None = None,
        on_lost: AsyncListener | None = None,
    ) -> None:
        """Becomes a member of the group, as `Consumer.subscribe`; the callbacks may be coroutine functions, and run in the loop."""
        self._signal()
        listeners = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        wrapped = {name: None if call is None else self._in_loop(call) for name, call in listeners.items()}
        self._consumer.subscribe(topics, pattern=pattern, **wrapped)

    def _in_loop(self, listener: AsyncListener) -> Listener:
        """For a thread of `_calls`: the callback runs in the loop, the thread waits for its end."""
        if not callable(listener):
            raise TypeError(f"{listener!r}: expected a callable, or a coroutine function")
        loop = self._signal().loop

        async def call(partitions: list[TopicPartition]) -> None:
            self._callback = asyncio.current_task()
            said = listener(partitions)
            if inspect.isawaitable(said):
                await said

        def told(partitions: list[TopicPartition]) -> None:
            if not loop.is_running():  # the program ends, and has not closed the consumer
                return
            said = asyncio.run_coroutine_threadsafe(call(partitions), loop)
            while loop.is_running() and not concurrent.futures.wait([said], 1.0).done:
                pass
            if said.done():
                said.result()

        return told

    async def unsubscribe(self) -> None:
        """Leaves the group, and reads nothing."""
        await self._serviced()
        await self._calls(self._consumer.unsubscribe)

    async def assign(self, partitions: Iterable[Partition] | Mapping[Partition, int]) -> None:
        """Reads these partitions, and no others, as `Consumer.assign`."""
        self._signal()
        await self._serviced()
        await self._calls(self._consumer.assign, partitions)

    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return self._consumer.assignment()

    # --- reading

    async def _attend(self) -> None:
        """What has to be done between records. Where it may wait for a broker it is done in a thread: once, whoever waits for it."""
        if self._service is None:
            if not self._consumer._needs_broker():
                self._consumer._service()
                return
            self._service = asyncio.create_task(self._calls(self._consumer._service))
        service = self._service
        try:
            await asyncio.shield(service)
        finally:
            if service.done() and self._service is service:
                self._service = None

    async def _serviced(self) -> None:
        """Waits until nothing is being done in a thread; errors are those of the next read."""
        if self._service is not None and not self._service.done() and asyncio.current_task() is not self._callback:
            await asyncio.wait({self._service})

    async def _next(self, take: Callable[[], Any], timeout: float) -> Any:
        """What `take` gives, as soon as it gives something; what it gave last when the time is over. Other tasks have had their turn."""
        signal = self._signal()
        deadline = signal.loop.time() + checks.checked_timeout(timeout)
        await asyncio.sleep(0)
        while True:
            await self._attend()
            made = take()
            left = deadline - signal.loop.time()
            if made or left <= 0:
                return made
            await signal.wait(min(left, LOOK_S))

    async def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """The next records, up to `max_records`, as soon as there are any; none when `timeout` seconds are over."""
        most = checks.checked_count(max_records, "max_records")
        made: list[Record] = await self._next(lambda: self._consumer._take_records(most), timeout)
        return made

    async def poll_batches(self, timeout: float = 0.5) -> RecordBatches:
        """All that is there, as columns, as `Consumer.poll_batches`. As soon as there is any; none when the time is over."""

        def take() -> RecordBatches:
            made = RecordBatches()
            while (batch := self._consumer._take_batch()) is not None:
                made.append(batch)
            return made

        found: RecordBatches = await self._next(take, timeout)
        return found

    async def poll_batch(self, timeout: float = 0.5) -> RecordBatch | None:
        """The next batch; None when the time is over. Raises as `poll`."""
        made: RecordBatch | None = await self._next(self._consumer._take_batch, timeout)
        return made

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Records, for ever; ends when the consumer is closed."""
        signal = self._signal()
        take = self._consumer._next_record
        while not self._consumer._is_closed:
            try:
                for _ in repeat(None, TURN):  # what is done for each record is most of what iterating costs
                    if (record := take()) is None:
                        break
                    yield record
                await asyncio.sleep(0)
                await self._attend()
                record = take()
            except ClosedError:
                if self._consumer._is_forked:
                    raise
                return
            if record is None:
                await signal.wait(LOOK_S)
            else:
                yield record

    @property
    def at_end(self) -> bool:
        """Whether all that was there when the brokers last answered has been read. A member that got no partition is there at once."""
        return self._consumer.at_end

    # --- places

    def seek(self, partition: Partition, offset: int) -> None:
        """Reads on from an offset. KeyError for a partition that is not assigned."""
        self._consumer.seek(partition, offset)

    async def seek_to_beginning(self, partitions: Iterable[Partition] = ()) -> None:
        """Of those given, or all that are assigned."""
        await self._calls(self._consumer.seek_to_beginning, checks.checked(partitions))

    async def seek_to_end(self, partitions: Iterable[Partition] = ()) -> None:
        """Of those given, or all that are assigned."""
        await self._calls(self._consumer.seek_to_end, checks.checked(partitions))

    async def position(self, partition: Partition) -> int:
        """The offset of the next record that will be given out; waits until it is known. KeyError where it is not assigned."""
        await self._serviced()
        return await self._calls(self._consumer.position, partition)

    def lag(self, partition: Partition) -> int | None:
        """Records between the position and the end as the broker last told it; None where it has not yet."""
        return self._consumer.lag(partition)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Gives out nothing of these until `resume`."""
        self._consumer.pause(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Goes on with these."""
        self._consumer.resume(partitions)

    def paused(self) -> list[TopicPartition]:
        """The partitions that are paused."""
        return self._consumer.paused()

    async def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets of the first records."""
        return await self._calls(self._consumer.beginning_offsets, checks.checked(partitions))

    async def end_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets behind the last records that a consumer with this isolation_level can see."""
        return await self._calls(self._consumer.end_offsets, checks.checked(partitions))

    async def offsets_for_times(self, times: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (milliseconds) in each partition; None where there is none."""
        return await self._calls(self._consumer.offsets_for_times, times)

    async def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. UnknownTopicOrPartitionError where there is no such topic."""
        return await self._calls(self._consumer.partitions_for, topic)

    # --- commits

    async def commit(self, offsets: Mapping[Partition, int | tuple[int, str]] | None = None) -> None:
        """Commits offsets to read next, or those behind what was given out until now. Returns when they are stored.

        Raises as `Consumer.commit`.
        """
        await self._calls(self._consumer._commits.commit, self._consumer._commits.wanted(offsets))

    def commit_async(
        self,
        offsets: Mapping[Partition, int | tuple[int, str]] | None = None,
        on_done: Callable[[dict[Partition, int], ClientError | None], object] | None = None,
    ) -> None:
        """As `commit`, without waiting. on_done(offsets, error) is called in the loop; without it errors are logged."""
        loop = self._signal().loop
        told = None if on_done is None else lambda done, error: loop.call_soon_threadsafe(on_done, done, error)
        self._consumer.commit_async(offsets, told)

    async def committed(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int | None]:
        """What the group has committed; None where it has not."""
        return await self._calls(self._consumer.committed, checks.checked(partitions))

    def group_metadata(self) -> "GroupMetadata":
        """For `AsyncProducer.send_offsets_to_transaction`."""
        return self._consumer.group_metadata()

    def metrics(self) -> dict[str, int]:
        """Counters since the consumer was made, and what waits now."""
        return self._consumer.metrics()

    async def close(self) -> None:
        """Commits, where enable_auto_commit is on, leaves the group and ends."""
        await self._serviced()
        try:
            await self._calls(self._consumer.close)
        finally:
            self._calls.close()
            if self._found is not None:
                self._found.close()
