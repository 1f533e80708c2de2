"""aiokafka, the asyncio client, with its default settings, and idempotent."""

import asyncio
import time
from typing import Any

import aiokafka
import aiokafka.admin
import pytest

from tests.support.records import EPOCH_MS, Event, awkward, by_key, many
from tests.support.wire import stored_batches

TopicPartition: Any = aiokafka.TopicPartition
NewTopic: Any = aiokafka.admin.NewTopic


async def make_topic(bootstrap: str, name: str, partitions: int = 3) -> None:
    admin: Any = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, events: list[Event], partition: int | None = None, **settings: Any) -> list[tuple[int, int]]:
    """Sends; returns (partition, offset) of each record."""
    producer: Any = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, **settings)
    await producer.start()
    try:
        futures = [await producer.send(topic, e.value, e.key, partition, timestamp_ms=e.timestamp, headers=list(e.headers)) for e in events]
        return [(found.partition, found.offset) for found in await asyncio.gather(*futures)]
    finally:
        await producer.stop()


async def consume(consumer: Any, count: int, timeout_s: float = 45.0) -> list[Any]:
    read: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(read) < count:
        assert time.monotonic() < deadline, f"read {len(read)} of {count} records in {timeout_s:.0f} s"
        for records in (await consumer.getmany(timeout_ms=500)).values():
            read += records
    return read


def reader(bootstrap: str, *topics: str, **settings: Any) -> Any:
    return aiokafka.AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)


def as_event(record: Any) -> Event:
    return Event(record.key, record.value, tuple(record.headers), record.timestamp)


@pytest.mark.parametrize("idempotent", [False, True], ids=["default", "idempotent"])
def test_writes_and_reads_back(bootstrap: str, fresh_name: str, idempotent: bool) -> None:
    async def run() -> None:
        await make_topic(bootstrap, fresh_name)
        events = awkward() + many(2000)
        done = await produce(bootstrap, fresh_name, events, enable_idempotence=idempotent)
        consumer = reader(bootstrap, fresh_name, group_id=fresh_name)
        await consumer.start()
        read = await consume(consumer, len(events))
        await consumer.stop()
        assert by_key(as_event(r) for r in read) == by_key(events)
        assert sorted((r.partition, r.offset) for r in read) == sorted(done)

    asyncio.run(run())
    assert all((b.producer_id >= 0) == idempotent for p in range(3) for b in stored_batches(bootstrap, fresh_name, p))


def test_gzip_is_kept_as_sent(bootstrap: str, fresh_name: str) -> None:
    async def run() -> None:
        await make_topic(bootstrap, fresh_name, 1)
        events = many(1000)
        await produce(bootstrap, fresh_name, events, 0, compression_type="gzip", linger_ms=50)
        consumer = reader(bootstrap)
        await consumer.start()
        consumer.assign([TopicPartition(fresh_name, 0)])
        assert [as_event(r) for r in await consume(consumer, len(events))] == events
        await consumer.stop()

    asyncio.run(run())
    assert "gzip" in {b.codec for b in stored_batches(bootstrap, fresh_name)}


def test_two_members_share_and_one_takes_over(bootstrap: str, fresh_name: str) -> None:
    async def run() -> None:
        await make_topic(bootstrap, fresh_name)
        first, second = (reader(bootstrap, fresh_name, group_id=fresh_name, enable_auto_commit=False) for _ in range(2))
        await asyncio.gather(first.start(), second.start())
        deadline = time.monotonic() + 45
        while not (first.assignment() and second.assignment() and len(first.assignment() | second.assignment()) == 3):
            assert time.monotonic() < deadline, "the partitions were not shared out"
            await asyncio.gather(first.getmany(timeout_ms=100), second.getmany(timeout_ms=100))
        sent = await produce(bootstrap, fresh_name, [Event(b"%d" % i, b"%d" % i) for i in range(300)])
        mine = {p.partition for p in first.assignment()}
        read = await consume(first, sum(1 for p, _ in sent if p in mine))
        await first.commit()
        await first.stop()
        read += await consume(second, 300 - len(read))
        assert sorted(int(r.value) for r in read) == list(range(300))
        await second.stop()

    asyncio.run(run())


def test_times_and_ends(bootstrap: str, fresh_name: str) -> None:
    async def run() -> None:
        await make_topic(bootstrap, fresh_name, 1)
        await produce(bootstrap, fresh_name, many(500), 0)
        consumer = reader(bootstrap)
        await consumer.start()
        where = TopicPartition(fresh_name, 0)
        assert await consumer.beginning_offsets([where]) == {where: 0}
        assert await consumer.end_offsets([where]) == {where: 500}
        found = (await consumer.offsets_for_times({where: EPOCH_MS + 321}))[where]
        assert (found.offset, found.timestamp) == (321, EPOCH_MS + 321)
        consumer.assign([where])
        await consumer.seek_to_end()
        waiting = asyncio.create_task(consumer.getone())
        await asyncio.sleep(0.3)
        await produce(bootstrap, fresh_name, [Event(b"k", b"now")], 0)
        assert (await asyncio.wait_for(waiting, 10)).value == b"now"
        await consumer.stop()

    asyncio.run(run())


def test_admin(bootstrap: str, fresh_name: str) -> None:
    async def run() -> None:
        admin: Any = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        made = await admin.create_topics([NewTopic(fresh_name, 2, 1, topic_configs={"retention.ms": "3600000"})])
        assert [error for _, error, *_ in made.topic_errors] == [0]
        await admin.create_partitions({fresh_name: aiokafka.admin.NewPartitions(4)})
        (described,) = await admin.describe_topics([fresh_name])
        assert len(described["partitions"]) == 4
        resource = aiokafka.admin.config_resource.ConfigResource(aiokafka.admin.config_resource.ConfigResourceType.TOPIC, fresh_name)
        (answer,) = await admin.describe_configs([resource])
        assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["retention.ms"] == "3600000"
        await produce(bootstrap, fresh_name, many(10), 0)
        consumer = reader(bootstrap, fresh_name, group_id=fresh_name)
        await consumer.start()
        await consume(consumer, 10)
        await consumer.commit()
        await consumer.stop()
        assert (await admin.list_consumer_group_offsets(fresh_name))[TopicPartition(fresh_name, 0)].offset == 10
        assert fresh_name in {name for name, *_ in await admin.list_consumer_groups()}
        await admin.delete_topics([fresh_name])
        assert fresh_name not in await admin.list_topics()
        await admin.close()

    asyncio.run(run())
