"""Transactions on a whole broker: what a kill -9 in the middle of one leaves, and what administrators see and end of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import TRANSACTIONAL, Record, build_batch, iter_batches
from tests.support.peer import Peer, create_topic, fetch, produced

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.process import Broker


def retried(peer: Peer, api: str, version: int, message: Any) -> Any:
    """Until the coordinator, or the transaction before, is ready."""
    deadline = time.monotonic() + 30
    while True:
        answer = peer.call(api, version, message)
        waits = (Error.COORDINATOR_LOAD_IN_PROGRESS, Error.COORDINATOR_NOT_AVAILABLE, Error.NOT_COORDINATOR, Error.CONCURRENT_TRANSACTIONS)
        if answer["error_code"] not in waits or time.monotonic() > deadline:
            assert answer["error_code"] == Error.NONE, answer
            return answer
        time.sleep(0.05)


class Producer:
    """A transactional producer of version 2: it adds partitions by producing to them."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer, self.name = peer, name
        answer = retried(peer, "InitProducerId", 5, {"transactional_id": name, "transaction_timeout_ms": 60_000})
        self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        self.sequences: dict[int, int] = {}

    def send(self, topic: str, partition: int, value: bytes) -> int:
        now = int(time.time() * 1000)
        sequence = self.sequences.get(partition, 0)
        batch = build_batch(
            [Record(0, now, None, value)],
            timestamp_ms=now,
            attributes=TRANSACTIONAL,
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
        )
        data = [{"name": topic, "partition_data": [{"index": partition, "records": batch}]}]
        message = {"transactional_id": self.name, "acks": -1, "timeout_ms": 10_000, "topic_data": data}
        error, offset = produced(self.peer.call("Produce", 12, message))
        assert error == 0
        self.sequences[partition] = sequence + 1
        return offset

    def end(self, *, commit: bool) -> None:
        asked = {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch, "committed": commit}
        answer = retried(self.peer, "EndTxn", 5, asked)
        self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        self.sequences = {}


def committed(broker: Broker, topic: str, partition: int = 0) -> tuple[list[bytes | None], int]:
    """Values that a consumer of committed records gets, and the last stable offset."""
    with Peer(broker.bootstrap) as peer:
        message = fetch(topic) | {"isolation_level": 1}
        message["topics"][0]["partitions"][0]["partition"] = partition
        found = peer.call("Fetch", 11, message)["responses"][0]["partitions"][0]
    assert found["error_code"] == 0
    aborted = {(entry["producer_id"], entry["first_offset"]) for entry in found["aborted_transactions"]}
    values: list[bytes | None] = []
    inside: set[int] = set()
    for batch in iter_batches(found["records"] or b""):
        inside |= {producer for producer, first in aborted if first == batch.base_offset}
        if batch.control:
            inside.discard(batch.producer_id)
        elif batch.producer_id not in inside:
            values += [record.value for record in batch.records]
    return values, found["last_stable_offset"]


def until_stable(broker: Broker, topic: str, partition: int, offset: int) -> list[bytes | None]:
    """Markers are written after the transaction's end was answered."""
    deadline = time.monotonic() + 30
    while True:
        values, stable = committed(broker, topic, partition)
        if stable >= offset or time.monotonic() > deadline:
            assert stable == offset
            return values
        time.sleep(0.02)


