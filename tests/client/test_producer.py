"""The producer against a broker: every way to give records, what becomes of them, and what is refused."""

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlog._core import column, partition_for
from fastlog.client import (
    Admin,
    BufferFullError,
    ClientError,
    ClosedError,
    ConfigError,
    Consumer,
    Producer,
    Record,
    UnreachableError,
    errors,
)
from fastlog.client.records import RecordMetadata
from tests.support.process import free_port

START = 1_700_000_000_000
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def read(bootstrap: str, topic: str, count: int, partitions: int = 3) -> list[Record]:
    """All records of the topic; another number than `count` fails the test."""
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(topic, p): 0 for p in range(partitions)})
        records: list[Record] = []
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline and not (len(records) >= count and consumer.at_end):
            records += consumer.poll(5000, 0.2)
    assert len(records) == count
    return records


@pytest.mark.parametrize("codec", CODECS)
def test_single_records_keep_everything(bootstrap: str, topic: str, codec: str) -> None:
    with Producer(bootstrap_servers=bootstrap, compression_type=codec) as producer:
        sent = [
            producer.send(topic, b"value %d" % i * 20, b"key %d" % i, headers=[("n", b"%d" % i), ("none", None)], timestamp=START + i)
            for i in range(200)
        ]
        producer.send(topic, None, b"gone").result(30)
        where = [d.result(30) for d in sent]
    assert isinstance(where[0], RecordMetadata)
    found = {(r.partition, r.offset): r for r in read(bootstrap, topic, 201)}
    for i, (name, partition, offset, _) in enumerate(where):
        record = found[partition, offset]
        assert (name, partition) == (topic, partition_for(b"key %d" % i, 3))
        assert (record.key, record.value, record.timestamp) == (b"key %d" % i, b"value %d" % i * 20, START + i)
        assert record.headers == [("n", b"%d" % i), ("none", None)]
    assert [r.value for r in found.values() if r.key == b"gone"] == [None]


def columns(kind: str, values: list[bytes]) -> Any:
    if kind == "list":
        return values
    if kind == "numpy S":
        return np.array(values)
    if kind == "numpy rows":
        return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
    if kind == "numpy objects":
        return np.array(values, dtype=object)
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32 if kind == "offsets 32" else np.int64)
    return b"".join(values), offsets


@pytest.mark.parametrize("kind", ["list", "offsets 32", "offsets 64", "numpy S", "numpy rows", "numpy objects"])
def test_columns(bootstrap: str, topic: str, kind: str) -> None:
    values = [b"%06d" % i for i in range(20_000)]
    with Producer(bootstrap_servers=bootstrap) as producer:
        done = producer.send_batch(topic, columns(kind, values), keys=[b"k%d" % (i % 7) for i in range(len(values))], headers={"h": b"1"})
        assert len(done.result(30)) == len(values)
        runs = done.batches()
    records = read(bootstrap, topic, len(values))
    assert sorted(r.value for r in records) == values
    assert all(r.headers == [("h", b"1")] for r in records[:100])
    found = {(r.partition, r.offset): r.value for r in records}
    for first, n, partition, offset, error in runs:
        assert error == 0
        assert [found[partition, offset + i] for i in range(n)] == values[first : first + n]


