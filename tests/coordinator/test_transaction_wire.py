"""Transactions over the real socket, request by request. Every expectation here is Apache Kafka 4.3's answer, too:

FASTLOG_TEST_BOOTSTRAP=HOST:PORT runs these tests against such a broker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import TRANSACTIONAL, Record, build_batch
from tests.coordinator.test_wire import Wire, bootstrap, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlog.protocol.messages import Message

__all__ = ("bootstrap", "wire")  # fixtures

pytestmark = pytest.mark.timeout(60)


class Producer:
    """The requests of one transactional id."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self.id = -1
        self.epoch = -1

    def init(self, version: int = 5, *, take: bool = True, **changes: Any) -> Error:
        """`take`: goes on with the id and epoch."""
        asked = {"transactional_id": self.name, "transaction_timeout_ms": 60_000} | changes
        answer = self.patiently("InitProducerId", version, asked) if take else self.wire.ask("InitProducerId", version, asked)
        if answer["error_code"] == Error.NONE and take:
            self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return Error(answer["error_code"])

    def patiently(self, api: str, version: int, asked: Message) -> Message:
        """Asks until the transaction before is complete and the coordinator has been found."""
        waiting = {Error.CONCURRENT_TRANSACTIONS, Error.COORDINATOR_LOAD_IN_PROGRESS, Error.NOT_COORDINATOR}
        deadline = time.monotonic() + 30
        while (answer := self.wire.ask(api, version, asked)).get("error_code") in waiting:
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)
        return answer

    def add(self, *indexes: int, topic: str, version: int = 3, **changes: Any) -> Error:
        who = {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch} | changes
        who["topics"] = [{"name": topic, "partitions": list(indexes or (0,))}]
        deadline = time.monotonic() + 30
        while True:
            if version >= 4:
                answer = self.wire.ask("AddPartitionsToTxn", version, {"transactions": [who]})
                results = answer["results_by_transaction"][0]["topic_results"]
            else:
                answer = self.wire.ask("AddPartitionsToTxn", version, {f"v3_and_below_{key}": value for key, value in who.items()})
                results = answer["results_by_topic_v3_and_below"]
            (error,) = {each["partition_error_code"] for topic in results for each in topic["results_by_partition"]}
            if error != Error.CONCURRENT_TRANSACTIONS or time.monotonic() > deadline:
                return Error(error)
            time.sleep(0.02)

    def end(self, commit: bool, version: int = 5, *, take: bool = True, **changes: Any) -> Error:
        asked = {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch, "committed": commit} | changes
        answer = self.patiently("EndTxn", version, asked)
        if answer["error_code"] == Error.NONE and version >= 5 and take:
            self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return Error(answer["error_code"])

    def offsets(self, group: str, topic: str, offset: int, version: int = 5, **changes: Any) -> Error:
        at = {"partition_index": 0, "committed_offset": offset, "committed_metadata": ""}
        who = {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch, "group_id": group} | changes
        asked = who | {"topics": [{"name": topic, "partitions": [at]}]}
        deadline = time.monotonic() + 30
        while True:
            answer = self.wire.ask("TxnOffsetCommit", version, asked)
            error = Error(answer["topics"][0]["partitions"][0]["error_code"])
            if error is not Error.CONCURRENT_TRANSACTIONS or time.monotonic() > deadline:
                return error
            time.sleep(0.02)

    def state(self) -> Message:
        found: Message
        (found,) = self.wire.ask("DescribeTransactions", 0, {"transactional_ids": [self.name]})["transaction_states"]
        return found


@pytest.fixture
def producer(wire: Wire, fresh_name: str) -> Producer:
    while wire.ask("FindCoordinator", 4, {"key_type": 1, "coordinator_keys": [fresh_name]})["coordinators"][0]["error_code"]:
        time.sleep(0.02)
    return Producer(wire, fresh_name)


@pytest.fixture
def topic(wire: Wire, fresh_name: str) -> Iterator[str]:
    name = f"{fresh_name}-topic"
    new = {"name": name, "num_partitions": 2, "replication_factor": 1}
    assert wire.ask("CreateTopics", 7, {"topics": [new], "timeout_ms": 10_000})["topics"][0]["error_code"] == Error.NONE
    asked = {"topics": [{"name": name}], "allow_auto_topic_creation": False}
    while wire.ask("Metadata", 12, asked)["topics"][0]["error_code"]:
        time.sleep(0.02)  # Kafka's broker hears of it from its controller
    yield name
    wire.ask("DeleteTopics", 6, {"topics": [{"name": name}], "timeout_ms": 10_000})