@pytest.mark.parametrize("arena", ["off", "/dev/shm"])
def test_a_kill_in_the_middle_of_transactions(start_broker: Start, engine: str, fresh_name: str, arena: str) -> None:
    broker = start_broker(io=engine, args=["--arena", arena])
    create_topic(broker.bootstrap, fresh_name, partitions=2)
    with Peer(broker.bootstrap) as peer:
        done, gone, early, late = (Producer(peer, f"{fresh_name}-{name}") for name in ("done", "gone", "early", "late"))
        gone.send(fresh_name, 0, b"gone")
        done.send(fresh_name, 0, b"done")
        gone.end(commit=False)
        done.end(commit=True)
        until_stable(broker, fresh_name, 0, 4)
        for partition in (0, 1):
            early.send(fresh_name, partition, b"early")
            late.send(fresh_name, partition, b"late")
    for _ in range(2):
        broker.kill()
        broker.start()
        assert committed(broker, fresh_name, 0) == ([b"done"], 4)
        assert committed(broker, fresh_name, 1) == ([], 0)
    with Peer(broker.bootstrap) as peer:
        early.peer = late.peer = peer
        late.end(commit=True)
        assert committed(broker, fresh_name, 0) == ([b"done"], 4)
        early.end(commit=False)
        assert until_stable(broker, fresh_name, 0, 8) == [b"done", b"late"]
        assert until_stable(broker, fresh_name, 1, 4) == [b"late"]
    broker.stop()
    broker.start()
    assert committed(broker, fresh_name, 0) == ([b"done", b"late"], 8)


@pytest.mark.parametrize("version", [1, 2])
def test_an_administrator_sees_and_ends_a_transaction(broker: Broker, fresh_name: str, version: int) -> None:
    create_topic(broker.bootstrap, fresh_name, partitions=2)

    def mark(peer: Peer, **fields: Any) -> dict[int, int]:
        topics = [{"name": fresh_name, "partition_indexes": [0, 7]}, {"name": fresh_name + "-none", "partition_indexes": [0]}]
        marker = {"producer_id": producer.id, "producer_epoch": producer.epoch, "coordinator_epoch": 5, "topics": topics} | fields
        (answer,) = peer.call("WriteTxnMarkers", version, {"markers": [marker]})["markers"]
        assert answer["producer_id"] == producer.id
        found = {topic["name"]: {p["partition_index"]: p["error_code"] for p in topic["partitions"]} for topic in answer["topics"]}
        assert found[fresh_name + "-none"] == {0: Error.UNKNOWN_TOPIC_OR_PARTITION}
        return found[fresh_name]

    def described(peer: Peer) -> dict[str, Any]:
        asked = [{"name": fresh_name, "partition_indexes": [0, 7]}, {"name": "no such/topic", "partition_indexes": [0]}]
        topics = peer.call("DescribeProducers", 0, {"topics": asked})["topics"]
        assert topics[1]["partitions"][0]["error_code"] == Error.INVALID_TOPIC_EXCEPTION
        known, unknown = topics[0]["partitions"]
        assert unknown["error_code"] == Error.UNKNOWN_TOPIC_OR_PARTITION
        (found,) = known["active_producers"]
        return dict(found)

    with Peer(broker.bootstrap) as peer:
        producer = Producer(peer, fresh_name)
        producer.send(fresh_name, 0, b"x")
        found = described(peer)
        assert (found["producer_id"], found["producer_epoch"], found["last_sequence"]) == (producer.id, producer.epoch, 0)
        assert (found["current_txn_start_offset"], found["coordinator_epoch"]) == (0, -1)
        unknown = {7: Error.UNKNOWN_TOPIC_OR_PARTITION}
        older = producer.epoch - 1
        assert mark(peer, producer_epoch=older, transaction_result=False) == {0: Error.INVALID_PRODUCER_EPOCH} | unknown
        assert mark(peer, transaction_result=False) == {0: Error.NONE} | unknown
        assert mark(peer, transaction_result=False, coordinator_epoch=4) == {0: Error.TRANSACTION_COORDINATOR_FENCED} | unknown
        found = described(peer)
        assert (found["current_txn_start_offset"], found["coordinator_epoch"]) == (-1, 5)
        assert committed(broker, fresh_name) == ([], 2)


def set_broker(peer: Peer, name: str, value: str) -> None:
    resource = {"resource_type": 4, "resource_name": "", "configs": [{"name": name, "config_operation": 0, "value": value}]}
    (answer,) = peer.call("IncrementalAlterConfigs", 1, {"resources": [resource], "validate_only": False})["responses"]
    assert answer["error_code"] == Error.NONE, answer


