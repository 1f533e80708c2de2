"""Fetch: limits, long polls that an append wakes, and incremental sessions (KIP-227), version by version."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import Record, build_batch, iter_batches
from tests.support.peer import Peer, create_topic, fetch, produce, produced

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.process import Broker

NOW = int(time.time() * 1000)


def batch(value: bytes, n: int = 1) -> bytes:
    return build_batch([Record(0, NOW + i, None, value) for i in range(n)], timestamp_ms=NOW)


@pytest.fixture
def topic(broker: Broker, fresh_name: str) -> str:
    create_topic(broker.bootstrap, fresh_name, partitions=4)
    return fresh_name


@pytest.fixture
def topic_id(broker: Broker, topic: str) -> UUID:
    with Peer(broker.bootstrap) as peer:
        found: UUID = peer.call("Metadata", 12, {"topics": [{"name": topic}]})["topics"][0]["topic_id"]
        return found


def send(peer: Peer, topic: str, value: bytes, partition: int = 0, n: int = 1) -> int:
    error, offset = produced(peer.call("Produce", 9, produce(topic, batch(value, n), partition=partition)))
    assert error == 0
    return offset


def only(response: dict[str, Any]) -> dict[str, Any]:
    (topic,) = response["responses"]
    (partition,) = topic["partitions"]
    found: dict[str, Any] = partition
    return found


@pytest.mark.parametrize("version", range(4, 19))
def test_every_version(broker: Broker, topic: str, topic_id: UUID, version: int) -> None:
    with Peer(broker.bootstrap) as peer:
        send(peer, topic, b"hello", n=3)
        message = fetch(topic)
        if version >= 13:
            message["topics"] = [{"topic_id": topic_id, "partitions": message["topics"][0]["partitions"]}]
        if version < 7:
            del message["session_epoch"]
        data = only(peer.call("Fetch", version, message))
        assert data["error_code"] == 0
        assert data["high_watermark"] == data["last_stable_offset"] == 3
        assert [r.value for b in iter_batches(data["records"]) for r in b.records] == [b"hello"] * 3


@pytest.mark.parametrize("version", range(3, 14))
def test_every_version_of_produce(broker: Broker, topic: str, topic_id: UUID, version: int) -> None:
    message = produce(topic, batch(b"x"))
    if version >= 13:
        message["topic_data"] = [{"topic_id": topic_id, "partition_data": message["topic_data"][0]["partition_data"]}]
    with Peer(broker.bootstrap) as peer:
        assert produced(peer.call("Produce", version, message)) == (0, 0)
        assert produced(peer.call("Produce", version, message)) == (0, 1)


@pytest.mark.parametrize("version", range(1, 12))
def test_every_version_of_list_offsets(broker: Broker, topic: str, version: int) -> None:
    with Peer(broker.bootstrap) as peer:
        send(peer, topic, b"x", n=5)
        asked = {-1: 5, -2: 0, NOW + 2: 2, NOW + 5: -1}
        if version >= 7:
            asked[-3] = 4
        for timestamp, offset in asked.items():
            partitions = [{"partition_index": 0, "timestamp": timestamp}]
            response = peer.call("ListOffsets", version, {"replica_id": -1, "topics": [{"name": topic, "partitions": partitions}]})
            found = response["topics"][0]["partitions"][0]
            assert (found["error_code"], found["offset"]) == (0, offset), f"timestamp {timestamp}"


def test_an_append_wakes_a_long_poll(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as reader, Peer(broker.bootstrap) as writer:
        for _ in range(20):
            end = send(writer, topic, b"before") + 1
            reader.ask("Fetch", 11, fetch(topic, offset=end, wait_ms=10_000))
            time.sleep(0.01)
            started = time.monotonic()
            send(writer, topic, b"wakes")
            data = only(reader.answer()[1])
            assert time.monotonic() - started < 8
            assert [r.value for b in iter_batches(data["records"]) for r in b.records] == [b"wakes"]


def test_min_bytes_are_waited_for(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as reader, Peer(broker.bootstrap) as writer:
        reader.ask("Fetch", 11, fetch(topic, wait_ms=20_000, min_bytes=3000))
        answered = threading.Event()
        responses: list[dict[str, Any]] = []

        def wait() -> None:
            responses.append(reader.answer()[1])
            answered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        send(writer, topic, bytes(1000))
        assert not answered.wait(0.3)
        send(writer, topic, bytes(1000))
        assert not answered.wait(0.3)
        send(writer, topic, bytes(1000))
        assert answered.wait(5)
        thread.join()
        assert len(only(responses[0])["records"]) >= 3000


def test_the_first_batch_comes_whole_and_max_bytes_is_kept(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        for _ in range(10):
            send(peer, topic, bytes(10_000))
        data = only(peer.call("Fetch", 11, fetch(topic, max_bytes=1)))
        assert [len(b.records) for b in iter_batches(data["records"])] == [1]
        data = only(peer.call("Fetch", 11, fetch(topic, max_bytes=35_000)))
        assert 30_000 < len(data["records"]) <= 35_000
        message = fetch(topic, partitions=4)
        message["max_bytes"] = 1
        for partition in (1, 2):
            send(peer, topic, bytes(100), partition)
        parts = peer.call("Fetch", 11, message)["responses"][0]["partitions"]
        assert sum(len(part["records"]) > 0 for part in parts) == 1


def test_offsets_out_of_range(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        send(peer, topic, b"x", n=2)
        assert only(peer.call("Fetch", 11, fetch(topic, offset=2)))["error_code"] == 0
        assert only(peer.call("Fetch", 11, fetch(topic, offset=3)))["error_code"] == Error.OFFSET_OUT_OF_RANGE
        assert only(peer.call("Fetch", 11, fetch(topic, offset=-1)))["error_code"] == Error.OFFSET_OUT_OF_RANGE
        # an error is told at once, however long the client would wait
        started = time.monotonic()
        peer.call("Fetch", 11, fetch(topic, offset=9, wait_ms=20_000))
        assert time.monotonic() - started < 5


def test_leader_epochs_are_checked(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        epoch = peer.call("Metadata", 9, {"topics": [{"name": topic}]})["topics"][0]["partitions"][0]["leader_epoch"]
        for asked, error in ((epoch, Error.NONE), (epoch + 1, Error.UNKNOWN_LEADER_EPOCH)):
            message = fetch(topic)
            message["topics"][0]["partitions"][0]["current_leader_epoch"] = asked
            assert only(peer.call("Fetch", 11, message))["error_code"] == error


def session(topic: str, session_id: int, epoch: int, parts: dict[int, int], forgotten: list[int] | None = None) -> dict[str, Any]:
    message = fetch(topic)
    partitions = [{"partition": p, "fetch_offset": offset, "partition_max_bytes": 1 << 20} for p, offset in parts.items()]
    message |= {"session_id": session_id, "session_epoch": epoch, "topics": [{"topic": topic, "partitions": partitions}] if parts else []}
    message["forgotten_topics_data"] = [{"topic": topic, "partitions": forgotten}] if forgotten else []
    return message


def named(response: dict[str, Any]) -> dict[int, dict[str, Any]]:
    assert response["error_code"] == 0
    return {p["partition_index"]: p for t in response["responses"] for p in t["partitions"]}


def test_an_incremental_session(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        first = peer.call("Fetch", 11, session(topic, 0, 0, {0: 0, 1: 0, 2: 0}))
        assert set(named(first)) == {0, 1, 2}
        sid = first["session_id"]
        assert sid > 0
        # nothing changed: nobody is named
        assert named(peer.call("Fetch", 11, session(topic, sid, 1, {}))) == {}
        send(peer, topic, b"one", 1)
        found = named(peer.call("Fetch", 11, session(topic, sid, 2, {})))
        assert set(found) == {1}
        assert found[1]["high_watermark"] == 1
        # partition 3 joins, 2 is forgotten, 1 goes on behind what it read
        send(peer, topic, b"three", 3)
        send(peer, topic, b"two", 2)
        found = named(peer.call("Fetch", 11, session(topic, sid, 3, {1: 1, 3: 0}, [2])))
        assert set(found) == {3}
        # a poll of the session is woken by any of its partitions
        with Peer(broker.bootstrap) as writer:
            message = session(topic, sid, 4, {3: 1}) | {"max_wait_ms": 10_000}
            peer.ask("Fetch", 11, message)
            time.sleep(0.05)
            send(writer, topic, b"zero", 0)
            assert set(named(peer.answer()[1])) == {0}


def test_sessions_outlive_their_connection_and_end_when_told(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        sid = peer.call("Fetch", 11, session(topic, 0, 0, {0: 0}))["session_id"]
    with Peer(broker.bootstrap) as peer:
        response = peer.call("Fetch", 11, session(topic, sid, 1, {}))
        # with several shards the new connection may be on another one, which asks for a new session
        assert response["error_code"] in {0, Error.FETCH_SESSION_ID_NOT_FOUND}
        peer.call("Fetch", 11, session(topic, sid, -1, {0: 0}))
        assert peer.call("Fetch", 11, session(topic, sid, 2, {}))["error_code"] == Error.FETCH_SESSION_ID_NOT_FOUND


def test_session_epochs_are_checked(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        sid = peer.call("Fetch", 11, session(topic, 0, 0, {0: 0}))["session_id"]
        assert peer.call("Fetch", 11, session(topic, sid, 7, {}))["error_code"] == Error.INVALID_FETCH_SESSION_EPOCH
        assert peer.call("Fetch", 11, session(topic, 12345678, 1, {}))["error_code"] == Error.FETCH_SESSION_ID_NOT_FOUND


def test_a_deleted_topic_ends_its_polls(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as reader, Peer(broker.bootstrap) as admin:
        reader.ask("Fetch", 11, fetch(topic, wait_ms=20_000))
        time.sleep(0.1)
        started = time.monotonic()
        response = admin.call("DeleteTopics", 5, {"topic_names": [topic], "timeout_ms": 10_000})
        assert response["responses"][0]["error_code"] == 0
        assert only(reader.answer()[1])["error_code"] == Error.UNKNOWN_TOPIC_OR_PARTITION
        assert time.monotonic() - started < 10
