"""fastlog.client in each row."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.clients.task import CALL, RECORD_BYTES, Task
from fastlog.client import AsyncConsumer, AsyncProducer, Consumer, Producer


def _producer(task: Task) -> Producer:
    producer = Producer(bootstrap_servers=task.bootstrap, acks=task.acks)
    producer.send(task.topic, b"first").result(30)
    return producer


def _batches(task: Task, whole: Any, part: Any) -> None:
    """Sends `whole` (CALL records) over and over, and `part(n)` at the end."""
    with _producer(task) as producer:
        with task.timed():
            for n in task.calls():
                producer.send_batch(task.topic, whole if n == CALL else part(n))
            producer.flush(120)
        assert producer.metrics()["records_failed"] == 0


def send_list(task: Task) -> None:
    values = task.values
    _batches(task, values, lambda n: values[:n])


def send_buffer(task: Task) -> None:
    data, offsets = b"".join(task.values), np.arange(CALL + 1, dtype=np.int64) * RECORD_BYTES
    _batches(task, (data, offsets), lambda n: (data, offsets[: n + 1]))


def send_numpy(task: Task) -> None:
    values = np.frombuffer(b"".join(task.values), np.uint8).reshape(CALL, RECORD_BYTES)
    _batches(task, values, lambda n: values[:n])


def send_arrow(task: Task) -> None:
    import pyarrow as pa

    values = pa.array(task.values, pa.binary())
    _batches(task, values, lambda n: values[:n])


def send(task: Task) -> None:
    values = task.values
    with _producer(task) as producer:
        one, topic = producer.send, task.topic
        with task.timed():
            for n in task.calls():
                for value in values if n == CALL else values[:n]:
                    one(topic, value)
            producer.flush(120)
        assert producer.metrics()["records_failed"] == 0


async def aio_send(task: Task) -> None:
    values = task.values
    async with AsyncProducer(bootstrap_servers=task.bootstrap, acks=task.acks) as producer:
        await producer.send_and_wait(task.topic, b"first")
        send, topic = producer.send, task.topic
        with task.timed():
            for n in task.calls():
                for value in values if n == CALL else values[:n]:
                    await send(topic, value)
            await producer.flush(120)
        assert producer.metrics()["records_failed"] == 0


async def aio_send_list(task: Task) -> None:
    values = task.values
    async with AsyncProducer(bootstrap_servers=task.bootstrap, acks=task.acks) as producer:
        await producer.send_and_wait(task.topic, b"first")
        with task.timed():
            for n in task.calls():
                await producer.send_batch(task.topic, values if n == CALL else values[:n])
            await producer.flush(120)
        assert producer.metrics()["records_failed"] == 0


async def _aio_consumer(task: Task) -> AsyncConsumer:
    consumer = AsyncConsumer(bootstrap_servers=task.bootstrap, enable_auto_commit=False)
    await consumer.assign(dict.fromkeys(task.partition_list(), 0))
    return consumer


async def aio_read_polls(task: Task) -> None:
    async with await _aio_consumer(task) as consumer:
        seen = len(await consumer.poll(1, 30))
        with task.timed():
            while seen < task.records:
                records = await consumer.poll(5000, 30)
                for record in records:
                    _ = record.value
                seen += len(records)


async def aio_read_each(task: Task) -> None:
    async with await _aio_consumer(task) as consumer:
        seen = len(await consumer.poll(1, 30))
        with task.timed():
            async for record in consumer:
                _ = record.value
                seen += 1
                if seen == task.records:
                    break


async def aio_read_columns(task: Task) -> None:
    async with await _aio_consumer(task) as consumer:
        seen = len(await consumer.poll(1, 30))
        with task.timed():
            while seen < task.records:
                for batch in await consumer.poll_batches(30):
                    seen += len(batch)
                    _ = batch.values


def _consumer(task: Task) -> Consumer:
    consumer = Consumer(bootstrap_servers=task.bootstrap, enable_auto_commit=False)
    consumer.assign(dict.fromkeys(task.partition_list(), 0))
    return consumer


def read_columns(task: Task) -> None:
    with _consumer(task) as consumer:
        seen = len(consumer.poll(1, 30))
        with task.timed():
            while seen < task.records:
                for batch in consumer.poll_batches(30):
                    seen += len(batch)
                    _ = batch.values


def read_each(task: Task) -> None:
    with _consumer(task) as consumer:
        seen = len(consumer.poll(1, 30))
        with task.timed():
            for record in consumer:
                _ = record.value
                seen += 1
                if seen == task.records:
                    break
