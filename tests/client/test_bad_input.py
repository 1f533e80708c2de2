"""What a caller gets wrong: an error that says so at once, before a broker is asked, and nothing that stops working behind it."""

import asyncio
from array import array
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from fastlog.client import (
    Admin,
    AsyncConsumer,
    AsyncProducer,
    ClientTimeoutError,
    ConfigError,
    Consumer,
    Producer,
    UnreachableError,
    errors,
)
from fastlog.client.cluster import Cluster
from fastlog.client.transactions import GroupMetadata

LONG = "x" * 40_000
NOBODY = GroupMetadata("g", -1, "", None)
Call = Callable[[Any, str], Any]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a, _: a.topic(None), TypeError, "topic: expected a name"),
        (lambda a, t: a.create_topic(t, "3"), TypeError, "partitions '3': expected an integer"),
        (lambda a, t: a.create_topic(t, settings=["x"]), TypeError, "expected a mapping"),
        (lambda a, t: a.create_topic(t, settings={"retention.ms": 1}), TypeError, "value as a string"),
        (lambda a, t: a.alter_topic_settings(t, None), TypeError, "expected a mapping"),
        (lambda a, t: a.alter_topic_settings(t, {}, "retention.ms"), TypeError, "list of names"),
        (lambda a, t: a.set_partitions(t, 0), ValueError, "expected 1 or more"),
        (lambda a, _: a.broker_settings("1"), TypeError, "broker '1': expected an integer"),
        (lambda a, t: a.end_offsets(t), TypeError, r"\[\(topic, number\), ...\]"),
        (lambda a, t: a.start_offsets([t]), TypeError, "number of the partition"),
        (lambda a, t: a.time_offsets([(t, 0)], -1), ValueError, "milliseconds"),
        (lambda a, t: a.counts([t]), TypeError, "what `topics` returned"),
        (lambda a, t: a.delete_records({(t, 0): "5"}), TypeError, "offset '5'"),
        (lambda a, t: a.set_group_offsets("g", [(t, 0)]), TypeError, "expected a mapping"),
        (lambda a, t: a.set_group_offsets("g", {(t, 0): -1}), ValueError, "0 or more"),
        (lambda a, t: a.delete_group_offsets("g", [t]), TypeError, "number of the partition"),
        (lambda a, _: a.group_offsets(LONG), ValueError, "longer than any name"),
        (lambda a, _: a.transactions("Ongoing"), TypeError, "list of names"),
        (lambda a, _: a.transactions(["ongoing"]), ValueError, "state 'ongoing': expected one of Empty, Ongoing"),
        (lambda a, _: a.transactions(producer_ids=5), TypeError, "list of integers"),
        (lambda a, _: a.transactions(producer_ids=[-1]), ValueError, "producer_id -1"),
        (lambda a, _: a.transactions(duration_ms=1.5), TypeError, "duration_ms 1.5"),
        (lambda a, _: a.transaction(""), TypeError, "transactional_id: expected a name"),
        (lambda a, t: a.producers(t, "0"), TypeError, "number of the partition"),
        (lambda a, t: a.abort_transaction(t, 0, None, 0), TypeError, "producer_id None"),
        (lambda a, t: a.abort_transaction(t, 0, 1, 1 << 15), ValueError, "producer_epoch 32768: at most 32767"),
        (lambda a, t: a.abort_transaction(t, 0, 1, 1, -1), ValueError, "coordinator_epoch -1"),
        (lambda a, t: a.fence_producers(t), TypeError, "list of names"),
    ],
)
def test_of_an_admin(bootstrap: str, fresh_name: str, call: Call, error: type[Exception], says: str) -> None:
    with Admin(bootstrap) as admin:
        with pytest.raises(error, match=says):
            call(admin, fresh_name)
        assert admin.cluster().brokers


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c, _: c.assign(None), TypeError, "partitions"),
        (lambda c, t: c.assign([(LONG + t, 0)]), ValueError, "longer"),
        (lambda c, _: c.subscribe(5), TypeError, "list of names"),
        (lambda c, _: c.subscribe(pattern=5), TypeError, "as a string"),
        (lambda c, t: c.subscribe([t], on_assign=5), TypeError, "on_assign: expected a callable"),
        (lambda c, _: c.poll("5"), TypeError, "max_records"),
        (lambda c, _: c.poll(timeout=nan), ValueError, "NaN"),
        (lambda c, _: c.poll_batch(timeout=None), TypeError, "expected seconds"),
        (lambda c, t: c.position(t), TypeError, "number of the partition"),
        (lambda c, t: c.lag(t), TypeError, "number of the partition"),
        (lambda c, t: c.seek_to_end([t]), TypeError, "number of the partition"),
        (lambda c, t: c.end_offsets(t), TypeError, "partitions"),
        (lambda c, t: c.offsets_for_times([(t, 0)]), TypeError, "mapping"),
        (lambda c, t: c.offsets_for_times({(t, 0): 1.5}), TypeError, "time 1.5"),
        (lambda c, _: c.partitions_for(None), TypeError, "topic"),
        (lambda c, t: c.commit([(t, 0)]), TypeError, "mapping"),
        (lambda c, t: c.commit({(t, 0): (1, LONG)}), ValueError, "metadata"),
        (lambda c, t: c.commit_async({(t, 0): (1, LONG)}), ValueError, "metadata"),
        (lambda c, t: c.commit_async({(t, 0): 1}, 5), TypeError, "on_done"),
    ],
)
def test_of_a_consumer(bootstrap: str, topic: str, fresh_name: str, call: Call, error: type[Exception], says: str) -> None:
    with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        with pytest.raises(error, match=says):
            call(consumer, topic)
        consumer.commit({(topic, 0): 0})
        assert consumer.committed([(topic, 0)]) == {(topic, 0): 0}


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p, t: p.send(t, b"", partition=2**70), ConfigError, "no partition"),
        (lambda p, t: p.send(t, b"", timestamp=2**70), ValueError, "milliseconds"),
        (lambda p, t: p.send_batch(t, [b""], partitions=2**70), ConfigError, "no partition"),
        (lambda p, t: p.send_batch(t, [b""], headers=5), TypeError, "headers"),
        (lambda p, _: p.flush(nan), ValueError, "NaN"),
        (lambda p, _: p.flush("1"), TypeError, "seconds"),
        (lambda p, _: p.close("1"), TypeError, "seconds"),
        (lambda p, t: p.send(t, b"").result("1"), TypeError, "timeout"),
        (lambda p, t: p.send(t, b"").exception(nan), ValueError, "NaN"),
        (lambda p, t: p.send_batch(t, [b""]).result(nan), ValueError, "NaN"),
        (lambda p, t: p.send(t, b"").add_done_callback(5), TypeError, "callable"),
    ],
)
def test_of_a_producer(bootstrap: str, topic: str, call: Call, error: type[Exception], says: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        with pytest.raises(error, match=says):
            call(producer, topic)
        assert producer.send(topic, b"still works").result(30).offset >= 0


@pytest.mark.one_engine
def test_transactions_in_the_wrong_order(bootstrap: str, topic: str, fresh_name: str) -> None:
    with Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as producer:
        with pytest.raises(errors.InvalidTxnStateError, match="init_transactions comes before"):
            producer.begin_transaction()
        producer.init_transactions()
        with pytest.raises(errors.InvalidTxnStateError, match="begin_transaction comes first"):
            producer.send_offsets_to_transaction({(topic, 0): 1}, NOBODY)
        producer.begin_transaction()
        with pytest.raises(errors.InvalidTxnStateError, match="one is open"):
            producer.init_transactions()
        with pytest.raises(TypeError, match="group_metadata"):
            producer.send_offsets_to_transaction({(topic, 0): 1}, fresh_name)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="offset 'x'"):
            producer.send_offsets_to_transaction({(topic, 0): "x"}, NOBODY)  # type: ignore[dict-item]
        delivery = producer.send(topic, b"a")
        producer.commit_transaction()
        assert delivery.result(30).offset >= 0