def test_columns_beside_values(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        values = [b"a", None, b""]
        times = np.array([5, 6, 7], dtype=np.int64)
        rows = [[("x", b"1")], None, [("y", None)]]
        producer.send_batch(topic, values, [None, b"k", b""], headers=rows, timestamps=times, partitions=[2, 1, 0]).result(30)
        producer.send_batch(topic, None, [b"only keys"], partitions=1).result(30)
    found = {(r.partition, r.value, r.key): r for r in read(bootstrap, topic, 4)}
    assert set(found) == {(2, b"a", None), (1, None, b"k"), (0, b"", b""), (1, None, b"only keys")}
    assert found[2, b"a", None].headers == [("x", b"1")]
    assert found[0, b"", b""].headers == [("y", None)]
    assert [found[k].timestamp for k in ((2, b"a", None), (1, None, b"k"), (0, b"", b""))] == [5, 6, 7]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"values": "text"}, TypeError),
        ({"values": ["text"]}, TypeError),
        ({"values": b"one"}, TypeError),
        ({"values": [b"a"], "keys": [b"a", b"b"]}, ValueError),
        ({"values": (b"abc", np.array([0, 2, 1]))}, ValueError),
        ({"values": (b"abc", np.array([0, 4]))}, ValueError),
        ({"values": (b"abc", np.array([0.0, 1.0]))}, TypeError),
        ({"values": np.zeros((2, 2, 2), np.uint8)}, TypeError),
        ({"values": [b"a"], "partitions": [3]}, ConfigError),
        ({"values": [b"a"], "partitions": [-1]}, ConfigError),
        ({"values": [b"a"], "timestamps": [1, 2]}, ValueError),
        ({"values": [b"a"], "timestamps": [-1]}, ValueError),
        ({"values": [b"a"], "timestamps": 1.5}, TypeError),
        ({"values": [b"a"], "partitions": ["0"]}, TypeError),
        ({"values": (b"abc", [0, 3])}, TypeError),
        ({"values": [b"a"], "headers": ["x"]}, TypeError),
        ({"values": [b"a"], "headers": [("x", "text")]}, TypeError),
        ({"values": [b"a" * 2_000_000]}, errors.MessageTooLargeError),
    ],
)
def test_bad_columns_are_refused(bootstrap: str, topic: str, given: dict[str, Any], error: type[Exception]) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        with pytest.raises(error):
            producer.send_batch(topic, **given)
        assert producer.send(topic, b"still works").result(30).offset >= 0