@pytest.mark.one_engine
def test_settings_that_may_change_while_the_broker_runs(start_broker: Start, engine: str, fresh_name: str) -> None:
    broker = start_broker(io=engine)
    create_topic(broker.bootstrap, fresh_name)
    with Peer(broker.bootstrap) as peer:
        producer, other = (Producer(peer, f"{fresh_name}-{name}") for name in ("done", "open"))
        producer.send(fresh_name, 0, b"x")
        producer.end(commit=True)
        until_stable(broker, fresh_name, 0, 2)
        other.send(fresh_name, 0, b"y")

        def known() -> set[int]:
            asked = {"topics": [{"name": fresh_name, "partition_indexes": [0]}]}
            return {
                each["producer_id"] for each in peer.call("DescribeProducers", 0, asked)["topics"][0]["partitions"][0]["active_producers"]
            }

        assert known() == {producer.id, other.id}
        set_broker(peer, "producer.id.expiration.ms", "1")
        deadline = time.monotonic() + 30
        while known() != {other.id} and time.monotonic() < deadline:  # an open transaction keeps its own
            time.sleep(0.02)
        assert known() == {other.id}

        # Version 11 of Produce has partitions verified, not added: this one is in no transaction.
        set_broker(peer, "producer.id.expiration.ms", "86400000")
        batch = build_batch(
            [Record(0, 0, None, b"z")],
            timestamp_ms=int(time.time() * 1000),
            attributes=TRANSACTIONAL,
            producer_id=producer.id,
            producer_epoch=producer.epoch,
            base_sequence=0,
        )
        data = [{"name": fresh_name, "partition_data": [{"index": 0, "records": batch}]}]
        message = {"transactional_id": producer.name, "acks": -1, "timeout_ms": 10_000, "topic_data": data}
        assert produced(peer.call("Produce", 11, message))[0] == Error.TRANSACTION_ABORTABLE
        set_broker(peer, "transaction.partition.verification.enable", "false")
        assert produced(peer.call("Produce", 11, message))[0] == Error.NONE


def test_the_end_of_a_transaction_with_offsets(broker: Broker, fresh_name: str) -> None:
    """A marker for `__consumer_offsets` is the group coordinator's to write: offsets committed in the transaction hold from then on."""
    create_topic(broker.bootstrap, fresh_name)
    with Peer(broker.bootstrap) as peer:
        producer = Producer(peer, fresh_name)
        who = {"transactional_id": producer.name, "producer_id": producer.id, "producer_epoch": producer.epoch, "group_id": fresh_name}
        retried(peer, "AddOffsetsToTxn", 4, who)
        partitions = [{"partition_index": 0, "committed_offset": 42, "committed_leader_epoch": -1, "committed_metadata": ""}]
        offsets = who | {"generation_id": -1, "member_id": "", "topics": [{"name": fresh_name, "partitions": partitions}]}
        answer = peer.call("TxnOffsetCommit", 4, offsets)
        assert answer["topics"][0]["partitions"][0]["error_code"] == 0

        def fetched() -> int:
            asked = {"group_id": fresh_name, "topics": [{"name": fresh_name, "partition_indexes": [0]}]}
            group = peer.call("OffsetFetch", 8, {"groups": [asked], "require_stable": False})["groups"][0]
            assert group["error_code"] == 0
            return int(group["topics"][0]["partitions"][0]["committed_offset"])

        asked = [{"name": "__consumer_offsets", "partition_indexes": list(range(50))}]
        described = peer.call("DescribeProducers", 0, {"topics": asked})["topics"][0]["partitions"]
        (home,) = (
            partition["partition_index"]
            for partition in described
            if any(p["producer_id"] == producer.id and p["current_txn_start_offset"] >= 0 for p in partition["active_producers"])
        )
        assert fetched() == -1
        marker = {"producer_id": producer.id, "producer_epoch": producer.epoch, "coordinator_epoch": 0, "transaction_result": True}
        marker["topics"] = [{"name": "__consumer_offsets", "partition_indexes": [home]}]
        (written,) = peer.call("WriteTxnMarkers", 1, {"markers": [marker]})["markers"]
        assert written["topics"][0]["partitions"] == [{"partition_index": home, "error_code": 0}]
        assert fetched() == 42
