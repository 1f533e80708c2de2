"""confluent-kafka (librdkafka), kafka-python and aiokafka: the fastest call of each in each row, set up as its documentation says."""

from __future__ import annotations

from typing import Any

from bench.clients.task import CALL, CHUNK, Task

# --- confluent-kafka


def _confluent_producer(task: Task) -> Any:
    """Batches as large as ours, and a queue that holds a second's records."""
    from confluent_kafka import Producer

    settings = {
        "bootstrap.servers": task.bootstrap,
        "acks": task.acks,
        "enable.idempotence": task.acks == "all",
        "linger.ms": 5,
        "batch.size": 1_000_000,
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
    }
    producer = Producer(settings)
    producer.produce(task.topic, b"first")
    assert producer.flush(30) == 0
    return producer


def confluent_batch(task: Task) -> None:
    """The dicts that produce_batch takes are made before the clock starts."""
    producer = _confluent_producer(task)
    messages = [{"value": value} for value in task.values]
    chunks = [messages[at : at + CHUNK] for at in range(0, CALL, CHUNK)]
    with task.timed():
        for n in task.calls():
            for chunk in chunks[: n // CHUNK]:
                left = chunk
                while queued := producer.produce_batch(task.topic, left):
                    if queued == len(left):
                        break
                    left = left[queued:]  # the queue is full
                    producer.poll(0.001)
        assert producer.flush(120) == 0


def confluent_produce(task: Task) -> None:
    producer = _confluent_producer(task)
    values = task.values
    one, topic = producer.produce, task.topic
    with task.timed():
        for n in task.calls():
            for value in values if n == CALL else values[:n]:
                while True:
                    try:
                        one(topic, value)
                        break
                    except BufferError:
                        producer.poll(0.001)
        assert producer.flush(120) == 0


def _confluent_consumer(task: Task) -> Any:
    """A longer queue, as its documentation advises for throughput."""
    from confluent_kafka import Consumer, TopicPartition

    settings = {
        "bootstrap.servers": task.bootstrap,
        "group.id": "bench",
        "enable.auto.commit": False,
        "queued.min.messages": 1_000_000,
        "fetch.error.backoff.ms": 0,
        "fetch.queue.backoff.ms": 0,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, p, 0) for topic, p in task.partition_list()])
    return consumer


def confluent_consume(task: Task) -> None:
    consumer = _confluent_consumer(task)
    seen = len(consumer.consume(1, 30))
    with task.timed():
        while seen < task.records:
            seen += len(consumer.consume(5000, 30))
    consumer.close()


def confluent_poll(task: Task) -> None:
    consumer = _confluent_consumer(task)
    seen = len(consumer.consume(1, 30))
    poll = consumer.poll
    with task.timed():
        while seen < task.records:
            message = poll(30)
            _ = message.value()
            seen += 1
    consumer.close()


# --- kafka-python


def kafka_python_send(task: Task) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=task.bootstrap, acks=task.acks if task.acks == "all" else int(task.acks), linger_ms=5, batch_size=1_000_000
    )
    producer.send(task.topic, b"first").get(30)
    values = task.values
    with task.timed():
        for n in task.calls():
            for value in values[:n]:
                producer.send(task.topic, value)
        producer.flush(120)
    producer.close()


def kafka_python_read(task: Task) -> None:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=task.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False, max_poll_records=5000
    )
    consumer.assign([TopicPartition(topic, p) for topic, p in task.partition_list()])
    next(consumer)
    seen = 1
    with task.timed():
        for record in consumer:
            _ = record.value
            seen += 1
            if seen == task.records:
                break
    consumer.close()


# --- aiokafka


async def aiokafka_send(task: Task) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap, acks=-1 if task.acks == "all" else int(task.acks), linger_ms=5, max_batch_size=1_000_000
    )
    await producer.start()
    await producer.send_and_wait(task.topic, b"first")
    values = task.values
    with task.timed():
        for n in task.calls():
            for value in values[:n]:
                await producer.send(task.topic, value)
        await producer.flush()
    await producer.stop()


async def aiokafka_batch(task: Task) -> None:
    """Batches that the program builds itself."""
    import asyncio

    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap, acks=-1 if task.acks == "all" else int(task.acks), linger_ms=5, max_batch_size=1_000_000
    )
    await producer.start()
    await producer.send_and_wait(task.topic, b"first")
    values = task.values
    with task.timed():
        sent = []
        builder, number = producer.create_batch(), 0
        for n in task.calls():
            for value in values[:n]:
                if builder.append(key=None, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(builder, task.topic, partition=number % task.partitions))
                    builder, number = producer.create_batch(), number + 1
                    builder.append(key=None, value=value, timestamp=None)
        sent.append(await producer.send_batch(builder, task.topic, partition=number % task.partitions))
        await asyncio.gather(*sent)
    await producer.stop()


async def aiokafka_read(task: Task) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=task.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, p) for topic, p in task.partition_list()])
    await consumer.getone()
    seen = 1
    with task.timed():
        while seen < task.records:
            for records in (await consumer.getmany(timeout_ms=30_000, max_records=5000)).values():
                for record in records:
                    _ = record.value
                seen += len(records)
    await consumer.stop()
