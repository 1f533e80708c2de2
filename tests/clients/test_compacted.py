"""Compacted topics as clients see them: the newest value of every key, offsets that never move, groups that go on."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPythonPartition

from tests.support.metrics import total
from tests.support.process import Broker, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = 300
CLEANING = ["--set", "log.cleaner.backoff.ms=50", "--set", "log.cleaner.min.cleanable.ratio=0.01"]


def start(start_broker: Callable[..., Broker], engine: str, *more: str) -> tuple[Broker, str]:
    metrics = f"127.0.0.1:{free_port()}"
    return start_broker(io=engine, args=[*CLEANING, "--metrics", metrics, *more]), metrics


def create(bootstrap: str, name: str, **config: str) -> None:
    settings = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20), "delete.retention.ms": "0"} | config
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, config=settings)])[name].result()


def fill(bootstrap: str, topic: str, codec: str, rounds: int) -> dict[bytes, tuple[int, bytes]]:
    """Writes some MB under few keys; the newest offset and value of each."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 5})
    newest: dict[bytes, tuple[int, bytes]] = {}
    rng = random.Random(rounds)

    def delivered(error: object, message: object) -> None:
        assert error is None
        newest[message.key()] = message.offset(), message.value()  # type: ignore[attr-defined]

    for i in range(rounds * KEYS):
        body = rng.randbytes(500)
        producer.produce(topic, body if i % 11 else None, b"key-%d" % (i % KEYS), on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(60) == 0
    return newest


def consume(bootstrap: str, topic: str) -> list[tuple[int, bytes, bytes | None]]:
    """All records, by librdkafka, from the first to the last offset."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    partition = TopicPartition(topic, 0, 0)
    consumer.assign([partition])
    start, end = consumer.get_watermark_offsets(partition)
    found: list[tuple[int, bytes, bytes | None]] = []
    deadline = time.monotonic() + 60
    while start < end and consumer.position([partition])[0].offset < end:
        assert time.monotonic() < deadline
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None
            offset, key = message.offset(), message.key()
            assert offset is not None
            assert key is not None
            found.append((offset, key, message.value()))
            if offset == end - 1:
                break
    consumer.close()
    return found


def newest_of(records: list[tuple[int, bytes, bytes | None]]) -> dict[bytes, tuple[int, bytes]]:
    """Offset and value of each key's newest record, but for keys that were deleted."""
    last = {key: (offset, value) for offset, key, value in records}
    return {key: (offset, value) for key, (offset, value) in last.items() if value is not None}


def same_but_compacted(later: list[tuple[int, bytes, bytes | None]], earlier: list[tuple[int, bytes, bytes | None]]) -> bool:
    """Whether a second reading has nothing that the first had not, and the newest of each key: the cleaner may run between any two."""
    offsets = [offset for offset, _, _ in later]
    return offsets == sorted(set(offsets)) and set(later) <= set(earlier) and newest_of(later) == newest_of(earlier)


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_clients_read_the_newest_of_each_key(
    start_broker: Callable[..., Broker], engine: str, fresh_name: str, eventually: Callable[..., None], codec: str
) -> None:
    """librdkafka and kafka-python read across the gaps; the last value of each key is there, older ones of the clean part are not."""
    broker, metrics = start(start_broker, engine)
    create(broker.bootstrap, fresh_name)
    newest = fill(broker.bootstrap, fresh_name, codec, 20)
    eventually(lambda: total(metrics, "fastlog_cleaner_runs_total") > 0, 60)
    eventually(lambda: total(metrics, "fastlog_cleaner_max_dirty_ratio") == 0 and total(metrics, "fastlog_cleaner_running") == 0, 60)
    found = consume(broker.bootstrap, fresh_name)
    assert len(found) < 20 * KEYS
    offsets = [offset for offset, _, _ in found]
    assert offsets == sorted(set(offsets))
    assert newest_of(found) == {key: at for key, at in newest.items() if at[1] is not None}
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    reader.assign([KafkaPythonPartition(fresh_name, 0)])
    again: list[tuple[int, bytes, bytes | None]] = []
    while not again or again[-1][0] < offsets[-1]:  # the newest record is in the active segment, which stays as it is
        again += [(r.offset, r.key, r.value) for batch in reader.poll(10_000).values() for r in batch]
    reader.close()
    assert same_but_compacted(again, found)
    assert total(metrics, "fastlog_cleaner_uncleanable_partitions") == 0
    broker.kill()
    broker.start()
    assert same_but_compacted(consume(broker.bootstrap, fresh_name), again)
    assert fill(broker.bootstrap, fresh_name, codec, 1).keys() == newest.keys()


def test_committed_offsets_are_compacted(start_broker: Callable[..., Broker], engine: str, eventually: Callable[..., None]) -> None:
    """__consumer_offsets does not grow with the number of commits, and tells after a restart what was committed last."""
    settings = ("offsets.topic.segment.bytes=1048576", "offsets.topic.num.partitions=1")
    broker, metrics = start(start_broker, engine, *(part for text in settings for part in ("--set", text)))
    create(broker.bootstrap, "t")
    group = {"bootstrap.servers": broker.bootstrap, "group.id": "g", "enable.auto.commit": False}
    consumer = Consumer(group)
    note = "x" * 4000
    for offset in range(1, 701):
        consumer.commit(offsets=[TopicPartition("t", 0, offset, metadata=note)], asynchronous=False)
    eventually(lambda: total(metrics, "fastlog_cleaner_runs_total") > 0, 60)
    directory = broker.data / "__consumer_offsets-0"
    eventually(lambda: sum(p.stat().st_size for p in sorted(directory.glob("*.log"))[:-1]) < 100_000, 60)
    consumer.close()
    broker.stop()
    broker.start()
    consumer = Consumer(group)
    assert consumer.committed([TopicPartition("t", 0)])[0].offset == 700
    consumer.close()


def test_a_damaged_log_stops_no_other(
    start_broker: Callable[..., Broker], engine: str, fresh_name: str, eventually: Callable[..., None]
) -> None:
    """It is named in the log with file and byte, counted, and left as it is; another topic is compacted all the same."""
    broker, metrics = start(start_broker, engine, "--set", "log.cleaner.enable=false")
    create(broker.bootstrap, "bad")
    fill(broker.bootstrap, "bad", "none", 10)
    broker.stop()
    name = broker.data / "bad-0" / f"{0:020}.log"
    damaged = bytearray(name.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    name.write_bytes(damaged)
    broker.args = [*broker.args, "--set", "log.cleaner.enable=true"]
    broker.start()
    create(broker.bootstrap, "good")
    fill(broker.bootstrap, "good", "none", 10)
    eventually(lambda: total(metrics, "fastlog_cleaner_runs_total") > 0, 60)
    assert total(metrics, "fastlog_cleaner_uncleanable_partitions") == 1
    assert total(metrics, "fastlog_cleaner_uncleanable_bytes") > 500_000
    assert "bad-0 can't be compacted" in broker.log
    assert "a batch with a wrong CRC" in broker.log
    assert name.read_bytes() == damaged


def test_a_topic_is_deleted_while_it_is_compacted(
    start_broker: Callable[..., Broker], engine: str, fresh_name: str, eventually: Callable[..., None]
) -> None:
    """The compaction ends at once, and a new topic of the same name starts empty."""
    broker, metrics = start(start_broker, engine, "--set", "log.cleaner.io.max.bytes.per.second=100000")
    create(broker.bootstrap, fresh_name)
    fill(broker.bootstrap, fresh_name, "none", 20)
    eventually(lambda: total(metrics, "fastlog_cleaner_running") == 1, 60)
    began = time.monotonic()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics([fresh_name])[fresh_name].result()
    assert time.monotonic() - began < 20  # at that rate it would have taken a minute
    create(broker.bootstrap, fresh_name)
    assert consume(broker.bootstrap, fresh_name) == []
    assert not list((broker.data / f"{fresh_name}-0").glob("*.cleaned"))
    assert total(metrics, "fastlog_cleaner_uncleanable_partitions") == 0
