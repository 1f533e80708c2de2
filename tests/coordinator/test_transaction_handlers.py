"""Transactions through the handlers, in every version that is served; and what is between the coordinators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastlog.coordinator.operation import Marker
from fastlog.protocol.errors import Error
from tests.coordinator.fakes import FakeTopics, Message
from tests.coordinator.serving import Served, asynchronous, turns, until
from tests.coordinator.test_handlers import Broker, versions


class Client:
    """A producer, in one version of each API."""

    def __init__(self, served: Served, name: str = "x", **api_versions: int) -> None:
        self.served = served
        self.broker = Broker(served)
        self.name = name
        self.versions = {
            "InitProducerId": 5,
            "AddPartitionsToTxn": 3,
            "AddOffsetsToTxn": 4,
            "TxnOffsetCommit": 4,
            "EndTxn": 4,
        } | api_versions
        self.producer_id = -1
        self.epoch = -1

    async def ask(self, api: str, **message: Any) -> Message:
        return await self.broker.ask(api, self.versions[api], message)

    async def init(self, **message: Any) -> Error:
        asked = {"transactional_id": self.name, "transaction_timeout_ms": 60_000} | message
        answer = await self.ask("InitProducerId", **asked)
        if answer["error_code"] == Error.NONE:
            self.producer_id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return Error(answer["error_code"])

    async def add(self, *partitions: tuple[str, int], epoch: int | None = None) -> dict[tuple[str, int], Error]:
        topics: dict[str, list[int]] = {}
        for name, index in partitions:
            topics.setdefault(name, []).append(index)
        who = {"transactional_id": self.name, "producer_id": self.producer_id, "producer_epoch": self.epoch if epoch is None else epoch}
        listed = [{"name": name, "partitions": indexes} for name, indexes in topics.items()]
        if self.versions["AddPartitionsToTxn"] >= 4:
            answer = await self.ask("AddPartitionsToTxn", transactions=[who | {"topics": listed}])
            assert answer["error_code"] == Error.NONE
            results = answer["results_by_transaction"][0]["topic_results"]
        else:
            asked = {f"v3_and_below_{key}": value for key, value in (who | {"topics": listed}).items()}
            results = (await self.ask("AddPartitionsToTxn", **asked))["results_by_topic_v3_and_below"]
        return {
            (topic["name"], each["partition_index"]): Error(each["partition_error_code"])
            for topic in results
            for each in topic["results_by_partition"]
        }

    async def add_offsets(self, group: str = "g") -> Error:
        answer = await self.ask(
            "AddOffsetsToTxn", transactional_id=self.name, producer_id=self.producer_id, producer_epoch=self.epoch, group_id=group
        )
        return Error(answer["error_code"])

    async def commit_offsets(self, offset: int, group: str = "g", *, partition: int = 0, topic: str = "t", **message: Any) -> Error:
        at = {"partition_index": partition, "committed_offset": offset, "committed_leader_epoch": -1, "committed_metadata": "m"}
        asked = {
            "transactional_id": self.name,
            "group_id": group,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
            "topics": [{"name": topic, "partitions": [at]}],
        }
        if self.versions["TxnOffsetCommit"] < 2:
            del at["committed_leader_epoch"]
        answer = await self.ask("TxnOffsetCommit", **asked | message)
        assert answer["topics"][0]["name"] == topic
        return Error(answer["topics"][0]["partitions"][0]["error_code"])

    async def end(self, commit: bool, epoch: int | None = None) -> Error:
        answer = await self.ask(
            "EndTxn",
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch if epoch is None else epoch,
            committed=commit,
        )
        if self.versions["EndTxn"] >= 5 and answer["error_code"] == Error.NONE:
            self.producer_id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return Error(answer["error_code"])

    async def state(self) -> Message:
        answer = await self.broker.ask("DescribeTransactions", 0, {"transactional_ids": [self.name]})
        found: Message
        (found,) = answer["transaction_states"]
        return found

    async def offsets(self, *, stable: bool = False) -> tuple[int, Error]:
        group = {"group_id": "g", "topics": [{"name": "t", "partition_indexes": [0]}]}
        answer = await self.broker.ask("OffsetFetch", 8, {"groups": [group], "require_stable": stable})
        (partition,) = answer["groups"][0]["topics"][0]["partitions"]
        return partition["committed_offset"], Error(partition["error_code"])


@pytest.mark.parametrize("version", versions("InitProducerId"))
@asynchronous
async def test_init_producer_id(version: int) -> None:
    async with Served() as served:
        client = Client(served, InitProducerId=version)
        assert await client.init(transaction_timeout_ms=0) is Error.INVALID_TRANSACTION_TIMEOUT
        assert await client.init(transaction_timeout_ms=900_001) is Error.INVALID_TRANSACTION_TIMEOUT
        assert await client.init(transaction_timeout_ms=900_000) is Error.NONE
        assert (client.producer_id, client.epoch) == (0, 0)
        assert await client.init() is Error.NONE
        assert (client.producer_id, client.epoch) == (0, 1)
        if version >= 3:
            fenced = Error.PRODUCER_FENCED if version >= 4 else Error.INVALID_PRODUCER_EPOCH
            assert await client.init(producer_id=0, producer_epoch=0) is fenced
            assert await client.init(producer_id=0, producer_epoch=1) is Error.NONE
            assert client.epoch == 2
            assert await client.init(producer_id=0, producer_epoch=1) is Error.NONE
            assert client.epoch == 2, "a retry"


@pytest.mark.parametrize("version", versions("AddPartitionsToTxn"))
@asynchronous
async def test_add_partitions(version: int) -> None:
    async with Served() as served:
        client = Client(served, AddPartitionsToTxn=version)
        t0, t1, missing, unknown = ("t", 0), ("t", 1), ("t", 9), ("nowhere", 0)
        assert await client.add(t0) == {t0: Error.INVALID_PRODUCER_ID_MAPPING}
        await client.init()
        assert await client.add(t0, missing, unknown) == {
            t0: Error.OPERATION_NOT_ATTEMPTED,
            missing: Error.UNKNOWN_TOPIC_OR_PARTITION,
            unknown: Error.UNKNOWN_TOPIC_OR_PARTITION,
        }
        assert await client.add(t0, epoch=5) == {t0: Error.PRODUCER_FENCED if version >= 2 else Error.INVALID_PRODUCER_EPOCH}
        assert await client.add(t0, t1) == {t0: Error.NONE, t1: Error.NONE}
        found = await client.state()
        assert (found["transaction_state"], found["topics"]) == ("Ongoing", [{"topic": "t", "partitions": [0, 1]}])


@asynchronous
async def test_add_partitions_of_several_transactions() -> None:
    """As brokers ask it: one adds, one verifies."""
    async with Served() as served:
        one, two = Client(served, "one"), Client(served, "two")
        await one.init()
        await two.init()
        await two.add(("t", 0))
        transactions = [
            {
                "transactional_id": client.name,
                "producer_id": client.producer_id,
                "producer_epoch": client.epoch,
                "verify_only": client is two,
                "topics": [{"name": "t", "partitions": [0, 1]}],
            }
            for client in (one, two)
        ]
        answer = await one.broker.ask("AddPartitionsToTxn", 5, {"transactions": transactions})
        results = {
            each["transactional_id"]: [p["partition_error_code"] for topic in each["topic_results"] for p in topic["results_by_partition"]]
            for each in answer["results_by_transaction"]
        }
        assert results == {"one": [Error.NONE, Error.NONE], "two": [Error.NONE, Error.TRANSACTION_ABORTABLE]}


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("version", versions("EndTxn"))
@asynchronous
async def test_end(version: int, commit: bool) -> None:
    async with Served() as served:
        client = Client(served, EndTxn=version)
        await client.init()
        await client.add(("t", 0), ("t", 2))
        assert await client.end(commit, epoch=7) is (Error.PRODUCER_FENCED if version >= 2 else Error.INVALID_PRODUCER_EPOCH)
        assert await client.end(commit) is Error.NONE
        topic = served.topics.topics["t"]
        await until(lambda: len(served.transaction_log.markers) == 2)
        epoch = 1 if version >= 5 else 0
        assert sorted(served.transaction_log.markers) == [(topic.topic_id, index, 0, epoch, commit) for index in (0, 2)]
        assert (client.producer_id, client.epoch) == (0, epoch)
        assert await client.add(("t", 1)) == {("t", 1): Error.NONE}, "waits until the one before is complete"
        assert served.transactions.metrics.transactions_committed == commit
        assert served.transactions.metrics.transactions_aborted == (not commit)


@asynchronous
async def test_the_next_transaction_waits_for_the_markers_but_not_for_long() -> None:
    async with Served() as served:
        client = Client(served)
        await client.init()
        await client.add(("t", 0))
        served.transaction_log.marker_gate = asyncio.Event()
        assert await client.end(True) is Error.NONE
        assert (await client.state())["topics"] == [{"topic": "t", "partitions": [0]}]
        assert await client.add(("t", 1)) == {("t", 1): Error.CONCURRENT_TRANSACTIONS}
        adding = asyncio.create_task(client.add(("t", 1)))
        await turns()
        served.transaction_log.marker_gate.set()
        assert await adding == {("t", 1): Error.NONE}


@asynchronous
async def test_markers_are_tried_until_they_are_written() -> None:
    async with Served() as served:
        client = Client(served)
        await client.init()
        await client.add(("t", 0), ("u", 0))
        served.transaction_log.fail_markers = Error.KAFKA_STORAGE_ERROR
        assert await client.end(True) is Error.NONE
        await until(lambda: served.transactions.metrics.marker_errors >= 2)
        assert await client.init() is Error.CONCURRENT_TRANSACTIONS
        served.transaction_log.fail_markers = Error.NONE
        await until(lambda: len(served.transaction_log.markers) == 2)
        await until(lambda: served.transactions.metrics.transactions_committed == 1)


@pytest.mark.parametrize("error", [Error.UNKNOWN_TOPIC_OR_PARTITION, Error.INVALID_PRODUCER_EPOCH, Error.TRANSACTION_COORDINATOR_FENCED])
@asynchronous
async def test_markers_that_nobody_needs(error: Error) -> None:
    async with Served() as served:
        client = Client(served)
        await client.init()
        await client.add(("t", 0))
        served.transaction_log.fail_markers = error
        assert await client.end(False) is Error.NONE
        await until(lambda: served.transactions.metrics.transactions_aborted == 1)


@asynchronous
async def test_a_topic_that_is_deleted_meanwhile() -> None:
    async with Served() as served:
        client = Client(served)
        await client.init()
        await client.add(("t", 0), ("u", 0))
        del served.topics.topics["t"]
        assert await client.end(True) is Error.NONE
        await until(lambda: served.transactions.metrics.transactions_committed == 1)
        assert [marker[0] for marker in served.transaction_log.markers] == [served.topics.topics["u"].topic_id]


@asynchronous
async def test_while_the_log_is_loaded() -> None:
    topics = FakeTopics(t=1)
    await topics.ensure_internal_topic("__transaction_state", 2, {})
    served = Served(topics=topics)
    served.transaction_log.read_gate = asyncio.Event()
    async with served:
        client = Client(served)
        assert await client.init() is Error.COORDINATOR_LOAD_IN_PROGRESS
        assert await client.add(("t", 0)) == {("t", 0): Error.COORDINATOR_LOAD_IN_PROGRESS}
        assert await client.end(True) is Error.COORDINATOR_LOAD_IN_PROGRESS
        assert (await client.state())["error_code"] == Error.COORDINATOR_LOAD_IN_PROGRESS
        assert (await client.broker.ask("ListTransactions", 2, {}))["error_code"] == Error.COORDINATOR_LOAD_IN_PROGRESS
        served.transaction_log.read_gate.set()
        await until(lambda: served.transactions.gauges()["partitions_active"] == 2)
        assert await client.init() is Error.NONE


@pytest.mark.parametrize("version", versions("FindCoordinator", 1))
@asynchronous
async def test_find_coordinator(version: int) -> None:
    async with Served() as served:
        asked: Message = ({"coordinator_keys": ["x"]} if version >= 4 else {"key": "x"}) | {"key_type": 1}
        answer = await Broker(served).ask("FindCoordinator", version, asked)
        found = answer["coordinators"][0] if version >= 4 else answer
        assert (found["error_code"], found["node_id"]) == (Error.NONE, 7)
        ((name, partitions, configs),) = served.topics.made
        assert (name, partitions) == ("__transaction_state", 2)
        assert configs == {"cleanup.policy": "compact", "compression.type": "uncompressed", "segment.bytes": "104857600"}


@asynchronous
async def test_time_outs() -> None:
    async with Served() as served:
        client = Client(served)
        await client.init(transaction_timeout_ms=30_000)
        await client.add(("t", 0))
        await served.advance(30_000)
        assert (await client.state())["transaction_state"] == "Ongoing"
        await served.advance(10_000)
        await until(lambda: served.transactions.metrics.transactions_aborted == 1)
        assert [marker[2:] for marker in served.transaction_log.markers] == [(0, 1, False)]
        assert await client.end(True) is Error.PRODUCER_FENCED
        assert await client.add(("t", 0)) == {("t", 0): Error.PRODUCER_FENCED}


@asynchronous
async def test_describe_and_list() -> None:
    async with Served() as served:
        one, two = Client(served, "one"), Client(served, "two-2")
        await one.init()
        await two.init()
        await served.advance(5)
        await two.add(("t", 0))
        found = await two.state()
        del found["transaction_start_time_ms"]
        assert found == {
            "error_code": Error.NONE,
            "transactional_id": "two-2",
            "transaction_state": "Ongoing",
            "transaction_timeout_ms": 60_000,
            "producer_id": two.producer_id,
            "producer_epoch": 0,
            "topics": [{"topic": "t", "partitions": [0]}],
        }
        assert (await Client(served, "nobody").state())["error_code"] == Error.TRANSACTIONAL_ID_NOT_FOUND
        assert (await Client(served, "").state())["error_code"] == Error.INVALID_REQUEST
        await served.advance(1000)

        async def listed(version: int = 2, **filters: Any) -> list[str]:
            answer = await one.broker.ask("ListTransactions", version, filters)
            assert answer["error_code"] == Error.NONE
            return sorted(each["transactional_id"] for each in answer["transaction_states"])

        for version in versions("ListTransactions"):
            assert await listed(version) == ["one", "two-2"]
        assert await listed(state_filters=["Ongoing"]) == ["two-2"]
        assert await listed(state_filters=["Ongoing", "Empty"]) == ["one", "two-2"]
        assert await listed(producer_id_filters=[one.producer_id]) == ["one"]
        assert await listed(duration_filter=999, state_filters=["Ongoing"]) == ["two-2"]
        assert await listed(duration_filter=1000, state_filters=["Ongoing"]) == []
        assert await listed(transactional_id_pattern="two-.*") == ["two-2"]
        assert await listed(transactional_id_pattern="two") == []
        odd = await one.broker.ask("ListTransactions", 1, {"state_filters": ["Ongoing", "Odd"]})
        assert odd["unknown_state_filters"] == ["Odd"]
        assert [each["transactional_id"] for each in odd["transaction_states"]] == ["two-2"]
        assert (await one.broker.ask("ListTransactions", 2, {"transactional_id_pattern": "("}))["error_code"] == (
            Error.INVALID_REGULAR_EXPRESSION
        )


# -- offsets ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("version", versions("TxnOffsetCommit"))
@asynchronous
async def test_offsets_hold_when_the_transaction_has_committed(version: int, commit: bool) -> None:
    async with Served() as served:
        bumping = version >= 5
        client = Client(served, TxnOffsetCommit=version, EndTxn=5 if bumping else 4)
        await client.init()
        assert await client.commit_offsets(4, topic="nowhere") is Error.UNKNOWN_TOPIC_OR_PARTITION
        assert await client.commit_offsets(4, partition=9) is Error.UNKNOWN_TOPIC_OR_PARTITION
        assert await client.commit_offsets(4, group="") is Error.INVALID_GROUP_ID
        if not bumping:
            not_added = Error.TRANSACTION_ABORTABLE if version >= 4 else Error.INVALID_TXN_STATE
            assert await client.commit_offsets(4) is not_added
            assert await client.add_offsets() is Error.NONE
        assert await client.commit_offsets(4) is Error.NONE
        assert await client.offsets() == (-1, Error.NONE)
        assert await client.offsets(stable=True) == (-1, Error.UNSTABLE_OFFSET_COMMIT)
        assert await client.end(commit) is Error.NONE
        await until(lambda: served.service.gauges()["transactions"] == 0)
        assert await client.offsets(stable=True) == (4 if commit else -1, Error.NONE)


@pytest.mark.parametrize("commit", [True, False])
@asynchronous
async def test_offsets_of_an_open_transaction_outlive_a_restart(commit: bool) -> None:
    async with Served() as served:
        client = Client(served, TxnOffsetCommit=5, EndTxn=5)
        await client.init()
        assert await client.commit_offsets(4) is Error.NONE
        assert await served.commit(3) == Error.NONE, "of somebody else, later"
        assert await client.commit_offsets(5) is Error.NONE
        other = await served.restarted()
        again = Client(other, TxnOffsetCommit=5, EndTxn=5)
        again.producer_id, again.epoch = client.producer_id, client.epoch
        assert await again.offsets() == (3, Error.NONE)
        assert await again.offsets(stable=True) == (-1, Error.UNSTABLE_OFFSET_COMMIT)
        assert await again.end(commit) is Error.NONE
        await until(lambda: other.service.gauges()["transactions"] == 0)
        assert await again.offsets(stable=True) == (5 if commit else 3, Error.NONE)
        await other.__aexit__()


@asynchronous
async def test_a_later_commit_outside_holds() -> None:
    async with Served() as served:
        client = Client(served, TxnOffsetCommit=5, EndTxn=5)
        await client.init()
        assert await client.commit_offsets(4) is Error.NONE
        assert await served.commit(3) == Error.NONE
        assert await client.end(True) is Error.NONE
        await until(lambda: served.service.gauges()["transactions"] == 0)
        assert await client.offsets(stable=True) == (3, Error.NONE)


@asynchronous
async def test_members_and_generations_are_checked() -> None:
    async with Served() as served:
        member = await served.stable("g")
        client = Client(served, TxnOffsetCommit=5)
        await client.init()
        assert await client.commit_offsets(1, member_id=member, generation_id=1) is Error.NONE
        assert await client.commit_offsets(1, member_id=member, generation_id=2) is Error.ILLEGAL_GENERATION
        assert await client.commit_offsets(1, member_id="who", generation_id=1) is Error.UNKNOWN_MEMBER_ID
        assert await client.commit_offsets(1, member_id="who", group_instance_id="i", generation_id=1) is Error.UNKNOWN_MEMBER_ID
        assert await client.commit_offsets(1) is Error.NONE, "a producer that does not say for whom"
        assert await client.commit_offsets(1, group="none", generation_id=1) is Error.ILLEGAL_GENERATION
        assert await client.commit_offsets(1, group="new") is Error.NONE


@asynchronous
async def test_an_end_between_verification_and_commit() -> None:
    """What the coordinator said before the end does not count after it: nobody would end the transaction that the commit begins."""
    async with Served() as served:
        await served.loaded()
        client = Client(served, TxnOffsetCommit=4)
        await client.init()
        await client.add_offsets()
        verify = served.transactions.verify_offsets

        async def slow(*args: Any, **kwargs: Any) -> Error:
            error = await verify(*args, **kwargs)
            partition = served.service.partition_of("g")
            await served.service.end_transaction(partition, Marker(client.producer_id, client.epoch, 0, False, 0))
            return error

        served.transactions.verify_offsets = slow  # type: ignore[method-assign]
        assert await client.commit_offsets(1) is Error.INVALID_TXN_STATE


@asynchronous
async def test_offsets_of_the_next_transaction_wait_for_the_end_of_the_one_before() -> None:
    """The end is answered before it is in the log of the offsets: what comes in between is of the next one, by its epoch."""
    async with Served() as served:
        client = Client(served, TxnOffsetCommit=5, EndTxn=5)
        await client.init()
        assert await client.commit_offsets(4) is Error.NONE
        assert await client.commit_offsets(5) is Error.NONE
        gate = asyncio.Event()
        write = served.service.end_transaction

        async def held(*args: Any) -> Error:
            await gate.wait()
            return await write(*args)

        served.service.end_transaction = held  # type: ignore[assignment,method-assign]
        assert await client.end(False) is Error.NONE
        assert await client.commit_offsets(7) is Error.CONCURRENT_TRANSACTIONS
        committing = asyncio.create_task(client.commit_offsets(7))
        await turns()
        gate.set()
        assert await committing is Error.NONE
        assert await client.offsets() == (-1, Error.NONE)
        assert await client.end(True) is Error.NONE
        await until(lambda: served.service.gauges()["transactions"] == 0)
        assert await client.offsets(stable=True) == (7, Error.NONE)


@asynchronous
async def test_what_is_pending_goes_with_the_topic_and_the_group() -> None:
    async with Served() as served:
        client = Client(served, TxnOffsetCommit=5, EndTxn=5)
        await client.init()
        assert await client.commit_offsets(4) is Error.NONE
        served.service.on_topic_deleted("t")
        await turns()
        assert await client.end(True) is Error.NONE
        await until(lambda: served.service.gauges()["transactions"] == 0)
        assert await client.offsets(stable=True) == (-1, Error.NONE)
        await until(lambda: served.transactions.metrics.transactions_committed == 1)
        assert await client.commit_offsets(6) is Error.NONE
        (deleted,) = await served.service.delete_groups(["g"])
        assert deleted["error_code"] == Error.NONE
        assert await client.end(True) is Error.NONE
        await until(lambda: served.service.gauges()["transactions"] == 0)
        assert await client.offsets(stable=True) == (-1, Error.NONE)


@asynchronous
async def test_a_refused_producer_fails_nobody_else() -> None:
    """The log refuses a fenced producer's offsets; what was queued behind them goes on."""
    async with Served() as served:
        client = Client(served, TxnOffsetCommit=5)
        await client.init()
        assert await client.commit_offsets(1) is Error.NONE
        served.log.fail = Error.INVALID_PRODUCER_EPOCH
        served.log.gate = asyncio.Event()
        committing = asyncio.create_task(client.commit_offsets(2))
        await turns()
        others = asyncio.create_task(served.commit(9, "g", partition=1))
        await turns()
        gate, served.log.gate = served.log.gate, None
        gate.set()
        assert await committing is Error.INVALID_PRODUCER_EPOCH
        served.log.fail = Error.NONE
        assert await others == Error.NONE