@pytest.mark.parametrize("version", range(6))
def test_init_producer_id(producer: Producer, version: int) -> None:
    assert producer.init(version, transaction_timeout_ms=0) is Error.INVALID_TRANSACTION_TIMEOUT
    assert producer.init(version, transaction_timeout_ms=900_001) is Error.INVALID_TRANSACTION_TIMEOUT
    assert producer.init(version) is Error.NONE
    assert producer.epoch == 0
    assert producer.init(version) is Error.NONE
    assert producer.epoch == 1
    if version >= 3:
        fenced = Error.PRODUCER_FENCED if version >= 4 else Error.INVALID_PRODUCER_EPOCH
        assert producer.init(version, producer_id=producer.id, producer_epoch=0) is fenced
        assert producer.init(version, producer_id=producer.id + 12345, producer_epoch=1) is fenced
        assert producer.init(version, producer_id=producer.id) is Error.INVALID_REQUEST
        assert producer.init(version, producer_id=producer.id, producer_epoch=1) is Error.NONE
        assert producer.epoch == 2
        assert producer.init(version, producer_id=producer.id, producer_epoch=1) is Error.NONE
        assert producer.epoch == 2


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5])
def test_add_partitions(producer: Producer, topic: str, version: int) -> None:
    assert producer.add(topic=topic, version=version) is Error.INVALID_PRODUCER_ID_MAPPING
    producer.init()
    assert producer.add(topic="nowhere-at-all", version=version) is Error.UNKNOWN_TOPIC_OR_PARTITION
    assert producer.add(7, topic=topic, version=version) is Error.UNKNOWN_TOPIC_OR_PARTITION
    assert producer.add(topic=topic, version=version, producer_id=producer.id + 999) is Error.INVALID_PRODUCER_ID_MAPPING
    fenced = Error.PRODUCER_FENCED if version >= 2 else Error.INVALID_PRODUCER_EPOCH
    assert producer.add(topic=topic, version=version, producer_epoch=3) is fenced
    assert producer.add(0, 1, topic=topic, version=version) is Error.NONE
    assert producer.add(0, topic=topic, version=version) is Error.NONE
    found = producer.state()
    assert (found["transaction_state"], found["producer_epoch"]) == ("Ongoing", 0)
    assert [(each["topic"], sorted(each["partitions"])) for each in found["topics"]] == [(topic, [0, 1])]
    if version >= 4:
        assert producer.add(0, topic=topic, version=version, verify_only=True) is Error.NONE
        producer.end(False)
        producer.patiently("EndTxn", 5, {"transactional_id": "", "producer_id": 0, "producer_epoch": 0})
        assert producer.add(0, topic=topic, version=version, verify_only=True) is Error.TRANSACTION_ABORTABLE


@pytest.mark.parametrize("version", range(5))
def test_ends_that_keep_the_epoch(producer: Producer, topic: str, version: int) -> None:
    assert producer.end(True, version) is Error.INVALID_PRODUCER_ID_MAPPING
    producer.init()
    for commit in (True, False):
        assert producer.end(commit, version) is Error.INVALID_TXN_STATE
    for commit in (True, False):
        assert producer.add(topic=topic) is Error.NONE
        assert producer.end(commit, version, producer_epoch=4) is (Error.PRODUCER_FENCED if version >= 2 else Error.INVALID_PRODUCER_EPOCH)
        assert producer.end(commit, version) is Error.NONE
        assert producer.end(commit, version) is Error.NONE, "a retry"
        assert producer.end(not commit, version) is Error.INVALID_TXN_STATE
        found = producer.state()
        assert (found["transaction_state"], found["producer_epoch"]) == ("CompleteCommit" if commit else "CompleteAbort", 0)


def test_ends_that_bump_the_epoch(producer: Producer, topic: str) -> None:
    assert producer.end(True) is Error.INVALID_PRODUCER_ID_MAPPING
    producer.init()
    assert producer.end(True) is Error.INVALID_TXN_STATE
    assert producer.end(False) is Error.NONE
    assert producer.epoch == 1, "an abort when there is nothing to abort bumps it, too"
    for number, commit in enumerate((True, False), 1):
        assert producer.add(topic=topic, version=5) is Error.NONE
        for epoch in (number - 1, number + 1):
            assert producer.end(commit, producer_epoch=epoch) is Error.PRODUCER_FENCED
        assert producer.end(commit) is Error.NONE
        assert producer.epoch == number + 1
        assert producer.end(commit, producer_epoch=number) is Error.NONE, "a retry"
        assert producer.epoch == number + 1
        assert producer.end(not commit, producer_epoch=number) is Error.INVALID_TXN_STATE
        assert producer.end(True) is Error.INVALID_TXN_STATE
        assert producer.end(True, producer_epoch=number + 2) is Error.PRODUCER_FENCED


