"""The handlers, in every version that is served, from a request's bytes to the response's."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID, uuid4

import pytest

from fastlog.broker.context import Cluster, Context, Endpoint, RequestContext
from fastlog.broker.dispatch import answer, beginner
from fastlog.broker.groups import host_of
from fastlog.broker.plane import Request
from fastlog.metadata.store import StoreError
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME, decode_response, encode_request
from tests.coordinator.fakes import FakeTopics, Message, subscription
from tests.coordinator.serving import Served, asynchronous, turns


def versions(name: str, first: int = 0) -> list[int]:
    low, high = API_BY_NAME[name].versions
    return list(range(max(low, first), high + 1))


class Broker:
    """As much of a broker as these handlers need."""

    def __init__(self, served: Served, *, begun: bool = False) -> None:
        """`begun`: requests are answered through `begin` where it can, as the dispatcher does."""
        self.served = served
        self.begun = begun
        cluster = Cluster("cluster", 7, {"main": Endpoint("broker.example", 9092), "other": Endpoint("10.0.0.1", 9093)})
        parts: Any = {
            "plane": served.log,
            "store": None,
            "topics": served.topics,
            "configs": None,
            "quotas": None,
            "cluster": cluster,
            "log": logging.getLogger("test"),
            "clock": served.clock,
        }
        self.ctx = Context(**parts, coordinator=served.service, transactions=served.transactions)

    async def ask(self, api: str, version: int, message: Message, listener: str = "main") -> Message:
        key = API_BY_NAME[api].key
        body = memoryview(encode_request(key, version, message))
        request = Request(1, key, version, 1, "client", "127.0.0.1:5000", listener, body)
        if self.begun:
            given: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            context = RequestContext(key, version, "client", "127.0.0.1:5000", listener)
            if beginner(key)(self.ctx, context, body, given.set_result):
                return decode_response(key, version, await given)
        return decode_response(key, version, (await answer(self.ctx, request)).body)

    async def member(self, group_id: str, version: int, *, instance: str | None = None) -> tuple[str, Message]:
        """Joins, and returns the member id and the JoinGroup response of the generation."""
        asked: Message = {
            "group_id": group_id,
            "session_timeout_ms": 10_000,
            "member_id": "",
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": subscription("t")}],
        }
        if version >= 1:
            asked["rebalance_timeout_ms"] = 60_000
        if version >= 5:
            asked["group_instance_id"] = instance
        if version >= 4 and instance is None:
            response = await self.ask("JoinGroup", version, asked)
            assert response["error_code"] == Error.MEMBER_ID_REQUIRED
            asked["member_id"] = response["member_id"]
        joining = asyncio.create_task(self.ask("JoinGroup", version, asked))
        await turns()
        await self.served.advance(0)
        response = await joining
        assert response["error_code"] == Error.NONE
        return response["member_id"], response

    async def topic_id(self, name: str) -> UUID:
        topic = self.served.topics.get(name)
        assert topic is not None
        return topic.topic_id


@pytest.mark.parametrize("version", versions("JoinGroup"))
@asynchronous
async def test_join_group(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        member, response = await broker.member("g", version)
        assert response["generation_id"] == 1
        assert response["leader"] == member
        assert response["protocol_name"] == "range"
        assert response["protocol_type"] == ("consumer" if version >= 7 else None)
        assert [each["member_id"] for each in response["members"]] == [member]
        refused = await broker.ask("JoinGroup", version, {"group_id": "g", "session_timeout_ms": 10_000, "member_id": "nobody"})
        assert refused["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
        assert refused["protocol_name"] == (None if version >= 7 else "")


@pytest.mark.parametrize("version", versions("JoinGroup", 5))
@asynchronous
async def test_join_group_of_a_static_member(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        old, joined = await broker.member("g", version, instance="i")
        await served.sync(old, 1, {old: b"mine"})
        new, response = await broker.member("g", version, instance="i")
        assert old != new
        assert response["skip_assignment"] == (version >= 9)
        assert response["leader"] == (new if version >= 9 else old)
        assert [each["group_instance_id"] for each in joined["members"]] == ["i"]


@pytest.mark.parametrize("version", versions("SyncGroup"))
@asynchronous
async def test_sync_group(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        member, joined = await broker.member("g", 9)
        asked: Message = {"group_id": "g", "generation_id": joined["generation_id"], "member_id": member}
        asked["assignments"] = [{"member_id": member, "assignment": b"mine"}]
        if version >= 5:
            assert (await broker.ask("SyncGroup", version, asked))["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
            asked |= {"protocol_type": "consumer", "protocol_name": "range"}
        response = await broker.ask("SyncGroup", version, asked)
        assert (response["error_code"], response["assignment"]) == (Error.NONE, b"mine")
        assert response["protocol_name"] == ("range" if version >= 5 else None)
        refused = await broker.ask("SyncGroup", version, asked | {"member_id": "nobody"})
        assert (refused["error_code"], refused["assignment"]) == (Error.UNKNOWN_MEMBER_ID, b"")


@pytest.mark.parametrize("version", versions("Heartbeat"))
@asynchronous
async def test_heartbeat(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        member = await served.stable()
        asked: Message = {"group_id": "g", "generation_id": 1, "member_id": member}
        assert (await broker.ask("Heartbeat", version, asked))["error_code"] == Error.NONE
        assert (await broker.ask("Heartbeat", version, asked | {"generation_id": 2}))["error_code"] == Error.ILLEGAL_GENERATION


@pytest.mark.parametrize("version", versions("LeaveGroup"))
@asynchronous
async def test_leave_group(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        member = await served.stable()
        if version >= 3:
            asked: Message = {"group_id": "g", "members": [{"member_id": member}, {"member_id": "nobody"}]}
            response = await broker.ask("LeaveGroup", version, asked)
            assert response["error_code"] == Error.NONE
            assert [each["error_code"] for each in response["members"]] == [Error.NONE, Error.UNKNOWN_MEMBER_ID]
        else:
            assert (await broker.ask("LeaveGroup", version, {"group_id": "g", "member_id": member}))["error_code"] == Error.NONE
            gone = await broker.ask("LeaveGroup", version, {"group_id": "g", "member_id": member})
            assert gone["error_code"] == Error.UNKNOWN_MEMBER_ID
        assert (await broker.ask("LeaveGroup", version, {"group_id": ""}))["error_code"] == Error.INVALID_GROUP_ID


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("version", versions("OffsetCommit"))
@asynchronous
async def test_offset_commit(version: int, begun: bool) -> None:
    async with Served() as served:
        broker = Broker(served, begun=begun)
        await served.loaded()
        names: list[tuple[Message, str]] = []
        for name in ("t", "nothing", "u"):
            topic = served.topics.get(name)
            topic_id = uuid4() if topic is None else topic.topic_id
            names.append(({"topic_id": topic_id} if version >= 10 else {"name": name}, name))
        asked: Message = {
            "group_id": "g",
            "generation_id_or_member_epoch": -1,
            "topics": [
                key
                | {
                    "partitions": [
                        {"partition_index": index, "committed_offset": 10 + index, "committed_metadata": metadata}
                        for index, metadata in ((0, "m"), (3, None), (4, ""), (-1, ""))
                    ]
                }
                for key, _ in names
            ],
        }
        response = await broker.ask("OffsetCommit", version, asked)
        errors: dict[Any, dict[int, int]] = {
            topic["topic_id"] if version >= 10 else topic["name"]: {
                each["partition_index"]: each["error_code"] for each in topic["partitions"]
            }
            for topic in response["topics"]
        }
        assert len(response["topics"]) == 3
        keys = {name: next(iter(key.values())) for key, name in names}
        unknown = Error.UNKNOWN_TOPIC_ID if version >= 10 else Error.UNKNOWN_TOPIC_OR_PARTITION
        missing = Error.UNKNOWN_TOPIC_OR_PARTITION
        assert errors[keys["t"]] == {0: Error.NONE, 3: Error.NONE, 4: missing, -1: missing}
        assert errors[keys["u"]] == {0: Error.NONE, 3: missing, 4: missing, -1: missing}
        assert errors[keys["nothing"]] == dict.fromkeys((0, 3, 4, -1), unknown)
        assert await served.fetch() == {("t", 0): 10, ("t", 3): 13, ("u", 0): 10}
        gone = await broker.ask("OffsetCommit", version, asked | {"generation_id_or_member_epoch": 3, "group_id": "new"})
        expected = Error.GROUP_ID_NOT_FOUND if version >= 9 else Error.ILLEGAL_GENERATION
        by_key = {topic["topic_id"] if version >= 10 else topic["name"]: topic["partitions"] for topic in gone["topics"]}
        assert {each["error_code"] for each in by_key[keys["t"]]} == {expected, missing}


@pytest.mark.parametrize("version", versions("OffsetCommit"))
@asynchronous
async def test_a_commit_with_one_answer_for_all_partitions_is_begun(version: int) -> None:
    async with Served() as served:
        ctx = Broker(served).ctx
        await served.loaded()
        key = API_BY_NAME["OffsetCommit"].key
        context = RequestContext(key, version, "client", "127.0.0.1:5000", "main")
        topics: list[Message] = []
        for name in ("t", "u"):
            topic = served.topics.get(name)
            assert topic is not None
            ends = (0, topic.partition_count - 1)
            partitions = [{"partition_index": at, "committed_offset": 10 + at, "committed_metadata": "m"} for at in ends]
            topics.append(({"topic_id": topic.topic_id} if version >= 10 else {"name": name}) | {"partitions": partitions})
        stale = Error.GROUP_ID_NOT_FOUND if version >= 9 else Error.ILLEGAL_GENERATION
        for generation, error in ((3, stale), (-1, Error.NONE)):
            given: list[bytes] = []
            asked: Message = {"group_id": "g", "generation_id_or_member_epoch": generation, "topics": topics}
            assert beginner(key)(ctx, context, memoryview(encode_request(key, version, asked)), given.append)
            await turns()
            response = decode_response(key, version, given.pop())
            assert [[each["error_code"] for each in topic["partitions"]] for topic in response["topics"]] == [[error] * 2] * 2
        fetched = await served.fetch()
        assert {at: fetched[at] for at in (("t", 0), ("u", 0))} == {("t", 0): 10, ("u", 0): 10}
        for odd in (4096, 4097):  # of metadata: as long as it may be, and longer
            partition = {"partition_index": 0, "committed_offset": 20, "committed_metadata": "x" * odd}
            asked = {"group_id": "g", "generation_id_or_member_epoch": -1, "topics": [topics[0] | {"partitions": [partition]}]}
            assert beginner(key)(ctx, context, memoryview(encode_request(key, version, asked)), given.append) == (odd == 4096)


@asynchronous
async def test_a_commit_that_is_begun_waits_for_the_log() -> None:
    async with Served() as served:
        broker = Broker(served, begun=True)
        key = API_BY_NAME["OffsetCommit"].key
        partition = {"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}
        asked: Message = {"group_id": "g", "generation_id_or_member_epoch": -1, "topics": [{"name": "t", "partitions": [partition]}]}
        body = memoryview(encode_request(key, 9, asked))
        given: list[bytes] = []
        context = RequestContext(key, 9, "client", "127.0.0.1:5000", "main")
        assert not beginner(key)(broker.ctx, context, body, given.append), "there is no __consumer_offsets yet"
        await served.loaded()
        served.log.gate = asyncio.Event()
        assert beginner(key)(broker.ctx, context, body, given.append)
        await turns()
        assert given == []
        assert await served.fetch() == {}
        served.log.gate.set()
        await turns()
        assert [each["error_code"] for each in decode_response(key, 9, given.pop())["topics"][0]["partitions"]] == [Error.NONE]
        assert await served.fetch() == {("t", 0): 1}
        served.log.fail = Error.NOT_ENOUGH_REPLICAS
        failed = await broker.ask("OffsetCommit", 9, asked)
        assert [each["error_code"] for each in failed["topics"][0]["partitions"]] == [Error.COORDINATOR_NOT_AVAILABLE]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("version", versions("OffsetCommit"))
@asynchronous
async def test_offset_commit_of_nothing_that_exists(version: int, begun: bool) -> None:
    async with Served() as served:
        broker = Broker(served, begun=begun)
        key: Message = {"topic_id": uuid4()} if version >= 10 else {"name": "nothing"}
        topic = key | {"partitions": [{"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}]}
        response = await broker.ask("OffsetCommit", version, {"group_id": "g", "topics": [topic]})
        assert response["topics"][0]["partitions"][0]["error_code"] in {Error.UNKNOWN_TOPIC_ID, Error.UNKNOWN_TOPIC_OR_PARTITION}
        assert served.topics.made == []


@pytest.mark.parametrize("version", versions("OffsetFetch"))
@asynchronous
async def test_offset_fetch(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        await served.commit(5, partition=1, metadata="m")
        key: Message = {"topic_id": await broker.topic_id("t")} if version >= 10 else {"name": "t"}
        topics = [key | {"partition_indexes": [0, 1]}]
        if version < 8:
            response = await broker.ask("OffsetFetch", version, {"group_id": "g", "topics": topics})
        else:
            response = await broker.ask(
                "OffsetFetch", version, {"groups": [{"group_id": "g", "topics": topics}, {"group_id": "h", "topics": topics}]}
            )
            assert [group["group_id"] for group in response["groups"]] == ["g", "h"]
            other = response["groups"][1]
            assert (other["error_code"], [each["committed_offset"] for each in other["topics"][0]["partitions"]]) == (Error.NONE, [-1, -1])
            response = response["groups"][0]
        assert response["error_code"] == Error.NONE
        (topic,) = response["topics"]
        assert [topic[name] for name in key] == list(key.values())
        assert [
            (each["partition_index"], each["committed_offset"], each["metadata"], each["error_code"]) for each in topic["partitions"]
        ] == [
            (0, -1, "", Error.NONE),
            (1, 5, "m", Error.NONE),
        ]


@pytest.mark.parametrize("version", versions("OffsetFetch", 2))
@asynchronous
async def test_offset_fetch_of_everything(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        await served.commit(5)
        await served.commit(6, topic="u")
        await served.commit(7, topic="gone")  # its topic was deleted, and the news is under way
        everything: Message = {"group_id": "g", "topics": None}
        stable = {"require_stable": True} if version >= 7 else {}
        if version < 8:
            response = await broker.ask("OffsetFetch", version, everything | stable)
        else:
            response = (await broker.ask("OffsetFetch", version, {"groups": [everything]} | stable))["groups"][0]
        if version >= 10:
            found = {topic["topic_id"]: topic["partitions"][0]["committed_offset"] for topic in response["topics"]}
            assert found == {await broker.topic_id("t"): 5, await broker.topic_id("u"): 6}
        else:
            assert {topic["name"]: topic["partitions"][0]["committed_offset"] for topic in response["topics"]} == {
                "t": 5,
                "u": 6,
                "gone": 7,
            }


@asynchronous
async def test_offset_fetch_of_an_unknown_topic_id() -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        nothing = uuid4()
        topics = [{"topic_id": topic_id, "partition_indexes": [0]} for topic_id in (nothing, await broker.topic_id("t"))]
        response = await broker.ask("OffsetFetch", 10, {"groups": [{"group_id": "g", "topics": topics}]})
        errors = {topic["topic_id"]: topic["partitions"][0]["error_code"] for topic in response["groups"][0]["topics"]}
        assert errors == {nothing: Error.UNKNOWN_TOPIC_ID, await broker.topic_id("t"): Error.NONE}


@pytest.mark.parametrize("version", versions("OffsetFetch"))
@asynchronous
async def test_offset_fetch_while_loading(version: int) -> None:
    served = Served(topics=FakeTopics(t=4, __consumer_offsets=3))
    served.log.read_gate = asyncio.Event()
    async with served:
        broker = Broker(served)
        key: Message = {"topic_id": await broker.topic_id("t")} if version >= 10 else {"name": "t"}
        group: Message = {"group_id": "g", "topics": [key | {"partition_indexes": [0]}]}
        response = await broker.ask("OffsetFetch", version, {"groups": [group]} if version >= 8 else group)
        if version >= 8:
            error = response["groups"][0]["error_code"]
        elif version >= 2:
            error = response["error_code"]
        else:
            error = response["topics"][0]["partitions"][0]["error_code"]
        assert error == Error.COORDINATOR_LOAD_IN_PROGRESS
        served.log.read_gate.set()


@asynchronous
async def test_offset_delete() -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        await served.commit(5)
        asked = {"topics": [{"name": name, "partitions": [{"partition_index": 0}, {"partition_index": 9}]} for name in ("t", "nothing")]}
        response = await broker.ask("OffsetDelete", 0, asked | {"group_id": "g"})
        assert response["error_code"] == Error.NONE
        missing = Error.UNKNOWN_TOPIC_OR_PARTITION
        assert {
            topic["name"]: {each["partition_index"]: each["error_code"] for each in topic["partitions"]} for topic in response["topics"]
        } == {
            "t": {0: Error.NONE, 9: missing},
            "nothing": {0: missing, 9: missing},
        }
        assert await served.fetch() == {}
        response = await broker.ask("OffsetDelete", 0, asked | {"group_id": "nobody"})
        assert (response["error_code"], response["topics"]) == (Error.GROUP_ID_NOT_FOUND, [])


@pytest.mark.parametrize("version", versions("DescribeGroups"))
@asynchronous
async def test_describe_groups(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        member, _ = await broker.member("g", 9, instance="i")
        await served.sync(member, 1, {member: b"mine"})
        asked: Message = {"groups": ["g", "nobody"]}
        if version >= 3:
            asked["include_authorized_operations"] = True
        found, missing = (await broker.ask("DescribeGroups", version, asked))["groups"]
        assert (found["group_state"], found["protocol_data"]) == ("Stable", "range")
        assert found["members"][0]["group_instance_id"] == ("i" if version >= 4 else None)
        assert found["members"][0]["client_host"] == "/127.0.0.1"
        assert found["members"][0]["member_assignment"] == b"mine"
        assert missing["group_state"] == "Dead"
        assert missing["error_code"] == (Error.GROUP_ID_NOT_FOUND if version >= 6 else Error.NONE)
        if version >= 3:
            assert found["authorized_operations"] == 0b110101001000


@pytest.mark.parametrize("version", versions("ListGroups"))
@asynchronous
async def test_list_groups(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        await served.stable()
        await served.commit(1, "simple")
        groups = (await broker.ask("ListGroups", version, {}))["groups"]
        assert {group["group_id"]: group["protocol_type"] for group in groups} == {"g": "consumer", "simple": ""}
        if version >= 4:
            groups = (await broker.ask("ListGroups", version, {"states_filter": ["stable"]}))["groups"]
            assert [(group["group_id"], group["group_state"]) for group in groups] == [("g", "Stable")]
        if version >= 5:
            assert [group["group_type"] for group in groups] == ["classic"]
            assert (await broker.ask("ListGroups", version, {"types_filter": ["share"]}))["groups"] == []


@pytest.mark.parametrize("version", versions("DeleteGroups"))
@asynchronous
async def test_delete_groups(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        await served.loaded()
        await served.stable()
        await served.commit(1, "simple")
        results = (await broker.ask("DeleteGroups", version, {"groups_names": ["g", "simple", "nobody"]}))["results"]
        assert {each["group_id"]: each["error_code"] for each in results} == {
            "g": Error.NON_EMPTY_GROUP,
            "simple": Error.NONE,
            "nobody": Error.GROUP_ID_NOT_FOUND,
        }


@pytest.mark.parametrize("version", versions("FindCoordinator"))
@pytest.mark.parametrize(("listener", "host", "port"), [("main", "broker.example", 9092), ("other", "10.0.0.1", 9093)])
@asynchronous
async def test_find_coordinator(version: int, listener: str, host: str, port: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        asked: Message = {"coordinator_keys": ["g", "h"]} if version >= 4 else {"key": "g"}
        response = await broker.ask("FindCoordinator", version, asked, listener)
        found = response["coordinators"] if version >= 4 else [response]
        assert [(each["error_code"], each["node_id"], each["host"], each["port"]) for each in found] == [(Error.NONE, 7, host, port)] * len(
            found
        )
        if version >= 4:
            assert [each["key"] for each in found] == ["g", "h"]
        assert len(served.topics.made) == 1


@pytest.mark.parametrize("version", versions("FindCoordinator"))
@asynchronous
async def test_find_coordinator_when_the_topic_can_not_be_made(version: int) -> None:
    async with Served() as served:
        served.topics.fail = True
        asked: Message = {"coordinator_keys": ["g"]} if version >= 4 else {"key": "g"}
        response = await Broker(served).ask("FindCoordinator", version, asked)
        found = response["coordinators"][0] if version >= 4 else response
        assert (found["error_code"], found["node_id"]) == (Error.COORDINATOR_NOT_AVAILABLE, -1)


@pytest.mark.parametrize("version", versions("FindCoordinator", 1))
@pytest.mark.parametrize(
    ("key_type", "error"),
    [(2, Error.INVALID_REQUEST), (9, Error.INVALID_REQUEST)],
)
@asynchronous
async def test_find_coordinator_of_what_is_not_here(version: int, key_type: int, error: Error) -> None:
    async with Served() as served:
        asked: Message = ({"coordinator_keys": ["x"]} if version >= 4 else {"key": "x"}) | {"key_type": key_type}
        response = await Broker(served).ask("FindCoordinator", version, asked)
        found = response["coordinators"][0] if version >= 4 else response
        assert (found["error_code"], found["node_id"], found["host"], found["port"]) == (error, -1, "", -1)
        assert found["error_message"]
        assert not error.retriable
        assert served.topics.made == []


@pytest.mark.parametrize("version", versions("InitProducerId"))
@asynchronous
async def test_init_producer_id(version: int) -> None:
    async with Served() as served:
        broker = Broker(served)
        asked: Message = {"transactional_id": None, "transaction_timeout_ms": 60_000}
        ids = [await broker.ask("InitProducerId", version, asked) for _ in range(3)]
        assert [(each["error_code"], each["producer_id"], each["producer_epoch"]) for each in ids] == [
            (Error.NONE, number, 0) for number in range(3)
        ]
        if version >= 3:  # a producer that lost its place gets a new id
            again = await broker.ask("InitProducerId", version, asked | {"producer_id": 1, "producer_epoch": 4})
            assert (again["error_code"], again["producer_id"], again["producer_epoch"]) == (Error.NONE, 3, 0)
            for half in ({"producer_id": 1}, {"producer_epoch": 1}):
                refused = await broker.ask("InitProducerId", version, asked | half)
                assert (refused["error_code"], refused["producer_id"]) == (Error.INVALID_REQUEST, -1)
        refused = await broker.ask("InitProducerId", version, asked | {"transactional_id": ""})
        assert (refused["error_code"], refused["producer_id"], refused["producer_epoch"]) == (Error.INVALID_REQUEST, -1, -1)


@asynchronous
async def test_no_producer_ids() -> None:
    async with Served() as served:

        async def fail() -> range:
            raise StoreError("disk full")

        served.service.producer_ids._reserve_block = fail
        asked: Message = {"transactional_id": None, "transaction_timeout_ms": 60_000}
        response = await Broker(served).ask("InitProducerId", 5, asked)
        assert (response["error_code"], response["producer_id"]) == (Error.COORDINATOR_LOAD_IN_PROGRESS, -1)


@pytest.mark.parametrize(
    ("peer", "host"),
    [("127.0.0.1:51234", "/127.0.0.1"), ("[::1]:9092", "/::1"), ("unix:pid 4711", "/unix"), ("unix", "/unix")],
)
def test_the_clients_host(peer: str, host: str) -> None:
    assert host_of(peer) == host