@pytest.mark.one_engine
def test_of_asyncio(bootstrap: str, topic: str, fresh_name: str) -> None:
    async def run() -> None:
        async with AsyncConsumer(bootstrap_servers=bootstrap, group_id=fresh_name) as consumer:
            with pytest.raises(TypeError, match="callable"):
                await consumer.subscribe([topic], on_assign=5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="partitions"):
                await consumer.end_offsets(None)  # type: ignore[arg-type]
            await consumer.assign([(topic, 0)])
            with pytest.raises(ValueError, match="NaN"):
                await consumer.poll(timeout=nan)
        async with AsyncProducer(bootstrap_servers=bootstrap) as producer:
            with pytest.raises(ValueError, match="NaN"):
                await producer.flush(nan)

    asyncio.run(run())


@pytest.mark.one_engine
def test_what_numpy_gives_is_a_number(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        producer.send_batch(topic, [b"a", b"b", b"c"], partitions=0).result(30)
        wide = memoryview(array("i", [1, 2, 3]))
        producer.send(topic, b"d", partition=np.int32(0), headers=[("wide", wide)]).result(30)  # type: ignore[arg-type,list-item]
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([(topic, np.int32(0))])  # type: ignore[list-item]
        consumer.seek((topic, np.int64(0)), np.int64(2))  # type: ignore[arg-type]
        found = [r for _ in range(60) for r in consumer.poll(2)][:2]
    assert [r.value for r in found] == [b"c", b"d"]
    assert found[1].headers == [("wide", wide.tobytes())]


@pytest.mark.one_engine
def test_a_record_that_is_late_is_a_client_error(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap, linger_ms=20_000) as producer:
        with pytest.raises(ClientTimeoutError, match="may still be"):
            producer.send(topic, b"a").result(0.01)
        with pytest.raises(ClientTimeoutError, match="may still be"):
            producer.send_batch(topic, [b"a"]).result(0)


@pytest.mark.parametrize(
    "given",
    [
        {"bootstrap_servers": [1]},
        {"bootstrap_servers": "http://localhost:9092"},
        {"bootstrap_servers": "localhost:0"},
        {"bootstrap_servers": "\ud800:9092"},
        {"client_id": "\ud800"},
        {"client_id": LONG},
        {"request_timeout_ms": inf},
        {"request_timeout_ms": 0.5},
        {"security_protocol": np.arange(3)},
    ],
)
@pytest.mark.parametrize("made", [Producer, Consumer, Admin])
def test_of_settings(made: type[Any], given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(given)


@pytest.mark.parametrize(("host", "port"), [("x" * 70, 9092), ("a\0b", 9092), ("127.0.0.1", 70_000), ("127.0.0.1", -1)])
def test_addresses_that_a_broker_could_name(host: str, port: int) -> None:
    cluster = Cluster("127.0.0.1:1", client_id="x", timeout_s=5)
    cluster.nodes[1] = (host, port)
    with pytest.raises(UnreachableError, match="no broker answers"):
        cluster.connection(1)
