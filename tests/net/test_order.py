"""Requests of one connection: answered in order, side by side where that is allowed, one after another where clients rely on it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import Codec, Record, build_batch, iter_batches
from tests.support.peer import Peer, create_topic, fetch, produce, produced

if TYPE_CHECKING:
    from tests.support.process import Broker

NOW = int(time.time() * 1000)


def batch(value: bytes, **settings: object) -> bytes:
    return build_batch([Record(0, NOW, None, value)], timestamp_ms=NOW, **settings)  # type: ignore[arg-type]


@pytest.fixture
def topic(broker: Broker, fresh_name: str) -> str:
    create_topic(broker.bootstrap, fresh_name, partitions=3)
    return fresh_name


def test_answers_come_in_the_order_of_the_requests(broker: Broker, topic: str) -> None:
    """Fast and slow kinds mixed and pipelined, many at once."""
    rng = random.Random(5)
    with Peer(broker.bootstrap) as peer:
        asked = []
        for i in range(600):
            kind = rng.randrange(5)
            if kind == 0:
                asked.append(peer.ask("Metadata", 9, {"topics": [{"name": topic}]}))
            elif kind == 1:
                asked.append(peer.ask("ListOffsets", 7, _latest(topic)))
            elif kind == 2:
                asked.append(peer.ask("Fetch", 11, fetch(topic, wait_ms=rng.choice((0, 3)))))
            elif kind == 3:
                asked.append(peer.ask("Produce", 9, produce(topic, batch(b"%d" % i), acks=rng.choice((1, -1)))))
            else:
                asked.append(peer.ask("ApiVersions", 3, {"client_software_name": "x", "client_software_version": "1"}))
        assert [peer.answer()[0] for _ in asked] == asked


def _latest(topic: str) -> dict[str, object]:
    return {"replica_id": -1, "topics": [{"name": topic, "partitions": [{"partition_index": 0, "timestamp": -1}]}]}


def test_pipelined_batches_of_a_partition_stay_in_order(broker: Broker, topic: str) -> None:
    """Small ones, and large compressed ones that are validated elsewhere, in one stream: none overtakes another."""
    rng = random.Random(6)
    values = [b"%06d" % i + rng.randbytes(200_000 if i % 7 == 0 else 20) for i in range(140)]
    with Peer(broker.bootstrap) as peer:
        asked = [
            peer.ask("Produce", 9, produce(topic, batch(value, codec=Codec.ZSTD if i % 7 == 0 else Codec.NONE)))
            for i, value in enumerate(values)
        ]
        answers = [peer.answer() for _ in asked]
        assert [correlation for correlation, _ in answers] == asked
        assert [produced(message) for _, message in answers] == [(0, i) for i in range(len(values))]
        assert read_all(peer, topic) == values


def read_all(peer: Peer, topic: str, partition: int = 0) -> list[bytes | None]:
    values: list[bytes | None] = []
    while True:
        response = peer.call("Fetch", 11, fetch(topic, offset=len(values), partitions=partition + 1, max_bytes=4 << 20))
        data = response["responses"][0]["partitions"][partition]
        assert data["error_code"] == 0
        # a Fetch may end in the middle of a batch, and starts at the batch that holds the offset
        found = [r.value for b in iter_batches(data["records"] or b"") for r in b.records if r.offset >= len(values)]
        if not found:
            assert len(values) == data["high_watermark"]
            return values
        values += found


def test_a_request_after_a_commit_sees_it(broker: Broker, topic: str, fresh_name: str) -> None:
    """OffsetCommit, then OffsetFetch behind it on the same connection without waiting: clients rely on that order."""
    with Peer(broker.bootstrap) as peer:
        for offset in range(1, 30):
            commit = {
                "group_id": fresh_name,
                "generation_id_or_member_epoch": -1,
                "member_id": "",
                "topics": [{"name": topic, "partitions": [{"partition_index": 0, "committed_offset": offset}]}],
            }
            peer.ask("OffsetCommit", 8, commit)
            groups = [{"group_id": fresh_name, "topics": [{"name": topic, "partition_indexes": [0]}]}]
            peer.ask("OffsetFetch", 8, {"groups": groups})
            committed, fetched = peer.answer()[1], peer.answer()[1]
            if offset == 1 and committed["topics"][0]["partitions"][0]["error_code"]:
                time.sleep(0.5)  # the coordinator's topic was being made
                continue
            assert committed["topics"][0]["partitions"][0]["error_code"] == Error.NONE
            assert fetched["groups"][0]["topics"][0]["partitions"][0]["committed_offset"] == offset


def test_a_long_poll_holds_its_connection_only(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as waiting, Peer(broker.bootstrap) as other:
        started = time.monotonic()
        waiting.ask("Fetch", 11, fetch(topic, wait_ms=3000))
        for _ in range(20):
            other.call("Metadata", 9, {"topics": [{"name": topic}]})
        assert time.monotonic() - started < 2.9
        waiting.answer()
        assert 2.9 < time.monotonic() - started < 12


def test_a_produce_behind_a_long_poll_is_stored_at_once(broker: Broker, topic: str) -> None:
    """Produce and Fetch of one connection run side by side; the produce even ends the poll that stands before it."""
    with Peer(broker.bootstrap) as peer:
        started = time.monotonic()
        first = peer.ask("Fetch", 11, fetch(topic, wait_ms=10_000))
        second = peer.ask("Produce", 9, produce(topic, batch(b"wakes it")))
        got, response = peer.answer()
        assert got == first
        assert response["responses"][0]["partitions"][0]["records"]
        assert peer.answer()[0] == second
        assert time.monotonic() - started < 5
