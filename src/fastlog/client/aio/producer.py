"""The producer for asyncio: the core's batches, filled in the loop, and what becomes of them told by an eventfd."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fastlog._core import Deliveries, Delivery
from fastlog.client import checks
from fastlog.client.aio.calls import Calls, Signal
from fastlog.client.failures import BufferFullError, ClientTimeoutError
from fastlog.client.logs import say_raised
from fastlog.client.producer import Producer, column_parts
from fastlog.client.records import Headers, RecordMetadata

if TYPE_CHECKING:
    from fastlog.client.transactions import GroupMetadata

T = TypeVar("T")

AT_ONCE = 16384  # records of a column that go into batches before other tasks have their turn
TURN = 1024  # records sent one by one before that


class AsyncProducer:
    """Sends records to topics, from the tasks of one event loop. Settings as of `Producer`:

        async with AsyncProducer(bootstrap_servers="127.0.0.1:9092") as producer:
            delivery = await producer.send("orders", b"two apples", key=b"alice")   # it is queued
            print(await delivery)                                                   # it is stored

    Raises ConfigError for settings that are unknown or make no sense.
    """

    def __init__(self, config_map: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        self._producer = Producer(config_map, **settings)
        self._producer._loop_driven = True
        self._producer._drive()
        self._put = self._producer.send
        self._known: set[str] = set()
        self._calls = Calls("fastlog-producer")
        self._found: Signal | None = None
        self._full = asyncio.Lock()  # held by the task that waits for room; those behind it wait in their order
        self._sent = 0

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, checked."""
        return self._producer.settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _signal(self) -> Signal:
        """In the loop of the first call; RuntimeError in another one."""
        if self._found is None:
            self._found = Signal(self._producer._done_fd(), self._deliver)
        return self._found.of("producer")

    def _deliver(self) -> None:
        for delivery, call in self._producer._take_done():
            try:
                call(delivery)
            except Exception:  # noqa: BLE001 - logged
                say_raised("a delivery callback raised")

    # --- sending

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        *,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Delivery:
        """Queues one record; `await` what it returns for its RecordMetadata, or its error.

        Arguments and errors as of `Producer.send`. Waits, other tasks running, while buffer_memory is used up. A task that is cancelled
        while it waits here has sent nothing.
        """
        self._sent += 1
        if self._found is None or topic not in self._known or self._full.locked() or self._sent % TURN == 0:
            await self._prepare(topic)
        try:
            return self._put(topic, value, key, headers=headers, partition=partition, timestamp=timestamp)
        except BlockingIOError:
            pass
        put = partial(self._put, topic, value, key, headers=headers, partition=partition, timestamp=timestamp)
        async with self._full:
            return await self._when_room(put, lambda: 0)

    async def send_and_wait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        *,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> RecordMetadata:
        """Sends one record and returns where it is, once it is stored. Raises its error."""
        delivery = await self.send(topic, value, key, headers=headers, partition=partition, timestamp=timestamp)
        where: RecordMetadata = await delivery
        return where

    async def send_batch(
        self,
        topic: str,
        values: Any = None,
        keys: Any = None,
        *,
        headers: Headers | Sequence[Headers | None] | None = None,
        timestamps: Any = None,
        partitions: Any = None,
    ) -> Deliveries:
        """Queues many records, given as columns, as `Producer.send_batch` does; `await` what it returns until all are stored.

        Waits, other tasks running, while buffer_memory is used up. What was queued before a task is cancelled here is sent.
        """
        await self._prepare(topic)
        made: Deliveries | None = None
        for part in column_parts(values, keys, headers, timestamps, partitions):
            rows = self._producer._rows(topic, *part, made)
            made = rows.deliveries
            push = partial(self._producer._push, rows, AT_ONCE)
            async with self._full:
                more = True
                while more:
                    more = await self._when_room(push, partial(getattr, rows, "at"))
                    await asyncio.sleep(0)
        return self._producer._send_columns(topic, [], None, None, None, None) if made is None else made

    async def _prepare(self, topic: str) -> None:
        """Before a record: the loop is known, the topic too, whoever waits for room has it first, and other tasks had their turn."""
        self._signal()
        if topic not in self._known:
            await self._calls(self._producer._topic_handle, topic)
            self._known.add(topic)
        elif self._full.locked():
            async with self._full:
                pass
        else:
            await asyncio.sleep(0)

    async def _when_room(self, put: Callable[[], T], queued: Callable[[], int]) -> T:
        """What `put` returns, once it finds room. BufferFullError when it found none for max_block_ms; `queued`: how far it has come."""
        try:
            return put()
        except BlockingIOError:
            pass
        signal = self._signal()
        at, since = queued(), signal.loop.time()
        while True:
            self._producer._want_room(True)  # a batch that is done from here on tells of it
            try:
                try:
                    return put()
                except BlockingIOError:
                    pass
                if at != queued():
                    at, since = queued(), signal.loop.time()
                left = since + float(self.settings["max_block_ms"]) / 1000 - signal.loop.time()
                if left <= 0:
                    raise BufferFullError(f"buffer_memory stayed used up for max_block_ms; {at} records of the call were queued")
                await signal.wait(left)
            finally:
                self._producer._want_room(False)

    async def flush(self, timeout: float | None = None) -> None:
        """Sends what waits and returns when all is acknowledged or has failed. ClientTimeoutError after `timeout` seconds."""
        signal = self._signal()
        deadline = None if timeout is None else signal.loop.time() + checks.checked_timeout(timeout)
        self._producer._rush(True)
        try:
            while left := self._producer._flush(0):
                if deadline is not None and signal.loop.time() >= deadline:
                    raise ClientTimeoutError(f"{left} batches are not acknowledged after {timeout} s; they are still being sent")
                await signal.wait(None if deadline is None else deadline - signal.loop.time())
        finally:
            self._producer._rush(False)

    async def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. Raises as `send`."""
        return await self._calls(self._producer.partitions_for, topic)

    def metrics(self) -> dict[str, int]:
        """Counters since the producer was made, and what waits now."""
        return self._producer.metrics()

    async def close(self, timeout: float | None = None) -> None:
        """Sends what waits, for at most `timeout` seconds (None: delivery_timeout_ms), and ends. What is left fails, and is logged."""
        try:
            await self._calls(self._producer.close, timeout)
        finally:
            self._calls.close()
            if self._found is not None:
                self._deliver()
                self._found.close()

    # --- transactions

    async def init_transactions(self) -> None:
        """Before the first transaction: fences what had this transactional_id before, and aborts what it had left open."""
        await self._calls(self._producer.init_transactions)

    def begin_transaction(self) -> None:
        """What is sent from now on belongs together. InvalidTxnStateError before `init_transactions`, or when one is open already."""
        self._producer.begin_transaction()

    async def send_offsets_to_transaction(self, offsets: Mapping[tuple[str, int], int], group: "GroupMetadata") -> None:
        """Commits a consumer's offsets (to read next) with the transaction. `group`: the consumer's `group_metadata()`."""
        await self._calls(self._producer.send_offsets_to_transaction, offsets, group)

    async def commit_transaction(self, timeout: float | None = None) -> None:
        """Sends what waits and commits. Raises a record's error, where one failed: abort then."""
        await self._calls(self._producer.commit_transaction, timeout)

    async def abort_transaction(self) -> None:
        """Gives up what waits, and what was sent is never seen by read_committed consumers."""
        await self._calls(self._producer.abort_transaction)
