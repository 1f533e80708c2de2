"""Client quotas on the wire: how long a client is told to wait, and that its connection waits that long. As Kafka 4.3 does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import Record, build_batch
from tests.support.peer import Peer, create_topic, fetch, produce, produced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlog.protocol.messages import Message

RATE = 20_000
"""Bytes a second. What a client sends counts for 11 windows of a second, so the rate is taken over 10 to 11 s."""


def call(peer: Peer, api: str, version: int, message: Message, client: str) -> Message:
    peer.ask(api, version, message, client)
    return peer.answer()[1]


def quota(bootstrap: str, entity: dict[str, str | None], **values: float | None) -> None:
    ops = [{"key": key, "value": value or 0.0, "remove": value is None} for key, value in values.items()]
    parts = [{"entity_type": kind, "entity_name": name} for kind, name in entity.items()]
    with Peer(bootstrap) as peer:
        (entry,) = peer.call("AlterClientQuotas", 1, {"entries": [{"entity": parts, "ops": ops}]})["entries"]
    assert entry["error_code"] == Error.NONE, entry


@pytest.fixture
def limited(bootstrap: str, fresh_name: str) -> Iterator[dict[str, float]]:
    """Fill it, and it holds for the client that is called like the test's topic."""
    values: dict[str, float] = {}
    yield values
    quota(bootstrap, {"client-id": fresh_name}, **dict.fromkeys(values))


def limit(bootstrap: str, limited: dict[str, float], client: str, **values: float) -> None:
    limited.update(values)
    quota(bootstrap, {"client-id": client}, **values)
    time.sleep(0.2)  # Kafka makes it known to itself a moment later


def batch(size: int) -> bytes:
    now = int(time.time() * 1000)
    return build_batch([Record(0, now, None, b"x" * size)], timestamp_ms=now)


def waited(peer: Peer, client: str) -> float:
    """Milliseconds until a request that costs nothing is answered."""
    began = time.monotonic()
    call(peer, "ApiVersions", 3, {"client_software_name": "x", "client_software_version": "1"}, client)
    return (time.monotonic() - began) * 1000


@pytest.mark.parametrize("acks", [1, 0])
def test_produce(bootstrap: str, fresh_name: str, limited: dict[str, float], acks: int) -> None:
    create_topic(bootstrap, fresh_name)
    limit(bootstrap, limited, fresh_name, producer_byte_rate=RATE)
    size = int(RATE * 11.5)
    with Peer(bootstrap) as peer, Peer(bootstrap) as other:
        if acks:
            response = call(peer, "Produce", 9, produce(fresh_name, batch(size)), fresh_name)
            assert produced(response) == (Error.NONE, 0), "what is too much is taken all the same"
            assert 1500 <= response["throttle_time_ms"] <= 1700, "the first window began with it: 11.5 seconds' worth in ten"
            assert waited(peer, fresh_name) >= response["throttle_time_ms"] * 0.9 - 20
        else:
            peer.ask("Produce", 9, produce(fresh_name, batch(size), acks=0), fresh_name)
            assert waited(peer, fresh_name) >= 300
        response = call(other, "Produce", 9, produce(fresh_name, batch(size)), f"{fresh_name}-other")
        assert (produced(response)[0], response["throttle_time_ms"]) == (Error.NONE, 0), "it is another client's"


def test_what_a_client_may_have_is_counted_over_all_its_connections(bootstrap: str, fresh_name: str, limited: dict[str, float]) -> None:
    create_topic(bootstrap, fresh_name)
    limit(bootstrap, limited, fresh_name, producer_byte_rate=RATE)
    throttled = []
    for _ in range(3):
        with Peer(bootstrap) as peer:
            response = call(peer, "Produce", 9, produce(fresh_name, batch(int(RATE * 5.7))), fresh_name)
            throttled.append(response["throttle_time_ms"])
    assert throttled[0] == 0
    assert throttled[2] > 4000, "17 seconds' worth"


def test_fetch(bootstrap: str, fresh_name: str, limited: dict[str, float]) -> None:
    """A response that would be too much is empty, and does not count: what is less is given."""
    create_topic(bootstrap, fresh_name)
    size = RATE * 6
    with Peer(bootstrap) as peer:
        for some in (size, size, 1000):
            assert produced(call(peer, "Produce", 9, produce(fresh_name, batch(some)), "writer"))[0] == Error.NONE
        limit(bootstrap, limited, fresh_name, consumer_byte_rate=RATE)

        def read(offset: int, version: int, max_bytes: int = size + 100) -> tuple[int, int | None]:
            """(milliseconds to wait, bytes); None: no partition is named."""
            wanted = fetch(fresh_name, offset=offset, max_bytes=max_bytes)
            response = call(peer, "Fetch", version, wanted, fresh_name)
            parts = [part for topic in response["responses"] for part in topic["partitions"]]
            return response["throttle_time_ms"], len(parts[0]["records"] or b"") if parts else None

        wait, got = read(0, 11)
        assert wait == 0
        assert got is not None
        assert size <= got <= size + 100
        for version in (11, 4):
            wait, got = read(1, version)
            assert got is None
            assert 900 <= wait <= 2100
            assert waited(peer, fresh_name) >= wait * 0.9 - 20
        wait, got = read(2, 12)
        assert wait == 0
        assert got is not None
        assert got > 1000


