"""The consumer against a broker: columns, records, places, groups, and what can go wrong."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from fastlog.client import Admin, ClosedError, ConfigError, Consumer, Producer, Record, RecordBatch, TopicPartition, errors
from fastlog.client.json import json_deserializer, json_serializer
from tests.support.java import java

Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def filled(bootstrap: str, topic: str) -> str:
    """3,000 records, a thousand in each partition: values are numbers, timestamps 1,000,000 ms and a second more each."""
    with Producer(bootstrap_servers=bootstrap, batch_size=4096) as producer:
        for p in range(3):
            times = np.arange(1000, dtype=np.int64) * 1000 + 1_000_000
            values = [b"%d" % i for i in range(1000)]
            producer.send_batch(topic, values, timestamps=times, partitions=p, headers={"p": b"%d" % p}).result(30)
    return topic


def batches(consumer: Consumer, count: int) -> list[RecordBatch]:
    made: list[RecordBatch] = []
    deadline = time.monotonic() + 45
    while sum(map(len, made)) < count and time.monotonic() < deadline:
        made += consumer.poll_batches(0.5)
    assert sum(map(len, made)) == count
    return made


def test_columns(bootstrap: str, filled: str) -> None:
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(filled, p): 0 for p in range(3)})
        found = batches(consumer, 3000)
    for p in range(3):
        mine = [b for b in found if b.partition == p]
        assert [o for b in mine for o in b.offsets] == list(range(1000))
        assert [v for b in mine for v in b.value_list()] == [b"%d" % i for i in range(1000)]
        columns = [b.to_numpy() for b in mine]
        assert np.concatenate([c["timestamps"].astype(np.int64) for c in columns]).tolist() == [1_000_000 + 1000 * i for i in range(1000)]
        first = mine[0]
        data, ends = first.values
        assert bytes(data[ends[7] : ends[8]]) == b"7"
        assert first.topic == filled
        assert first[7].value == b"7"
        assert first[-1].offset == len(first) - 1
        assert [r.headers for r in first[2:4]] == [[("p", b"%d" % p)]] * 2
        assert first[3:].offsets[0] == 3
        assert first[:3].next_offset == 3
        assert first.nbytes == sum(len(b"%d" % i) for i in range(len(first)))
        with pytest.raises(IndexError):
            first[len(first)]


def test_views_outlive_batch_and_consumer(bootstrap: str, filled: str) -> None:
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(filled, 0): 0})
        (offsets,) = [np.asarray(b.offsets) for b in batches(consumer, 1000)][:1]
    del consumer
    assert offsets[:3].tolist() == [0, 1, 2]


def test_places(bootstrap: str, filled: str, eventually: Eventually) -> None:
    at = TopicPartition(filled, 1)
    with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([at])
        assert [r.offset for r in consumer.poll(5, 10)] == [0, 1, 2, 3, 4]
        assert consumer.position(at) == 5
        consumer.seek(at, 990)
        assert [r.offset for r in consumer.poll(5, 10)] == list(range(990, 995))
        assert [b.offsets[0] for b in consumer.poll_batches(10)] == [995]
        assert consumer.lag(at) == 0
        consumer.seek_to_beginning()
        assert consumer.poll(1, 10)[0].offset == 0
        found = consumer.offsets_for_times({at: 1_500_500, (filled, 2): 99_000_000})
        assert found[at] == (501, 1_501_000)
        assert found[TopicPartition(filled, 2)] is None
        assert consumer.beginning_offsets([at]) == {at: 0}
        assert consumer.end_offsets([at]) == {at: 1000}
        consumer.seek_to_end([at])
        assert consumer.poll(1, 0.3) == []
        eventually(lambda: consumer.poll(1, 0.1) == [] and consumer.at_end, 30)
        with pytest.raises(KeyError):
            consumer.seek((filled, 0), 0)
        with pytest.raises(ConfigError, match="group_id"):
            consumer.commit()
        with pytest.raises(ConfigError, match="group_id"):
            consumer.subscribe([filled])
    with pytest.raises(ClosedError):
        consumer.poll()


def test_pause_and_resume(bootstrap: str, filled: str) -> None:
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(filled, p): 0 for p in range(3)})
        first = consumer.poll(10, 10)[0].partition
        consumer.pause([(filled, first)])
        assert consumer.paused() == [(filled, first)]
        rest: list[Record] = []
        while len(rest) < 2000:
            rest += consumer.poll(500, 10)
        assert first not in {r.partition for r in rest}
        assert consumer.poll(1, 0.2) == []
        consumer.resume([(filled, first)])
        again: list[Record] = []
        while len(again) < 990:
            again += consumer.poll(500, 10)
        assert [r.offset for r in again] == list(range(10, 1000))


def test_offsets_that_are_not_there(bootstrap: str, filled: str) -> None:
    with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="none") as consumer:
        consumer.assign({(filled, 0): 5_000_000})
        with pytest.raises(errors.OffsetOutOfRangeError):
            consumer.poll(1, 30)
        consumer.seek((filled, 0), 999)
        assert consumer.poll(1, 10)[0].offset == 999
    with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign({(filled, 0): 5_000_000})
        assert consumer.poll(1, 20)[0].offset == 0


def test_a_topic_that_comes_later(bootstrap: str, fresh_name: str, admin: Admin) -> None:
    with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=fresh_name) as consumer:
        consumer.assign({(fresh_name, 0): 0})
        assert consumer.poll(1, 0.3) == []
        admin.create_topic(fresh_name, 1)
        with Producer(bootstrap_servers=bootstrap) as producer:
            producer.send(fresh_name, b"here").result(30)
        assert consumer.poll(1, 30)[0].value == b"here"


@pytest.mark.one_engine
@pytest.mark.parametrize("how", ["names", "pattern"])
def test_a_group_waits_for_a_topic(
    bootstrap: str, fresh_name: str, admin: Admin, how: str, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """The broker is asked again, soon for a name, with a pattern every metadata_max_age_ms."""
    with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=fresh_name, metadata_max_age_ms=500) as consumer:
        came: list[TopicPartition] = []
        took_up = threading.Event()

        def assigned(parts: list[TopicPartition]) -> None:
            came.extend(parts)
            took_up.set()

        if how == "names":
            consumer.subscribe([fresh_name], on_assign=assigned)
        else:
            consumer.subscribe(pattern=f"{fresh_name}.*", on_assign=assigned)
        eventually(lambda: consumer.poll(1, 0.1) == [] and took_up.is_set(), 60)
        assert came == []
        if how == "names":
            eventually(lambda: f"topic {fresh_name!r}: unknown topic or partition" in caplog.text, 60)
        admin.create_topic(fresh_name, 2)
        with Producer(bootstrap_servers=bootstrap) as producer:
            eventually(lambda: fresh_name in {t.name for t in admin.topics()}, 20)
            producer.send(fresh_name, b"here", partition=1).result(30)
        assert consumer.poll(1, 60)[0].value == b"here"
        assert sorted(came) == [(fresh_name, 0), (fresh_name, 1)]


@pytest.mark.one_engine
def test_a_name_that_no_topic_has(bootstrap: str, fresh_name: str) -> None:
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name) as consumer:
        consumer.subscribe(["no/such"])
        with pytest.raises(errors.InvalidTopicError, match="no/such"):
            consumer.poll(1, 60)
        consumer.assign({("no/such", 0): 0})
        with pytest.raises(errors.InvalidTopicError, match="no/such"):
            consumer.poll(1, 60)


def test_a_group_shares_and_takes_over(bootstrap: str, filled: str, fresh_name: str) -> None:
    gone: list[TopicPartition] = []
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, auto_offset_reset="earliest", enable_auto_commit=False) as one:
        one.subscribe([filled], on_revoke=gone.extend)
        read = [r for _ in range(200) if len(one.assignment()) < 3 or not one.at_end for r in one.poll(1000, 0.2)]
        assert len(read) == 3000
        one.commit()
        assert set(one.committed(one.assignment()).values()) == {1000}
        two = Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, auto_offset_reset="earliest", enable_auto_commit=False)
        two.subscribe([filled])
        deadline = time.monotonic() + 60
        while not (one.assignment() and two.assignment() and len(one.assignment()) + len(two.assignment()) == 3):
            assert time.monotonic() < deadline
            assert one.poll(10, 0.1) == two.poll(10, 0.1) == [], "read again what was committed"
        assert len(gone) == 3
        with Producer(bootstrap_servers=bootstrap) as producer:
            for p in range(3):
                producer.send(filled, b"new", partition=p).result(30)
        seen: list[Record] = []
        while len(seen) < 3:
            seen += one.poll(10, 0.1) + two.poll(10, 0.1)
            assert time.monotonic() < deadline
        assert {r.partition for r in seen} == {0, 1, 2}
        one.commit()
        two.close()
        while len(one.assignment()) < 3:
            assert time.monotonic() < deadline
            one.poll(10, 0.1)


def test_commits_by_themselves(bootstrap: str, filled: str, fresh_name: str, admin: Admin, eventually: Eventually) -> None:
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, auto_offset_reset="earliest", auto_commit_interval_ms=100) as consumer:
        consumer.subscribe(pattern=filled[:-2] + "..")

        def committed() -> bool:
            consumer.poll(3000, 0.05)
            return admin.group_offsets(fresh_name) == {(filled, p): 1000 for p in range(3)}

        eventually(committed, 45)
        done = threading.Event()
        consumer.commit_async({(filled, 0): 500}, on_done=lambda _, error: done.set() if error is None else None)
        assert done.wait(20)
        assert consumer.committed([(filled, 0)]) == {(filled, 0): 500}
    described = admin.group(fresh_name)
    assert (described.state, described.members) == ("Empty", [])


@pytest.mark.long
def test_members_that_do_not_poll_leave(bootstrap: str, filled: str, fresh_name: str, admin: Admin, eventually: Eventually) -> None:
    lost: list[TopicPartition] = []
    settings: dict[str, Any] = {"session_timeout_ms": 6000, "max_poll_interval_ms": 6000, "heartbeat_interval_ms": 200}
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, **settings) as consumer:
        consumer.subscribe([filled], on_lost=lost.extend)
        while not consumer.assignment():
            consumer.poll(1, 0.1)
        eventually(lambda: admin.group_states().get(fresh_name) == "Empty", 40)
        while len(lost) < 3 or not consumer.assignment():
            consumer.poll(1, 0.1)


def test_iterating_ends_with_close(bootstrap: str, filled: str, fresh_name: str) -> None:
    consumer = Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, auto_offset_reset="earliest")
    consumer.subscribe([filled])
    seen = 0
    for _ in consumer:
        seen += 1
        if seen == 3000:
            consumer.close()
    assert seen == 3000


def test_deserializers(bootstrap: str, filled: str) -> None:
    with Consumer(bootstrap_servers=bootstrap, value_deserializer=int) as consumer:
        consumer.assign({(filled, 2): 40})
        assert [r.value for r in consumer.poll(3, 10)] == [40, 41, 42]


@pytest.mark.java
@pytest.mark.one_engine
def test_what_the_java_client_compressed(bootstrap: str, kafka_classpath: str, fresh_name: str, admin: Admin) -> None:
    admin.create_topic(fresh_name, 1)
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        lines = "".join(f"{codec} {i} {'again ' * (i % 50)}\n" for i in range(400))
        at = ("--bootstrap-server", bootstrap, "--topic", fresh_name, "--compression-codec", codec)
        java(kafka_classpath, "org.apache.kafka.tools.ConsoleProducer", *at, given=lines.encode())
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(fresh_name, 0): 0})
        values = [v for b in batches(consumer, 2000) for v in b.value_list()]
    assert values == [f"{codec} {i} {'again ' * (i % 50)}".encode() for codec in codecs for i in range(400)]


def test_json(bootstrap: str, topic: str) -> None:
    class Order(msgspec.Struct):
        item: str
        count: int

    with Producer(bootstrap_servers=bootstrap, value_serializer=json_serializer(), key_serializer=str.encode) as producer:
        producer.send(topic, Order("pear", 2), "bob", partition=0).result(30)
        producer.send_batch(topic, [Order("fig", 1), {"item": "plum", "count": 3}, {"item": 1}], partitions=0).result(30)
        with pytest.raises(TypeError):
            producer.send(topic, object())
    with Consumer(bootstrap_servers=bootstrap, value_deserializer=json_deserializer(Order)) as consumer:
        consumer.assign({(topic, 0): 0})
        found = [r.value for r in consumer.poll(3, 30)]
        assert found == [Order("pear", 2), Order("fig", 1), Order("plum", 3)]
        with pytest.raises(ValueError, match="item"):
            consumer.poll(1, 30)
    with Consumer(bootstrap_servers=bootstrap, value_deserializer=json_deserializer()) as consumer:
        consumer.assign({(topic, 0): 3})
        assert [r.value for r in consumer.poll(1, 30)] == [{"item": 1}]


def test_the_metrics_hook(bootstrap: str, topic: str, caplog: pytest.LogCaptureFixture, eventually: Eventually) -> None:
    sent: list[Mapping[str, int]] = []
    read: list[Mapping[str, int]] = []
    settings: dict[str, Any] = {"bootstrap_servers": bootstrap, "metrics_interval_ms": 20}
    with Producer(**settings, metrics_hook=sent.append) as producer:
        producer.send_batch(topic, [b"x"] * 10, partitions=0).result(30)
        eventually(lambda: len(sent) >= 2, 20)
    assert sent[-1]["records_acknowledged"] == 10
    with Consumer(**settings, metrics_hook=read.append) as consumer:
        consumer.assign({(topic, 0): 0})
        batches(consumer, 10)
    assert read[-1]["records_fetched"] == 10
    with Producer(**settings, metrics_hook=lambda m: m["missing"]) as producer:
        eventually(lambda: "the metrics hook raised" in caplog.text, 20)
        producer.send(topic, b"y").result(30)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda c, t: c.assign([(t, "0")]), TypeError),
        (lambda c, t: c.assign([t]), TypeError),
        (lambda c, t: c.assign({(t, 0): -1}), ValueError),
        (lambda c, t: c.assign([(t, -1)]), ValueError),
        (lambda c, t: c.seek((t, 0), -5), ValueError),
        (lambda c, t: c.seek((t, 0), "7"), TypeError),
        (lambda c, t: c.pause([(t, 2)]), KeyError),
        (lambda c, t: c.resume((t, 0)), TypeError),
        (lambda c, t: c.subscribe(t), TypeError),
        (lambda c, _: c.subscribe(pattern="("), ValueError),
        (lambda c, t: c.subscribe([t.encode()]), TypeError),
        (lambda c, _: c.subscribe([]), ValueError),
        (lambda c, _: c.poll(0), ValueError),
        (lambda c, t: c.offsets_for_times({(t, 0): -5}), ValueError),
        (lambda c, t: c.commit({(t, 0): (1,)}), TypeError),
        (lambda c, t: c.offsets_for_times({(t, 77): 5}), errors.UnknownTopicOrPartitionError),
        (lambda c, t: c.partitions_for(f"{t}-not"), errors.UnknownTopicOrPartitionError),
        (lambda c, t: c.commit({(t, 0): "x"}), TypeError),
        (lambda c, t: c.commit({(t, 0): -1}), ValueError),
        (lambda c, t: c.committed([(t, "0")]), TypeError),
    ],
)
@pytest.mark.one_engine
def test_what_makes_no_sense_is_refused(bootstrap: str, topic: str, fresh_name: str, wrong: Any, error: type[Exception]) -> None:
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name) as consumer:
        consumer.assign([(topic, 0)])
        with pytest.raises(error):
            wrong(consumer, topic)