def test_one_transaction_after_the_other(producer: Producer, topic: str, bootstrap: str) -> None:
    """A producer of version 2 goes on as soon as the end is decided, while the markers of the one before are being written."""

    def produced(connection: Wire, epoch: int) -> Error:
        batch = build_batch(
            [Record(0, -1, None, b"x")],
            timestamp_ms=int(time.time() * 1000),
            attributes=TRANSACTIONAL,
            producer_id=producer.id,
            producer_epoch=epoch,
            base_sequence=0,
        )
        partition = {"index": 0, "records": batch}
        asked = {"transactional_id": producer.name, "acks": -1, "timeout_ms": 10_000}
        asked["topic_data"] = [{"name": topic, "partition_data": [partition]}]
        deadline = time.monotonic() + 30
        while True:
            answer = connection.ask("Produce", 12, asked)
            error = answer["responses"][0]["partition_responses"][0]["error_code"]
            if error not in {Error.CONCURRENT_TRANSACTIONS, Error.INVALID_PRODUCER_EPOCH} or time.monotonic() > deadline:
                return Error(error)

    producer.init()
    who = {"transactional_id": producer.name, "producer_id": producer.id}
    with Wire(bootstrap) as data:
        assert produced(data, 0) is Error.NONE
        for epoch in range(20):
            producer.wire.send("EndTxn", 5, who | {"producer_epoch": epoch, "committed": epoch % 3 > 0})
            assert produced(data, epoch + 1) is Error.NONE
            ended = producer.wire.receive()
            assert (ended["error_code"], ended["producer_epoch"]) == (Error.NONE, epoch + 1)


def test_a_new_producer_fences(producer: Producer, topic: str) -> None:
    producer.init()
    producer.add(topic=topic, version=5)
    assert producer.init(take=False) is Error.CONCURRENT_TRANSACTIONS
    zombie = Producer(producer.wire, producer.name)
    zombie.id, zombie.epoch = producer.id, producer.epoch
    assert producer.init() is Error.NONE
    assert producer.epoch == 2
    assert zombie.add(topic=topic) is Error.PRODUCER_FENCED
    assert zombie.end(True) is Error.PRODUCER_FENCED
    assert zombie.end(False, 4) is Error.PRODUCER_FENCED
    assert zombie.offsets(f"{topic}-group", topic, 3) is Error.INVALID_PRODUCER_EPOCH
    assert zombie.init(producer_id=zombie.id, producer_epoch=zombie.epoch) is Error.PRODUCER_FENCED


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("version", range(6))
def test_offsets(producer: Producer, topic: str, eventually: Any, version: int, commit: bool) -> None:
    group, wire = f"{topic}-group", producer.wire
    producer.init()
    bumping = version >= 5

    def fetched(*, stable: bool) -> tuple[int, Error]:
        asked = {"groups": [{"group_id": group, "topics": [{"name": topic, "partition_indexes": [0]}]}], "require_stable": stable}
        (found,) = wire.ask("OffsetFetch", 9, asked)["groups"][0]["topics"][0]["partitions"]
        return found["committed_offset"], Error(found["error_code"])

    if not bumping:
        assert producer.offsets(group, topic, 3, version) is (Error.TRANSACTION_ABORTABLE if version >= 4 else Error.INVALID_TXN_STATE)
        who = {"transactional_id": producer.name, "producer_id": producer.id, "producer_epoch": 0, "group_id": group}
        assert wire.ask("AddOffsetsToTxn", min(version, 4), who)["error_code"] == Error.NONE
    assert producer.offsets(group, topic, 3, version) is Error.NONE
    assert producer.offsets(group, "nowhere-at-all", 3, version) is Error.UNKNOWN_TOPIC_OR_PARTITION
    assert producer.offsets("", topic, 3, version) is Error.INVALID_GROUP_ID
    if version >= 3:
        assert producer.offsets(group, topic, 3, version, generation_id=4) is Error.UNKNOWN_MEMBER_ID
    assert fetched(stable=False) == (-1, Error.NONE)
    assert fetched(stable=True) == (-1, Error.UNSTABLE_OFFSET_COMMIT)
    assert producer.end(commit, 5 if bumping else 4) is Error.NONE
    eventually(lambda: fetched(stable=True) == (3 if commit else -1, Error.NONE), 30)


def test_list_and_describe(producer: Producer, topic: str) -> None:
    assert producer.state()["error_code"] == Error.TRANSACTIONAL_ID_NOT_FOUND
    producer.init()
    producer.add(topic=topic)

    def listed(version: int = 2, **filters: Any) -> list[Message]:
        answer = producer.wire.ask("ListTransactions", version, filters)
        assert answer["error_code"] == Error.NONE
        return [each for each in answer["transaction_states"] if each["transactional_id"] == producer.name]

    expected = [{"transactional_id": producer.name, "producer_id": producer.id, "transaction_state": "Ongoing"}]
    for version in range(3):
        assert listed(version) == expected
    assert listed(state_filters=["Ongoing"], producer_id_filters=[producer.id]) == expected
    assert listed(state_filters=["Empty", "PrepareEpochFence"]) == []
    assert listed(duration_filter=3_600_000) == []
    assert listed(duration_filter=0, transactional_id_pattern=producer.name.replace("_", ".")) == expected
    assert listed(transactional_id_pattern=producer.name[:-1]) == []
    odd = producer.wire.ask("ListTransactions", 2, {"state_filters": ["ongoing"]})
    assert (odd["unknown_state_filters"], odd["transaction_states"]) == (["ongoing"], [])
    assert producer.wire.ask("ListTransactions", 2, {"transactional_id_pattern": "("})["error_code"] == Error.INVALID_REGULAR_EXPRESSION
