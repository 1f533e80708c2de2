"""The client in an event loop: no call blocks it, what is cancelled loses nothing, and what is full is waited for."""

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastlog.client import (
    Admin,
    AsyncAdmin,
    AsyncConsumer,
    AsyncProducer,
    BufferFullError,
    ClientError,
    ClosedError,
    ConfigError,
    Consumer,
    Producer,
    Record,
    TopicPartition,
    errors,
)
from fastlog.client.aio.calls import THREADS
from tests.support.process import free_port

pytestmark = pytest.mark.one_engine
LIMIT_S = 45


def run(body: Callable[[], Any]) -> None:
    """Runs a coroutine function in a loop of its own. What it leaves behind, a task or a thread of a closed client, is an error."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S * 2):
            await body()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(limited())


async def read(consumer: AsyncConsumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + LIMIT_S
    while len(records) < count and time.monotonic() < deadline:
        records += await consumer.poll(5000, 1.0)
    assert len(records) == count
    return records


def test_records_go_in_and_come_out(bootstrap: str, topic: str) -> None:
    async def body() -> None:
        async with AsyncProducer(bootstrap_servers=bootstrap) as producer:
            waiting = [await producer.send(topic, b"%d" % i, b"key", headers={"n": b"1"}, timestamp=i) for i in range(2000)]
            where = await asyncio.gather(*map(_result, waiting))
            assert [w.offset for w in where] == sorted(w.offset for w in where)
            assert all(d.done() for d in waiting)
            last = await producer.send_and_wait(topic, b"2000", b"key")
            assert last.offset == where[-1].offset + 1
            many = await producer.send_batch(topic, [b"%d" % i for i in range(2001, 40_000)], keys=b"key")
            assert len(await many) == 37_999
            assert producer.metrics()["records_acknowledged"] == 40_000
            assert await producer.partitions_for(topic) == 3
        async with AsyncConsumer(bootstrap_servers=bootstrap) as consumer:
            await consumer.assign({(topic, p): 0 for p in range(3)})
            found: list[Record] = []
            async for record in consumer:
                found.append(record)
                if len(found) == 40_000:
                    break
            assert [int(r.value) for r in found] == list(range(40_000))
            assert (found[5].key, found[5].headers, found[5].timestamp) == (b"key", [("n", b"1")], 5)
            assert await consumer.poll(1, 0.05) == []
            assert consumer.at_end
            at = TopicPartition(topic, found[0].partition)
            assert await consumer.position(at) == 40_000
            assert consumer.lag(at) == 0
            await consumer.seek_to_beginning([at])
            batch = await consumer.poll_batch(20)
            assert batch is not None
            assert batch.offsets[0] == 0
            consumer.seek(at, 39_990)
            batches = await consumer.poll_batches(20)
            assert [v for b in batches for v in b.value_list()] == [b"%d" % i for i in range(39_990, 40_000)]
            consumer.pause([at])
            assert consumer.paused() == [at]
            consumer.resume([at])
            assert (await consumer.end_offsets([at]), await consumer.beginning_offsets([at])) == ({at: 40_000}, {at: 0})
            assert await consumer.offsets_for_times({at: 1000}) == {at: (1000, 1000)}

    run(body)


async def _result(delivery: Any) -> Any:
    return await delivery


def test_the_loop_goes_on_while_the_buffer_is_full(bootstrap: str, topic: str) -> None:
    async def body() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        async with AsyncProducer(bootstrap_servers=bootstrap, buffer_memory=1 << 17, batch_size=16384, linger_ms=1000) as producer:
            many = await producer.send_batch(topic, [b"x" * 100] * 20_000)
            before = ticks
            sent = [producer.send(topic, b"%05d" % i * 20, partition=0) for i in range(5000)]
            deliveries = await asyncio.gather(*sent)
            assert ticks > before
            await producer.flush(LIMIT_S)
            assert many.done()
            offsets = [d.result(0).offset for d in deliveries]
            assert len(set(offsets)) == 5000
            assert producer.metrics()["buffer_bytes"] == 0
        ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticker

    run(body)


def test_what_is_cancelled_loses_nothing(bootstrap: str, topic: str) -> None:
    async def body() -> None:
        async with (
            AsyncConsumer(bootstrap_servers=bootstrap) as consumer,
            AsyncProducer(bootstrap_servers=bootstrap, linger_ms=50) as producer,
        ):
            await consumer.assign({(topic, 0): 0})
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await consumer.poll(10, 60)
            delivery = await producer.send(topic, b"first", partition=0)
            waiting = asyncio.create_task(_result(delivery))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await delivery).offset == 0, "it is sent all the same, and can be awaited again"
            got: list[bytes] = []
            for i in range(1, 200):  # a reader that is cancelled over and over sees each record once
                await producer.send(topic, b"%d" % i, partition=0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.001):
                        while True:
                            got += [r.value for r in await consumer.poll(3, 10)]
            while len(got) < 200:
                got += [r.value for r in await consumer.poll(50, 10)]
            assert got == [b"first", *(b"%d" % i for i in range(1, 200))]

    run(body)


def test_group_callbacks_and_commits(bootstrap: str, topic: str, fresh_name: str) -> None:
    async def body() -> None:
        said: list[tuple[str, int]] = []
        done: asyncio.Queue[Any] = asyncio.Queue()

        async def on_revoke(parts: list[TopicPartition]) -> None:
            await first.commit()  # a broker is asked while the group waits
            said.append(("revoke", len(parts)))

        settings: dict[str, Any] = {"bootstrap_servers": bootstrap, "group_id": fresh_name, "auto_offset_reset": "earliest"}
        async with AsyncProducer(bootstrap_servers=bootstrap) as producer:
            await (await producer.send_batch(topic, [b"x"] * 30, partitions=[i % 3 for i in range(30)]))
        async with AsyncConsumer(settings, enable_auto_commit=False, heartbeat_interval_ms=200) as first:
            await first.subscribe([topic], on_assign=lambda parts: said.append(("assign", len(parts))), on_revoke=on_revoke)
            assert len(await read(first, 30)) == 30
            assert said == [("assign", 3)]
            await first.commit()
            assert await first.committed([(topic, 0)]) == {(topic, 0): 10}
            first.commit_async({(topic, 0): 4}, lambda offsets, error: done.put_nowait((offsets, error, asyncio.get_running_loop())))
            assert await done.get() == ({(topic, 0): 4}, None, asyncio.get_running_loop())
            async with AsyncConsumer(settings, heartbeat_interval_ms=200) as second:
                await second.subscribe([topic])
                while not second.assignment():
                    await asyncio.gather(first.poll(1, 0.1), second.poll(1, 0.1))
            assert ("revoke", 3) in said
            assert first.group_metadata().group_id == fresh_name
            await first.unsubscribe()
            assert first.assignment() == []

    run(body)


def test_transactions(bootstrap: str, topic: str, fresh_name: str) -> None:
    async def body() -> None:
        async with (
            AsyncProducer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as producer,
            AsyncConsumer(bootstrap_servers=bootstrap, group_id=fresh_name, isolation_level="read_committed") as consumer,
        ):
            await producer.init_transactions()
            await consumer.assign({(topic, 0): 0})
            for i in range(4):
                producer.begin_transaction()
                await producer.send(topic, b"%d" % i, partition=0)
                await producer.send_offsets_to_transaction({(topic, 1): i}, consumer.group_metadata())
                await (producer.abort_transaction() if i % 2 else producer.commit_transaction())
            assert [r.value for r in await read(consumer, 2)] == [b"0", b"2"]
            assert await consumer.committed([(topic, 1)]) == {(topic, 1): 2}

    run(body)


def test_admin_asks_side_by_side(bootstrap: str, fresh_name: str) -> None:
    async def body() -> None:
        async with AsyncAdmin(bootstrap) as admin:
            names = [f"{fresh_name}-{i}" for i in range(3 * THREADS)]
            await asyncio.gather(*(admin.create_topic(name, 2) for name in names))
            with pytest.raises(errors.TopicAlreadyExistsError):
                await admin.create_topic(names[0], 2)
            assert len((await admin.cluster()).brokers) == 1
            await asyncio.gather(*(admin.delete_topic(name) for name in names))

    run(body)


def test_admin_has_every_call() -> None:
    ours = {name for name, _ in inspect.getmembers(AsyncAdmin, inspect.iscoroutinefunction) if not name.startswith("_")}
    theirs = {name for name, _ in inspect.getmembers(Admin, inspect.isfunction) if not name.startswith("_")}
    assert ours == theirs, "name them in client/aio/admin.py"


@pytest.mark.parametrize(("ours", "theirs"), [(AsyncProducer, Producer), (AsyncConsumer, Consumer)])
def test_both_faces_have_the_same_calls(ours: type, theirs: type) -> None:
    """With the same parameters, but for how a delivery is waited for."""
    for name, member in inspect.getmembers(theirs, callable):
        if name.startswith("_") or name == "send":
            continue
        mine = inspect.signature(getattr(ours, name)).parameters
        assert list(mine) == list(inspect.signature(member).parameters), name


def test_errors_reach_the_task(start_broker: Callable[..., Any], fresh_name: str) -> None:
    broker = start_broker()

    async def body() -> None:
        nowhere = f"127.0.0.1:{free_port()}"
        async with AsyncProducer(bootstrap_servers=nowhere, max_block_ms=200) as producer:
            with pytest.raises(ClientError):
                await producer.send("any", b"x")
        with pytest.raises(ConfigError):
            AsyncAdmin(nowhere, no_such="x")
        async with AsyncAdmin(nowhere, timeout_s=1) as admin:
            with pytest.raises(ClientError):
                await admin.topics()
        closed = AsyncConsumer(bootstrap_servers=broker.bootstrap)
        await closed.close()
        with pytest.raises(ClosedError):
            await closed.poll(1, 0)
        async with AsyncConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="none") as consumer:
            await consumer.assign([(fresh_name, 0)])
            with pytest.raises(errors.OffsetOutOfRangeError):
                await consumer.poll(1, 10)
        settings = {"bootstrap_servers": broker.bootstrap, "buffer_memory": 1 << 16, "batch_size": 4096, "max_block_ms": 200}
        producer = AsyncProducer(settings)
        await producer.send_and_wait(fresh_name, b"x")
        broker.kill()
        with pytest.raises(BufferFullError):
            await producer.send_batch(fresh_name, [b"x" * 1000] * 1000)
        with pytest.raises(BufferFullError):
            await producer.send(fresh_name, b"x" * 4000)
        with pytest.raises(TimeoutError):
            await producer.flush(0.05)
        await producer.close(0.1)
        with pytest.raises(ClosedError):
            await producer.send(fresh_name, b"x")

    run(body)


def test_a_client_belongs_to_one_loop(bootstrap: str, topic: str) -> None:
    producer = AsyncProducer(bootstrap_servers=bootstrap)
    consumer = AsyncConsumer(bootstrap_servers=bootstrap)

    async def use() -> None:
        await producer.send_and_wait(topic, b"x", partition=0)
        await consumer.assign({(topic, 0): 0})
        assert len(await read(consumer, 1)) == 1

    async def misuse() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await producer.flush()
        with pytest.raises(RuntimeError, match="another event loop"):
            await consumer.poll()
        await consumer.close()
        await producer.close()

    asyncio.run(use())
    asyncio.run(misuse())


def test_what_a_plain_producer_returns_can_be_awaited(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:

        async def body() -> None:
            assert (await producer.send(topic, b"x", partition=1)).offset == 0
            assert len(await producer.send_batch(topic, [b"x"] * 10, partitions=1)) == 10

        run(body)
