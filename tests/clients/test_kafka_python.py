"""kafka-python, a client written in Python alone, with its default settings (idempotent, acks=all)."""

import time
from collections.abc import Iterator
from typing import Any

import kafka
import kafka.admin
import kafka.errors
import pytest

from tests.support.records import EPOCH_MS, Event, awkward, by_key, many
from tests.support.wire import stored_batches

TopicPartition: Any = kafka.TopicPartition


@pytest.fixture
def admin(bootstrap: str) -> Iterator[Any]:
    made: Any = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
    yield made
    made.close()


@pytest.fixture
def topic(admin: Any, fresh_name: str) -> Iterator[str]:
    """A topic with three partitions."""
    admin.create_topics({fresh_name: {"num_partitions": 3, "replication_factor": 1}})
    yield fresh_name
    admin.delete_topics([fresh_name])


def produce(bootstrap: str, topic: str, events: list[Event], partition: int | None = None, **settings: Any) -> list[tuple[int, int]]:
    """Sends; returns (partition, offset) of each record."""
    producer: Any = kafka.KafkaProducer(bootstrap_servers=bootstrap, max_request_size=2_000_000, **settings)
    futures = [producer.send(topic, e.value, e.key, headers=list(e.headers), partition=partition, timestamp_ms=e.timestamp) for e in events]
    producer.flush(60)
    done = [(found.partition, found.offset) for found in (f.get(30) for f in futures)]
    producer.close()
    return done


def consume(consumer: Any, count: int, timeout_s: float = 45.0) -> list[Any]:
    read: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(read) < count:
        assert time.monotonic() < deadline, f"read {len(read)} of {count} records in {timeout_s:.0f} s"
        for records in consumer.poll(timeout_ms=500).values():
            read += records
    return read


def as_event(record: Any) -> Event:
    return Event(record.key, record.value, tuple(record.headers), record.timestamp)


def reader(bootstrap: str, *topics: str, **settings: Any) -> Any:
    return kafka.KafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)


def test_writes_and_reads_back(bootstrap: str, topic: str) -> None:
    events = awkward() + many(2000)
    done = produce(bootstrap, topic, events)
    consumer = reader(bootstrap, topic, group_id=topic)
    read = consume(consumer, len(events))
    consumer.close()
    assert by_key(as_event(r) for r in read) == by_key(events)
    assert sorted((r.partition, r.offset) for r in read) == sorted(done)
    assert all(b.producer_id >= 0 for p in range(3) for b in stored_batches(bootstrap, topic, p)), "idempotence is this client's default"


def test_gzip_is_kept_as_sent(bootstrap: str, topic: str) -> None:
    events = many(1000)
    produce(bootstrap, topic, events, 0, compression_type="gzip", linger_ms=50)
    consumer = reader(bootstrap)
    consumer.assign([TopicPartition(topic, 0)])
    assert [as_event(r) for r in consume(consumer, len(events))] == events
    consumer.close()
    assert "gzip" in {b.codec for b in stored_batches(bootstrap, topic)}


def test_group_goes_on_where_it_stopped(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, many(200), 1)
    first = reader(bootstrap, topic, group_id=topic, max_poll_records=50, enable_auto_commit=False)
    read = len(consume(first, 50))
    first.commit()
    first.close()
    second = reader(bootstrap, topic, group_id=topic)
    assert second.committed(TopicPartition(topic, 1)) == read
    assert [r.offset for r in consume(second, 200 - read)] == list(range(read, 200))
    second.close()


def test_times_and_ends(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, many(500), 2)
    consumer = reader(bootstrap)
    where = TopicPartition(topic, 2)
    assert consumer.beginning_offsets([where]) == {where: 0}
    assert consumer.end_offsets([where]) == {where: 500}
    found = consumer.offsets_for_times({where: EPOCH_MS + 123})[where]
    assert (found.offset, found.timestamp) == (123, EPOCH_MS + 123)
    assert consumer.offsets_for_times({where: EPOCH_MS + 9999})[where] is None
    consumer.close()


def test_admin_topics(admin: Any, fresh_name: str) -> None:
    settings = {"retention.ms": "3600000"}
    admin.create_topics({fresh_name: {"num_partitions": 2, "replication_factor": 1, "configs": settings}})
    with pytest.raises(kafka.errors.TopicAlreadyExistsError):
        admin.create_topics({fresh_name: {"num_partitions": 2, "replication_factor": 1}})
    admin.create_partitions({fresh_name: 5})
    (described,) = admin.describe_topics([fresh_name])
    assert len(described["partitions"]) == 5
    resource = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, fresh_name)
    found = admin.describe_configs([resource])
    assert found["topic"][fresh_name]["retention.ms"]["value"] == "3600000"
    change = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, fresh_name, {"retention.ms": "7200000"})
    admin.alter_configs([change])
    assert admin.describe_configs([resource])["topic"][fresh_name]["retention.ms"]["value"] == "7200000"
    admin.delete_topics([fresh_name])
    assert fresh_name not in admin.list_topics()


def test_admin_groups(bootstrap: str, admin: Any, topic: str) -> None:
    produce(bootstrap, topic, many(20), 0)
    consumer = reader(bootstrap, topic, group_id=topic)
    consume(consumer, 20)
    consumer.commit()
    assert admin.describe_groups([topic])[topic]["group_state"] == "Stable"
    consumer.close()
    assert topic in {g["group_id"] for g in admin.list_groups()}
    where = TopicPartition(topic, 0)
    assert admin.list_group_offsets({topic: [where]})[topic][where].offset == 20
    admin.delete_records({where: 5})
    assert admin.list_partition_offsets({where: kafka.admin.OffsetSpec.EARLIEST})[where].offset == 5
    admin.delete_groups([topic])
    assert topic not in {g["group_id"] for g in admin.list_groups()}
