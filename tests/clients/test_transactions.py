"""Transactions as clients in Python make them: confluent-kafka (librdkafka), kafka-python and aiokafka, each read back at both isolation
levels. All of them speak the first version of the transaction protocol (an epoch for each producer)."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
import confluent_kafka as ck
import confluent_kafka.admin
import kafka
import kafka.errors
import pytest

from tests.support.process import Broker

admin_api: Any = confluent_kafka.admin  # partly untyped
PARTITIONS = 3
QUICK = ["--set", "group.initial.rebalance.delay.ms=0", "--set", "transaction.abort.timed.out.transaction.cleanup.interval.ms=200"]


def make_topic(bootstrap: str, name: str, partitions: int = PARTITIONS) -> None:
    admin = admin_api.AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([admin_api.NewTopic(name, partitions, 1)])[name].result(15)


@pytest.fixture
def topic(bootstrap: str, fresh_name: str) -> Iterator[str]:
    make_topic(bootstrap, fresh_name)
    yield fresh_name
    admin = admin_api.AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([fresh_name])[fresh_name].result(15)


def producer_of(bootstrap: str, transactional_id: str, **settings: Any) -> ck.Producer:
    producer = ck.Producer({"bootstrap.servers": bootstrap, "transactional.id": transactional_id, **settings})
    producer.init_transactions(30)
    return producer


def send(producer: ck.Producer, topic: str, *values: str, partitions: int = PARTITIONS) -> None:
    for value in values:
        for partition in range(partitions):
            producer.produce(topic, value.encode(), partition=partition)
    assert producer.flush(30) == 0


def read(bootstrap: str, topic: str, *, committed: bool = True, partitions: int = PARTITIONS) -> list[list[str]]:
    """All there is now, by partition: a reader that is at the end knows it, also where the last ones are not shown to it."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([ck.TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[list[str]] = [[] for _ in range(partitions)]
    at_end: set[int] = set()
    deadline = time.monotonic() + 45
    while len(at_end) < partitions:
        assert time.monotonic() < deadline, f"read {found}, at the end of {at_end}"
        message = consumer.poll(0.5)
        if message is None:
            continue
        number = message.partition() or 0
        error = message.error()
        if error is not None:
            assert error.code() == ck.KafkaError._PARTITION_EOF, error.str()
            at_end.add(number)
        else:
            found[number].append((message.value() or b"").decode())
            at_end.discard(number)
    consumer.close()
    return found


def everywhere(*values: str) -> list[list[str]]:
    return [list(values) for _ in range(PARTITIONS)]


def shows(bootstrap: str, topic: str, *values: str) -> Callable[[], bool]:
    """Whether read_committed shows these in every partition: an end is answered when decided, and shown when its markers are there."""
    return lambda: read(bootstrap, topic) == everywhere(*values)


# -- librdkafka ---------------------------------------------------------------------------------------------------------------------


def test_commit_and_abort(bootstrap: str, topic: str, eventually: Callable[..., None]) -> None:
    producer = producer_of(bootstrap, topic)
    for commit, values in ((True, ["a", "b"]), (False, ["c", "d"]), (True, ["e"])):
        producer.begin_transaction()
        send(producer, topic, *values)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    eventually(shows(bootstrap, topic, "a", "b", "e"), 30)
    assert read(bootstrap, topic, committed=False) == everywhere("a", "b", "c", "d", "e")
    producer.begin_transaction()
    send(producer, topic, "f")
    assert read(bootstrap, topic) == everywhere("a", "b", "e"), "an open one is not shown"
    assert read(bootstrap, topic, committed=False) == everywhere("a", "b", "c", "d", "e", "f")
    producer.commit_transaction(30)
    eventually(shows(bootstrap, topic, "a", "b", "e", "f"), 30)


def test_consume_transform_produce(bootstrap: str, topic: str, eventually: Callable[..., None]) -> None:
    """What is read, what is written and how far was read become one: an aborted round is done again."""
    target = f"{topic}-out"
    make_topic(bootstrap, target)
    source = ck.Producer({"bootstrap.servers": bootstrap})
    send(source, topic, *(str(number) for number in range(20)))
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    producer = producer_of(bootstrap, target)
    done = 0
    rounds = 0
    deadline = time.monotonic() + 60
    while done < 20 * PARTITIONS:
        assert time.monotonic() < deadline
        messages = consumer.consume(7, 1.0)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            assert message.error() is None
            producer.produce(target, b"<" + (message.value() or b"") + b">", partition=message.partition() or 0)
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 30)
        rounds += 1
        if rounds % 3 == 0:
            producer.abort_transaction(30)
            for at in consumer.committed(consumer.assignment(), 30):
                consumer.seek(ck.TopicPartition(at.topic, at.partition, max(at.offset, 0)))
        else:
            producer.commit_transaction(30)
            done += len(messages)
    committed = {at.partition: at.offset for at in consumer.committed([ck.TopicPartition(topic, p) for p in range(PARTITIONS)], 30)}
    assert committed == dict.fromkeys(range(PARTITIONS), 20)
    consumer.close()
    assert rounds > 3
    eventually(shows(bootstrap, target, *(f"<{number}>" for number in range(20))), 30)