def test_bad_records_and_settings_are_refused(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        for bad in ("text", 5):
            with pytest.raises(TypeError, match="serializer"):
                producer.send(topic, bad)
        for wrong in ({"timestamp": 1.5}, {"partition": "0"}, {"headers": 5}, {"headers": ["x"]}):
            with pytest.raises(TypeError):
                producer.send(topic, b"", **wrong)
        with pytest.raises(ValueError, match="milliseconds"):
            producer.send(topic, b"", timestamp=-5)
        for name in ("a" * 40_000, "\ud800"):
            with pytest.raises(ValueError, match=r"name|codec"):
                producer.send(name, b"")
        with pytest.raises(errors.MessageTooLargeError, match="max_request_size"):
            producer.send(topic, bytes(2_000_000))
        with pytest.raises(ConfigError, match="no partition 9"):
            producer.send(topic, b"", partition=9)
    with pytest.raises(ClosedError):
        producer.send(topic, b"late")
    with pytest.raises(ConfigError, match="did you mean linger_ms"):
        Producer(bootstrap_servers=bootstrap, lingerms=5)
    with pytest.raises(ConfigError, match="by name"):
        Producer(bootstrap)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one of none, gzip"):
        Producer(bootstrap_servers=bootstrap, compression_type="brotli")
    with pytest.raises(ConfigError, match="acks=all"):
        Producer(bootstrap_servers=bootstrap, acks=1, enable_idempotence=True)


@pytest.mark.one_engine
@pytest.mark.parametrize("made", [Producer, Consumer, Admin])
def test_neither_tls_nor_authentication(bootstrap: str, made: type[Any]) -> None:
    secured: tuple[dict[str, Any], ...] = (
        {"security.protocol": "SSL"},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"},
        {"sasl.mechanism": "SCRAM-SHA-256"},
        {"sasl_plain_username": "alice"},
        {"ssl_cafile": "ca.pem"},
    )
    for wrong in secured:
        with pytest.raises(ConfigError, match="no TLS and no authentication: give it a listener whose protocol is PLAINTEXT"):
            made({"bootstrap.servers": bootstrap} | wrong)
    with made({"bootstrap.servers": bootstrap, "security.protocol": "PLAINTEXT"}):
        pass


def test_serializers_partitioner_and_dotted_settings(bootstrap: str, topic: str) -> None:
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 0, "value.serializer": str.encode, "partitioner": lambda _, n: n - 1}
    with Producer(settings) as producer:
        assert producer.send(topic, "text").result(30).partition == 2
        producer.send_batch(topic, ["a", "b"]).result(30)
        assert producer.partitions_for(topic) == 3
    assert {(r.partition, r.value) for r in read(bootstrap, topic, 3)} == {(2, b"text"), (2, b"a"), (2, b"b")}


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(bootstrap: str, topic: str, acks: int | str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:  # a topic's leader may need a moment; acks=0 would not hear of that
        producer.send_batch(topic, [b"first"] * 3, partitions=[0, 1, 2]).result(30)
    with Producer(bootstrap_servers=bootstrap, acks=acks) as producer:
        done = producer.send_batch(topic, [b"x"] * 1000).result(30)
        assert all((offset == -1) == (acks == 0) for _, _, _, offset, _ in done.batches())
    read(bootstrap, topic, 1003)


def test_callbacks_and_flush(bootstrap: str, topic: str) -> None:
    called: list[int] = []
    with Producer(bootstrap_servers=bootstrap, linger_ms=10_000) as producer:
        sent = [producer.send(topic, b"x", partition=0) for _ in range(10)]
        for one in sent:
            one.add_done_callback(lambda d: called.append(d.result(0).offset))
        assert not sent[0].done()
        with pytest.raises(TimeoutError):
            sent[0].result(0.05)
        producer.flush(30)
        assert all(one.done() for one in sent)
        late = threading.Event()
        sent[0].add_done_callback(lambda _: late.set())
        assert late.wait(10)
    assert sorted(called) == list(range(10))
    assert producer.metrics()["records_acknowledged"] == 10


def test_results_in_a_cycle_are_collected(bootstrap: str, topic: str) -> None:
    """A traceback, say, holds on to them and to itself: the collector takes them apart in an order of its own."""
    with Producer(bootstrap_servers=bootstrap) as producer:
        for _ in range(3):
            cycle: list[Any] = [producer.send_batch(topic, [b"x"] * 10), producer.send(topic, b"x"), producer]
            cycle.append(cycle)
            cycle[0].result(30)
            del cycle
            gc.collect()
        producer.flush()
        assert producer.metrics()["buffer_bytes"] == 0


def test_a_small_buffer_makes_the_caller_wait(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap, buffer_memory=1 << 18, batch_size=16384, linger_ms=1000) as producer:
        producer.send_batch(topic, [b"x" * 100] * 50_000).result(60)
        assert producer.metrics()["buffer_bytes"] == 0


def test_unknown_topics_and_unreachable_brokers(bootstrap: str, fresh_name: str) -> None:
    with Producer(bootstrap_servers=bootstrap, max_block_ms=300, allow_auto_create_topics=False) as producer:
        with pytest.raises(errors.UnknownTopicOrPartitionError, match=fresh_name):
            producer.send(fresh_name, b"x")
        with pytest.raises(errors.InvalidTopicError):
            producer.send("no/such", b"x")
    begun = time.monotonic()
    with Producer(bootstrap_servers=f"127.0.0.1:{free_port()}", max_block_ms=300) as producer, pytest.raises(UnreachableError):
        producer.send("any", b"x")
    assert time.monotonic() - begun < 30


def test_records_are_not_lost_silently(start_broker: Callable[..., Any], fresh_name: str) -> None:
    broker = start_broker()
    producer = Producer(bootstrap_servers=broker.bootstrap, delivery_timeout_ms=60_000, linger_ms=0, request_timeout_ms=1000)
    producer.send(fresh_name, b"first").result(30)
    broker.kill()
    lost = producer.send(fresh_name, b"second")
    full = Producer(bootstrap_servers=broker.bootstrap, max_block_ms=200)
    with pytest.raises(ClientError):
        full.send(fresh_name, b"x")
    full.close(0)
    producer.close(timeout=0.3)
    assert isinstance(lost.exception(0), ClosedError)
    assert producer.metrics()["records_failed"] == 1
    short = Producer(bootstrap_servers=broker.bootstrap, delivery_timeout_ms=500, linger_ms=0)
    broker.start()
    short.send(fresh_name, b"third").result(30)
    broker.kill()
    assert isinstance(short.send(fresh_name, b"fourth").exception(30), TimeoutError)
    blocked = Producer(bootstrap_servers=broker.bootstrap, max_block_ms=100)
    blocked.close()
    short.close()


def test_a_broker_restart_loses_and_doubles_nothing(start_broker: Callable[..., Any], fresh_name: str) -> None:
    """Neither for the producer nor for a consumer that reads on through it, under the new epoch of the leader."""
    broker = start_broker()
    with Producer(bootstrap_servers=broker.bootstrap, batch_size=1024, linger_ms=0) as producer:
        sent = [producer.send(fresh_name, b"0", partition=0)]
        sent[0].result(30)
        with Consumer(bootstrap_servers=broker.bootstrap, max_partition_fetch_bytes=4096) as consumer:
            consumer.assign({(fresh_name, 0): 0})
            seen = consumer.poll(1, 30)
            for i in range(1, 3000):
                sent.append(producer.send(fresh_name, b"%d" % i, partition=0))
                if i == 1000:
                    broker.kill()
                    threading.Timer(0.3, broker.start).start()
            deadline = time.monotonic() + 60
            while len(seen) < 3000 and time.monotonic() < deadline:
                seen += consumer.poll(500, 0.1)
        where = [d.result(60).offset for d in sent]
    assert where == sorted(where)
    assert [int(r.value) for r in seen] == list(range(3000))
    records = read(broker.bootstrap, fresh_name, 3000, 1)
    assert [int(r.value) for r in records] == list(range(3000))


def test_buffer_full(start_broker: Callable[..., Any], fresh_name: str) -> None:
    broker = start_broker()
    producer = Producer(bootstrap_servers=broker.bootstrap, buffer_memory=1 << 16, batch_size=4096, max_block_ms=200)
    producer.send(fresh_name, b"x").result(30)
    broker.kill()
    with pytest.raises(BufferFullError, match="max_block_ms"):
        producer.send_batch(fresh_name, [b"x" * 1000] * 1000)
    producer.close(0.1)


def test_a_fork_is_told(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer, Consumer(bootstrap_servers=bootstrap) as consumer, Admin(bootstrap) as admin:
        sent = producer.send(topic, b"x")
        sent.result(30)
        child = os.fork()
        if child == 0:
            calls = (
                lambda: producer.send(topic, b"y"),
                producer.flush,
                lambda: producer.partitions_for("another"),
                sent.result,
                lambda: consumer.poll(1, 0),
                lambda: consumer.end_offsets([(topic, 0)]),
                admin.topics,
            )
            told = 0
            try:
                for call in calls:
                    try:
                        call()
                    except ClosedError as error:
                        told += "fork" in str(error)
                producer.close()
                consumer.close()
                admin.close()
            finally:
                os._exit(len(calls) - told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        producer.send(topic, b"z").result(30)
        assert admin.end_offsets([(topic, 0)])
        consumer.assign({(topic, 0): 0})
        consumer.poll(1, 1)


def test_a_column_is_what_was_given() -> None:
    assert column([b"a", None, bytearray(b"b")]).to_list() == [b"a", None, b"b"]
    assert column((b"abcd", np.array([0, 1, 4]))).to_list() == [b"a", b"bcd"]
    assert column(np.array([1, 2], dtype="<i4")).to_list() == [b"\1\0\0\0", b"\2\0\0\0"]
    assert column(np.array([b"ab", b"c"])).to_list() == [b"ab", b"c"]
    assert column(np.arange(12, dtype=np.uint8).reshape(3, 4)[::2]).to_list() == [b"\0\1\2\3", b"\x08\x09\x0a\x0b"]
