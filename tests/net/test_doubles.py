"""What is named twice in one request is answered once, as Kafka does; and what a refused batch's answer tells besides its error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import Record, build_batch, iter_batches
from tests.support.peer import Peer, create_topic, fetch, produce

if TYPE_CHECKING:
    from tests.support.process import Broker

NOW = int(time.time() * 1000)


def batch(*keys: bytes | None, timestamp_ms: int = NOW) -> bytes:
    return build_batch([Record(0, timestamp_ms, key, b"value") for key in keys], timestamp_ms=timestamp_ms)


@pytest.fixture
def topic(broker: Broker, fresh_name: str) -> str:
    create_topic(broker.bootstrap, fresh_name, partitions=4)
    return fresh_name


def wanted(*asked: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"partition": index, "fetch_offset": offset, "partition_max_bytes": 1 << 20} for index, offset in asked]


@pytest.mark.parametrize("session_epoch", [-1, 0])
def test_of_a_partition_fetched_twice_the_last_counts(broker: Broker, topic: str, session_epoch: int) -> None:
    with Peer(broker.bootstrap) as peer:
        for partition in (0, 1):
            for _ in range(2):
                peer.call("Produce", 9, produce(topic, batch(b"key"), partition=partition))
        message = fetch(topic) | {"session_epoch": session_epoch}
        message["topics"] = [
            {"topic": topic, "partitions": wanted((0, 0), (1, 0), (0, 1))},
            {"topic": f"{topic}-none", "partitions": wanted((0, 0))},
            {"topic": topic, "partitions": wanted((1, 7), (1, 2), (2, 0))},
        ]
        response = peer.call("Fetch", 11, message)
        answered = [(t["topic"], p) for t in response["responses"] for p in t["partitions"]]
        assert sorted((name, p["partition_index"]) for name, p in answered) == [(topic, 0), (topic, 1), (topic, 2), (f"{topic}-none", 0)]
        found = {p["partition_index"]: p for name, p in answered if name == topic}
        assert [(p["error_code"], p["high_watermark"]) for p in (found[0], found[1], found[2])] == [(0, 2), (0, 2), (0, 0)]
        assert [b.base_offset for b in iter_batches(found[0]["records"])] == [1]
        assert not found[1]["records"]


def test_both_batches_for_a_partition_that_is_named_twice_are_stored(broker: Broker, topic: str) -> None:
    """Kafka answers once, and only the last batch is there: what a client was told is stored must be."""
    with Peer(broker.bootstrap) as peer:
        message = produce(topic, batch(b"a"))
        parts = message["topic_data"][0]["partition_data"]
        parts.append(parts[0] | {"records": batch(b"b", b"c")})
        (answered,) = peer.call("Produce", 9, message)["responses"]
        assert [(p["index"], p["error_code"], p["base_offset"]) for p in answered["partition_responses"]] == [(0, 0, 0), (0, 0, 1)]
        (found,) = peer.call("Fetch", 11, fetch(topic))["responses"]
        assert [(b.base_offset, len(b.records)) for b in iter_batches(found["partitions"][0]["records"])] == [(0, 1), (1, 2)]


def test_a_partition_listed_twice_is_refused_once(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:

        def asked(*partitions: int) -> dict[str, Any]:
            return {"name": topic, "partitions": [{"partition_index": p, "timestamp": -1} for p in partitions]}

        def listed(*topics: dict[str, Any]) -> dict[int, int]:
            response = peer.call("ListOffsets", 7, {"replica_id": -1, "topics": list(topics)})
            answered = [(p["partition_index"], p["error_code"]) for t in response["topics"] for p in t["partitions"]]
            assert len(dict(answered)) == len(answered)
            return dict(answered)

        twice = Error.INVALID_REQUEST
        assert listed(asked(0, 1), asked(2)) == {0: 0, 1: 0, 2: 0}
        assert listed(asked(0, 1, 0)) == {0: twice, 1: 0}
        assert listed(asked(0), asked(0)) == {0: twice}
        assert listed(asked(0), asked(0, 3), asked(3, 0), asked(1)) == {0: twice, 3: twice, 1: 0}
        assert listed(asked(0), asked(0, 3, 2), asked(9, 9)) == {0: twice, 3: 0, 2: 0, 9: twice}
        # more than fit into one step of its table
        assert listed(asked(*range(100)), asked(*range(50, 150)))[149] == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_a_time_that_the_version_does_not_know_is_refused_first(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        for version, timestamp in ((6, -3), (7, -4), (8, -5), (10, -6), (11, -7)):
            asked = {"name": f"{topic}-none", "partitions": [{"partition_index": 0, "timestamp": timestamp}]}
            (answer,) = peer.call("ListOffsets", version, {"replica_id": -1, "topics": [asked]})["topics"]
            assert answer["partitions"][0]["error_code"] == Error.UNSUPPORTED_VERSION


def test_a_replica_is_told_that_nobody_follows(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        (found,) = peer.call("Metadata", 12, {"topics": [{"name": topic}]})["topics"]
        by_id = fetch(topic)
        by_id["topics"] = [{"topic_id": found["topic_id"], "partitions": by_id["topics"][0]["partitions"]}]
        for version, message in (
            (11, fetch(topic) | {"replica_id": 7}),
            (17, by_id | {"replica_state": {"replica_id": 7, "replica_epoch": 1}}),
        ):
            (answered,) = peer.call("Fetch", version, message)["responses"]
            assert answered["partitions"][0]["error_code"] == Error.NOT_LEADER_OR_FOLLOWER


def test_a_topic_deleted_during_a_session_is_no_unknown_id(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        (found,) = peer.call("Metadata", 12, {"topics": [{"name": topic}]})["topics"]
        message = fetch(topic) | {"session_epoch": 0, "isolation_level": 1}
        message["topics"] = [{"topic_id": found["topic_id"], "partitions": wanted((0, 0))}]
        opened = peer.call("Fetch", 13, message)
        (answered,) = opened["responses"]
        assert (answered["partitions"][0]["error_code"], answered["partitions"][0]["aborted_transactions"]) == (0, [])
        peer.call("DeleteTopics", 5, {"topic_names": [topic], "timeout_ms": 10_000})
        again = peer.call("Fetch", 13, message | {"session_id": opened["session_id"], "session_epoch": 1, "topics": []})
        assert again["responses"][0]["partitions"][0]["error_code"] == Error.UNKNOWN_TOPIC_OR_PARTITION
        anew = peer.call("Fetch", 13, message)
        assert anew["responses"][0]["partitions"][0]["error_code"] == Error.UNKNOWN_TOPIC_ID


def test_the_records_to_blame_are_named(broker: Broker, fresh_name: str) -> None:
    create_topic(broker.bootstrap, fresh_name, configs={"cleanup.policy": "compact"})
    with Peer(broker.bootstrap) as peer:

        def refused(data: bytes, version: int = 9) -> dict[str, Any]:
            (answered,) = peer.call("Produce", version, produce(fresh_name, data))["responses"]
            (partition,) = answered["partition_responses"]
            found: dict[str, Any] = partition
            return found

        found = refused(batch(b"a", None, b"b", None))
        assert (found["error_code"], found["base_offset"], found["log_start_offset"]) == (Error.INVALID_RECORD, -1, 0)
        assert [one["batch_index"] for one in found["record_errors"]] == [1, 3]
        assert {one["batch_index_error_message"] for one in found["record_errors"]} == {found["error_message"]}
        found = refused(batch(b"a", b"b", timestamp_ms=NOW + 10 * 86_400_000), version=8)
        assert found["error_code"] == Error.INVALID_TIMESTAMP
        assert [one["batch_index"] for one in found["record_errors"]] == [0, 1]
        assert len(refused(batch(*[None] * 3000))["record_errors"]) == 1000
        assert refused(b"nothing of a batch")["log_start_offset"] == -1
        assert refused(batch(b"a"))["error_code"] == 0