def test_a_zombie_is_fenced(bootstrap: str, topic: str, eventually: Callable[..., None]) -> None:
    zombie = producer_of(bootstrap, topic)
    zombie.begin_transaction()
    send(zombie, topic, "of the zombie")
    successor = producer_of(bootstrap, topic)  # aborts what the other has open
    successor.begin_transaction()
    send(successor, topic, "of the successor")
    successor.commit_transaction(30)
    with pytest.raises(ck.KafkaException, match="FATAL"):
        zombie.commit_transaction(30)
    eventually(shows(bootstrap, topic, "of the successor"), 30)


def test_a_transaction_that_takes_too_long(start_broker: Callable[..., Broker], eventually: Callable[..., None]) -> None:
    broker = start_broker(args=QUICK)
    make_topic(broker.bootstrap, "t")
    producer = producer_of(broker.bootstrap, "x", **{"transaction.timeout.ms": 1000})
    producer.begin_transaction()
    send(producer, "t", "late")
    eventually(lambda: read(broker.bootstrap, "t") == everywhere() and stable(broker.bootstrap, "t"), 30)
    with pytest.raises(ck.KafkaException):
        producer.commit_transaction(30)
    assert read(broker.bootstrap, "t") == everywhere()


def stable(bootstrap: str, topic: str) -> bool:
    """Whether no transaction is open: the last stable offset is the end."""
    offsets = []
    for level in ("read_committed", "read_uncommitted"):
        consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "ends", "isolation.level": level})
        offsets.append([consumer.get_watermark_offsets(ck.TopicPartition(topic, p), 10) for p in range(PARTITIONS)])
        consumer.close()
    return offsets[0] == offsets[1]


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
def test_a_kill_in_the_middle_of_an_end(start_broker: Callable[..., Broker], eventually: Callable[..., None], commit: bool) -> None:
    """Whenever the broker dies, all partitions show a transaction or none does; after the answer there is only one possibility."""
    broker = start_broker(args=QUICK)
    bootstrap = broker.bootstrap
    make_topic(bootstrap, "t")
    chance = random.Random()
    expected: list[str] = []
    for number in range(4):
        producer = producer_of(bootstrap, "x")
        producer.begin_transaction()
        send(producer, "t", str(number))
        answered = threading.Event()

        def end(producer: ck.Producer = producer, answered: threading.Event = answered) -> None:
            try:
                producer.commit_transaction(2) if commit else producer.abort_transaction(2)
            except ck.KafkaException:
                return
            answered.set()

        ending = threading.Thread(target=end)
        ending.start()
        if number % 2:
            answered.wait(10)
        else:
            time.sleep(chance.random() * 0.01)
        broker.kill()
        ending.join()
        broker.start()
        producer_of(bootstrap, "x")  # whatever is open is aborted, whatever was decided is brought to its end
        eventually(lambda: stable(bootstrap, "t"), 30)
        found = read(bootstrap, "t")
        assert all(each == found[0] for each in found), found
        if answered.is_set() and commit:
            assert found[0][-1:] == [str(number)]
        if not commit:
            assert found[0] == []
        assert found[0][: len(expected)] == expected, "what was shown once stays"
        expected = found[0]


# -- Python's own -------------------------------------------------------------------------------------------------------------------


def test_kafka_python(bootstrap: str, topic: str, eventually: Callable[..., None]) -> None:
    producer: Any = kafka.KafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
    producer.init_transactions()
    for commit, value in ((True, b"a"), (False, b"b"), (True, b"c")):
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.send(topic, value, partition=partition)
        if commit:
            producer.commit_transaction()
        else:
            producer.flush(30)
            producer.abort_transaction()
    producer.close()
    eventually(shows(bootstrap, topic, "a", "c"), 30)
    assert read(bootstrap, topic, committed=False) == everywhere("a", "b", "c")

    for level, count in (("read_committed", 2), ("read_uncommitted", 3)):
        consumer: Any = kafka.KafkaConsumer(
            topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level=level, consumer_timeout_ms=3000, group_id=None
        )
        assert len(list(consumer)) == count * PARTITIONS
        consumer.close()


def test_aiokafka(bootstrap: str, topic: str, eventually: Callable[..., None]) -> None:
    group = f"{topic}-group"

    async def run() -> int:
        producer: Any = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
        await producer.start()
        at: Any = aiokafka.TopicPartition(topic, 0)
        try:
            async with producer.transaction():
                for partition in range(PARTITIONS):
                    await producer.send_and_wait(topic, b"a", partition=partition)
                await producer.send_offsets_to_transaction({at: 7}, group)
            await producer.begin_transaction()
            for partition in range(PARTITIONS):
                await producer.send_and_wait(topic, b"b", partition=partition)
            await producer.send_offsets_to_transaction({at: 8}, group)
            await producer.abort_transaction()
        finally:
            await producer.stop()
        consumer: Any = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, isolation_level="read_committed")
        await consumer.start()
        try:
            async with asyncio.timeout(30):
                while (offset := await consumer.committed(at)) is None:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.1)
            return int(offset)
        finally:
            await consumer.stop()

    assert asyncio.run(run()) == 7
    eventually(shows(bootstrap, topic, "a"), 30)
    assert read(bootstrap, topic, committed=False) == everywhere("a", "b")
