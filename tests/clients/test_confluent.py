"""confluent-kafka (librdkafka 2), with its default settings."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from tests.support.records import EPOCH_MS, Event, awkward, by_key, many
from tests.support.wire import stored_batches

admin_api: Any = confluent_kafka.admin  # partly untyped


@pytest.fixture
def admin(bootstrap: str) -> Any:
    return admin_api.AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic(admin: Any, fresh_name: str) -> Iterator[str]:
    """A topic with three partitions."""
    admin.create_topics([admin_api.NewTopic(fresh_name, 3, 1)])[fresh_name].result(15)
    yield fresh_name
    admin.delete_topics([fresh_name])[fresh_name].result(15)


def produce(bootstrap: str, topic: str, events: list[Event], partition: int = -1, **settings: Any) -> list[tuple[int, int]]:
    """Sends; returns (partition, offset) of each record in the order of acknowledgement."""
    producer = ck.Producer({"bootstrap.servers": bootstrap, **settings})
    done: list[tuple[int, int]] = []
    failed: list[str] = []

    def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
        if error:
            failed.append(error.str())
        else:
            done.append((message.partition() or 0, message.offset() or 0))

    for event in events:
        producer.produce(
            topic,
            event.value,
            event.key,
            partition=partition,
            on_delivery=delivered,
            timestamp=event.timestamp,
            headers=list(event.headers) or None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed
    return done


def consume(consumer: ck.Consumer, count: int, timeout_s: float = 45.0) -> list[ck.Message]:
    """The next `count` records; fewer fail the test."""
    read: list[ck.Message] = []
    deadline = time.monotonic() + timeout_s
    while len(read) < count:
        assert time.monotonic() < deadline, f"read {len(read)} of {count} records in {timeout_s:.0f} s"
        message = consumer.poll(0.5)
        if message is not None:
            error = message.error()
            assert error is None, error.str() if error else ""
            read.append(message)
    return read


def as_event(message: ck.Message) -> Event:
    headers = tuple((str(k), v.encode() if isinstance(v, str) else v) for k, v in list(message.headers() or []))
    return Event(message.key(), message.value(), headers, message.timestamp()[1])


def reader(bootstrap: str, group: str, **settings: Any) -> ck.Consumer:
    return ck.Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", **settings})


@pytest.mark.parametrize("settings", [{}, {"enable.idempotence": True}, {"acks": 1}], ids=["default", "idempotent", "acks1"])
def test_writes_and_reads_back(bootstrap: str, topic: str, settings: dict[str, Any]) -> None:
    events = awkward() + many(5000)
    done = produce(bootstrap, topic, events, **settings)
    consumer = reader(bootstrap, topic)
    consumer.subscribe([topic])
    read = consume(consumer, len(events))
    consumer.close()
    assert by_key(as_event(m) for m in read) == by_key(events)
    assert sorted((m.partition(), m.offset()) for m in read) == sorted(done)
    for number in range(3):
        assert [m.offset() for m in read if m.partition() == number] == list(range(sum(1 for p, _ in done if p == number)))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compression_is_kept_as_sent(bootstrap: str, topic: str, codec: str) -> None:
    events = many(3000) + awkward()
    produce(bootstrap, topic, events, partition=0, **{"compression.type": codec, "linger.ms": 50})
    consumer = reader(bootstrap, topic)
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    assert [as_event(m) for m in consume(consumer, len(events))] == events
    consumer.close()
    # A batch that does not shrink is sent as it is.
    assert codec in {b.codec for b in stored_batches(bootstrap, topic) if b.count > 1}


def test_idempotence_numbers_every_batch(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, many(2000), partition=1, **{"enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 100})
    batches = stored_batches(bootstrap, topic, 1)
    assert len({b.producer_id for b in batches}) == 1
    assert batches[0].producer_id >= 0
    assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


def test_two_members_share_and_one_takes_over(bootstrap: str, topic: str) -> None:
    """Both get partitions; when one leaves, the other reads all from what was committed: nothing lost, nothing twice."""
    first, second = reader(bootstrap, topic, **{"enable.auto.commit": False}), reader(bootstrap, topic, **{"enable.auto.commit": False})
    first.subscribe([topic])
    second.subscribe([topic])
    deadline = time.monotonic() + 45
    while not (first.assignment() and second.assignment() and len(first.assignment() + second.assignment()) == 3):
        assert time.monotonic() < deadline, "the partitions were not shared out"
        assert first.poll(0.1) is None
        assert second.poll(0.1) is None
    events = [Event(b"%d" % i, b"%d" % i) for i in range(300)]
    produce(bootstrap, topic, events)
    mine = {p.partition for p in first.assignment()}
    expected = dict.fromkeys(range(3), 0)
    for done in produce(bootstrap, topic, events):
        expected[done[0]] += 2
    read = consume(first, sum(expected[p] for p in mine))
    first.commit(asynchronous=False)
    first.close()
    read += consume(second, 600 - len(read))
    assert sorted(int(m.value() or b"") for m in read) == sorted([*range(300)] * 2)
    second.close()


def test_offsets_survive_the_consumer(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, many(100), partition=2)
    first = reader(bootstrap, topic)
    first.subscribe([topic])
    consume(first, 60)
    first.commit(asynchronous=False)
    first.close()
    second = reader(bootstrap, topic)
    assert second.committed([ck.TopicPartition(topic, 2)], 15)[0].offset == 60
    second.subscribe([topic])
    assert [m.offset() for m in consume(second, 40)] == list(range(60, 100))
    second.close()


def test_waiting_consumer_gets_a_record_at_once(bootstrap: str, topic: str) -> None:
    consumer = reader(bootstrap, topic)
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    assert consumer.poll(1.0) is None
    sender = threading.Timer(0.3, lambda: produce(bootstrap, topic, [Event(b"k", b"now")], partition=0, **{"linger.ms": 0}))
    sender.start()
    (message,) = consume(consumer, 1, 10)
    assert message.value() == b"now"
    sender.join()
    consumer.close()


def test_times(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, many(1000), partition=0)
    consumer = reader(bootstrap, topic)
    for asked, expected in ((EPOCH_MS - 5, 0), (EPOCH_MS + 400, 400), (EPOCH_MS + 5000, -1)):
        found = consumer.offsets_for_times([ck.TopicPartition(topic, 0, asked)], 15)[0]
        assert found.offset == expected
    assert consumer.get_watermark_offsets(ck.TopicPartition(topic, 0), 15) == (0, 1000)
    consumer.close()


def test_admin_topics(admin: Any, fresh_name: str) -> None:
    settings = {"retention.ms": "3600000", "max.message.bytes": "2000000"}
    admin.create_topics([admin_api.NewTopic(fresh_name, 2, 1, config=settings)])[fresh_name].result(15)
    with pytest.raises(ck.KafkaException, match="TOPIC_ALREADY_EXISTS"):
        admin.create_topics([admin_api.NewTopic(fresh_name, 2, 1)])[fresh_name].result(15)
    admin.create_partitions([admin_api.NewPartitions(fresh_name, 4)])[fresh_name].result(15)
    found = admin.describe_topics(ck.TopicCollection([fresh_name]))[fresh_name].result(15)
    assert len(found.partitions) == 4
    resource = admin_api.ConfigResource(admin_api.ResourceType.TOPIC, fresh_name)
    described = admin.describe_configs([resource])[resource].result(15)
    assert {k: described[k].value for k in settings} == settings
    entry = admin_api.ConfigEntry("retention.ms", "7200000", incremental_operation=admin_api.AlterConfigOpType.SET)
    drop = admin_api.ConfigEntry("max.message.bytes", None, incremental_operation=admin_api.AlterConfigOpType.DELETE)
    change = admin_api.ConfigResource(admin_api.ResourceType.TOPIC, fresh_name, incremental_configs=[entry, drop])
    admin.incremental_alter_configs([change])[change].result(15)
    described = admin.describe_configs([resource])[resource].result(15)
    assert described["retention.ms"].value == "7200000"
    assert described["max.message.bytes"].is_default
    admin.delete_topics([fresh_name])[fresh_name].result(15)
    assert fresh_name not in admin.list_topics(timeout=15).topics


def test_admin_deletes_records(bootstrap: str, admin: Any, topic: str) -> None:
    produce(bootstrap, topic, many(100), partition=0)
    asked = ck.TopicPartition(topic, 0, 30)
    (future,) = admin.delete_records([asked]).values()
    assert future.result(15).low_watermark == 30
    where = ck.TopicPartition(topic, 0)
    (first,) = admin.list_offsets({where: admin_api.OffsetSpec.earliest()}).values()
    (last,) = admin.list_offsets({where: admin_api.OffsetSpec.latest()}).values()
    assert (first.result(15).offset, last.result(15).offset) == (30, 100)
    consumer = reader(bootstrap, topic)
    consumer.assign([ck.TopicPartition(topic, 0, ck.OFFSET_BEGINNING)])
    assert consume(consumer, 1)[0].offset() == 30
    consumer.close()


def test_admin_groups(bootstrap: str, admin: Any, topic: str) -> None:
    produce(bootstrap, topic, many(30), partition=0)
    consumer = reader(bootstrap, topic)
    consumer.subscribe([topic])
    consume(consumer, 30)
    consumer.commit(asynchronous=False)
    described = admin.describe_consumer_groups([topic])[topic].result(15)
    assert described.state == ck.ConsumerGroupState.STABLE
    assert len(described.members) == 1
    assert {p.partition for p in described.members[0].assignment.topic_partitions} == {0, 1, 2}
    consumer.close()
    assert topic in {g.group_id for g in admin.list_consumer_groups().result(15).valid}
    moved = ck.ConsumerGroupTopicPartitions(topic, [ck.TopicPartition(topic, 0, 7)])
    admin.alter_consumer_group_offsets([moved])[topic].result(15)
    found = admin.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(topic)])[topic].result(15)
    assert {p.partition: p.offset for p in found.topic_partitions if p.offset >= 0}[0] == 7
    admin.delete_consumer_groups([topic])[topic].result(15)
    assert topic not in {g.group_id for g in admin.list_consumer_groups().result(15).valid}


def test_admin_cluster(bootstrap: str, admin: Any) -> None:
    found = admin.describe_cluster().result(15)
    assert found.cluster_id
    assert f"{found.nodes[0].host}:{found.nodes[0].port}" == bootstrap


def test_a_record_too_large_is_refused_by_name(bootstrap: str, admin: Any, fresh_name: str) -> None:
    new = admin_api.NewTopic(fresh_name, 1, 1, config={"max.message.bytes": "10000"})
    admin.create_topics([new])[fresh_name].result(15)
    producer = ck.Producer({"bootstrap.servers": bootstrap})
    said: list[int] = []
    producer.produce(fresh_name, b"x" * 20_000, on_delivery=lambda error, _: said.append(error.code() if error else 0))
    producer.flush(30)  # or both would share a batch, and its fate
    producer.produce(fresh_name, b"small", on_delivery=lambda error, _: said.append(error.code() if error else 0))
    producer.flush(30)
    assert said == [ck.KafkaError.MSG_SIZE_TOO_LARGE, 0]
