"""Logs that lost what a consumer had read: the leader's epochs tell it (KIP-320)."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastlog.client import Admin, AsyncConsumer, Consumer, Producer, TopicPartition, errors
from fastlog.protocol.messages import API_BY_KEY, decode_response, encode_response
from tests.client.proxy import Proxy
from tests.support.process import Broker

API_VERSIONS, END_OF_EPOCH = 18, 23
OLD = [b"old %d" % i for i in range(100)]
LOST = [b"lost %d" % i for i in range(20)]
NEW = [b"new %d" % i for i in range(50)]
Eventually = Callable[[Callable[[], bool], float], None]


def fill(broker: Broker, topic: str, values: list[bytes]) -> None:
    with Producer(bootstrap_servers=broker.bootstrap) as producer:
        producer.send_batch(topic, values, partitions=0).result(60)


@pytest.fixture
def broker_of_120(start_broker: Callable[..., Broker], fresh_name: str) -> Broker:
    """One that has OLD and LOST; no memory of it outlives the process."""
    broker = start_broker(args=["--arena", "off"])
    with Admin(broker.bootstrap) as admin:
        admin.create_topic(fresh_name, 1)
    fill(broker, fresh_name, OLD)
    fill(broker, fresh_name, LOST)
    return broker


def lose(broker: Broker, topic: str) -> None:
    """Kills the broker, and LOST is no more, as after a power cut; then it starts, and gets NEW in its place."""
    broker.kill()
    file = broker.data / f"{topic}-0" / f"{0:020}.log"
    data = file.read_bytes()
    at = 0
    while int.from_bytes(data[at : at + 8]) < len(OLD):
        at += 12 + int.from_bytes(data[at + 8 : at + 12])
    with file.open("r+b") as f:
        f.seek(at)
        f.write(bytes(len(data) - at))
    broker.start()
    fill(broker, topic, NEW)


def take(consumer: Consumer, count: int) -> list[bytes | None]:
    made: list[bytes | None] = []
    deadline = time.monotonic() + 60
    while len(made) < count and time.monotonic() < deadline:
        made += [r.value for r in consumer.poll(count - len(made), 0.5)]
    return made


def test_what_was_read_is_gone(broker_of_120: Broker, fresh_name: str, caplog: pytest.LogCaptureFixture) -> None:
    with Consumer(bootstrap_servers=broker_of_120.bootstrap, retry_backoff_ms=20) as consumer:
        consumer.assign({(fresh_name, 0): 0})
        assert take(consumer, 120) == OLD + LOST
        lose(broker_of_120, fresh_name)
        assert take(consumer, 50) == NEW
        assert consumer.position((fresh_name, 0)) == 150
    (line,) = [r for r in caplog.records if "the log was cut" in r.getMessage()]
    assert "up to offset 120" in line.getMessage()
    assert "going on at offset 100" in line.getMessage()


def test_what_was_fetched_ahead_is_gone(
    broker_of_120: Broker, fresh_name: str, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    with Consumer(bootstrap_servers=broker_of_120.bootstrap, retry_backoff_ms=20) as consumer:
        consumer.assign({(fresh_name, 0): 0})
        seen = take(consumer, 30)
        eventually(lambda: consumer.metrics()["records_fetched"] == 120, 60)
        lose(broker_of_120, fresh_name)
        eventually(lambda: bool(consumer._errors()), 60)
        assert seen + take(consumer, 120) == OLD + NEW
    assert not [r for r in caplog.records if "the log was cut" in r.getMessage()]


def test_a_commit_knows_the_epoch(broker_of_120: Broker, fresh_name: str) -> None:
    settings: dict[str, Any] = {"bootstrap_servers": broker_of_120.bootstrap, "group_id": fresh_name, "auto_offset_reset": "earliest"}
    with Consumer(**settings) as consumer:
        consumer.subscribe([fresh_name])
        assert take(consumer, 120) == OLD + LOST
    with Consumer(**settings | {"group_id": f"{fresh_name}-2", "enable_auto_commit": False}) as consumer:
        consumer.subscribe([fresh_name])
        assert take(consumer, 120) == OLD + LOST
        consumer.commit({(fresh_name, 0): (110, "note")})
    lose(broker_of_120, fresh_name)
    for group in (fresh_name, f"{fresh_name}-2"):
        with Consumer(**settings | {"group_id": group}) as consumer:
            consumer.subscribe([fresh_name])
            assert take(consumer, 50) == NEW


def test_it_is_an_error_where_nothing_says_where_to_go_on(broker_of_120: Broker, fresh_name: str) -> None:
    settings: dict[str, Any] = {"bootstrap_servers": broker_of_120.bootstrap, "auto_offset_reset": "none", "retry_backoff_ms": 20}

    async def the_same() -> None:
        async with AsyncConsumer(**settings) as other:
            await other.assign({(fresh_name, 0): 0})
            assert len(await other.poll(200, 60)) in (100, 120)
            while await other.position((fresh_name, 0)) < 120:
                await other.poll(200, 1)
            await asyncio.to_thread(lose, broker_of_120, fresh_name)
            with pytest.raises(errors.LogTruncationError):
                await other.poll(1, 60)

    with Consumer(**settings) as consumer:
        consumer.assign({(fresh_name, 0): 0})
        assert take(consumer, 120) == OLD + LOST
        asyncio.run(the_same())
        for _ in range(2):  # until it is dealt with
            with pytest.raises(errors.OffsetOutOfRangeError, match="seek to go on") as raised:
                consumer.poll(1, 60)
        error = raised.value
        assert isinstance(error, errors.LogTruncationError)
        assert (error.code, error.partition, error.position) == ("LOG_TRUNCATION", TopicPartition(fresh_name, 0), 120)
        assert error.divergent_offset == 100
        consumer.seek(error.partition, error.divergent_offset)
        assert take(consumer, 50) == NEW


@pytest.mark.parametrize("how", ["late", "never"])
def test_a_leader_that_can_not_say(broker_of_120: Broker, fresh_name: str, how: str) -> None:
    """One that is not ready is asked again. One of a version without the request is believed."""
    refused = 0

    def spoil(key: int, answer: bytes) -> bytes:
        nonlocal refused
        if key == API_VERSIONS and how == "never":
            return answer.replace(b"\0\x17\0\x02\0\x04", b"\x7f\x17\0\x02\0\x04")
        if key == END_OF_EPOCH and refused < 2:
            refused += 1
            at = 4 + API_BY_KEY[key].response_header_version(4)
            said = decode_response(key, 4, answer[at:])
            said["topics"][0]["partitions"][0]["error_code"] = 6
            return answer[:at] + encode_response(key, 4, said)
        return answer

    with Proxy(broker_of_120.bootstrap) as proxy:
        proxy.spoil = spoil
        with Consumer(bootstrap_servers=proxy.bootstrap, retry_backoff_ms=20) as consumer:
            consumer.assign({(fresh_name, 0): 0})
            assert take(consumer, 120) == OLD + LOST
            consumer.pause([(fresh_name, 0)])  # it does not ask before NEW is there: offset 120 would be out of range
            lose(broker_of_120, fresh_name)
            consumer.resume([(fresh_name, 0)])
            if how == "never":
                assert take(consumer, 30) == NEW[20:]
                assert proxy.requests[END_OF_EPOCH] == 0
            else:
                assert take(consumer, 50) == NEW
                assert proxy.requests[END_OF_EPOCH] >= 3