def test_fetch_in_a_session(bootstrap: str, fresh_name: str, limited: dict[str, float]) -> None:
    """An incremental fetch that is throttled keeps its session; one that would begin a session does not begin it."""
    create_topic(bootstrap, fresh_name)
    with Peer(bootstrap) as peer:
        for _ in range(2):
            call(peer, "Produce", 9, produce(fresh_name, batch(RATE * 6)), "writer")
        limit(bootstrap, limited, fresh_name, consumer_byte_rate=RATE)
        most = RATE * 6 + 100
        begin = fetch(fresh_name, max_bytes=most) | {"session_id": 0, "session_epoch": 0}
        first = call(peer, "Fetch", 11, begin, fresh_name)
        session = first["session_id"]
        assert session
        again = fetch(fresh_name, offset=1, max_bytes=most) | {"session_id": session, "session_epoch": 1}
        second = call(peer, "Fetch", 11, again, fresh_name)
        assert (second["error_code"], second["session_id"], second["responses"]) == (Error.NONE, session, [])
        assert second["throttle_time_ms"] > 0
        nothing = again | {"session_epoch": 2, "topics": [{"topic": fresh_name, "partitions": [{"partition": 0, "fetch_offset": 2}]}]}
        third = call(peer, "Fetch", 11, nothing, fresh_name)
        assert (third["error_code"], third["session_id"], third["throttle_time_ms"]) == (Error.NONE, session, 0)
        new = call(peer, "Fetch", 11, begin, fresh_name)
        assert (new["session_id"], new["responses"]) == (0, [])
        assert new["throttle_time_ms"] > 0


def test_time(bootstrap: str, fresh_name: str, limited: dict[str, float]) -> None:
    """A hundredth of a per cent is a millisecond in ten seconds: some request is one too many. Both planes' requests count."""
    create_topic(bootstrap, fresh_name)
    limit(bootstrap, limited, fresh_name, request_percentage=0.01)
    asked: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("Metadata", 9, {"topics": [{"name": fresh_name}]}),
        ("Produce", 9, produce(fresh_name, batch(50_000))),
        ("DescribeCluster", 0, {}),
    )
    with Peer(bootstrap) as peer:
        for api, version, message in asked:
            for _ in range(200):
                wait = call(peer, api, version, message, fresh_name)["throttle_time_ms"]
                if wait:
                    break
            assert 0 < wait <= 1000, api
            assert waited(peer, fresh_name) >= wait * 0.9 - 20


def test_changes_of_topics(bootstrap: str, fresh_name: str, limited: dict[str, float]) -> None:
    """Newer clients are refused, older ones are delayed (KIP-599)."""
    limit(bootstrap, limited, fresh_name, controller_mutation_rate=2)

    def create(version: int, name: str, partitions: int) -> tuple[int, int]:
        topic = {"name": name, "num_partitions": partitions, "replication_factor": 1}
        with Peer(bootstrap) as peer:
            response = call(peer, "CreateTopics", version, {"topics": [topic], "timeout_ms": 30_000}, fresh_name)
        return response["topics"][0]["error_code"], response["throttle_time_ms"]

    assert create(7, f"{fresh_name}-a", 26) == (Error.NONE, 0), "while anything is left"
    error, wait = create(7, f"{fresh_name}-b", 1)
    assert error == Error.THROTTLING_QUOTA_EXCEEDED
    assert 0 < wait <= 2000
    error, wait = create(5, f"{fresh_name}-c", 1)
    assert error == Error.NONE
    assert wait > 0
    with Peer(bootstrap) as peer:
        wanted = {"topics": [{"name": f"{fresh_name}-c", "count": 3, "assignments": None}], "timeout_ms": 30_000}
        response = call(peer, "CreatePartitions", 3, wanted, fresh_name)
        assert response["results"][0]["error_code"] == Error.THROTTLING_QUOTA_EXCEEDED
        response = call(peer, "DeleteTopics", 5, {"topic_names": [f"{fresh_name}-c"], "timeout_ms": 30_000}, f"{fresh_name}-other")
        assert response["responses"][0]["error_code"] == Error.NONE, "it is another client's"
