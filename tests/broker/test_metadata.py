"""Metadata, DescribeCluster, DescribeTopicPartitions, ApiVersions: what clients ask first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fastlog.broker.listing import LISTING_AGE_MAX_MS
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_KEY, API_BY_NAME, encode_request
from tests.broker.running import running

if TYPE_CHECKING:
    from pathlib import Path

NO_ID = UUID(int=0)
NOT_ASKED = -(2**31)


def _versions(name: str) -> range:
    first, last = API_BY_NAME[name].versions
    return range(first, last + 1)


@pytest.mark.parametrize("version", _versions("Metadata"))
def test_metadata_in_every_version(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("a", 2)
            await broker.create("b")
            topic = broker.topics.get("a")
            assert topic is not None
            named = await broker.call("Metadata", version, topics=[{"name": "a"}, {"name": "a"}])
            (broker_1,) = named["brokers"]
            assert (broker_1["node_id"], broker_1["host"], broker_1["port"]) == (1, "127.0.0.1", 9092)
            (shown,) = named["topics"]
            assert (shown["error_code"], shown["name"], shown["topic_authorized_operations"]) == (0, "a", NOT_ASKED)
            assert [(p["partition_index"], p["leader_id"], p["replica_nodes"], p["isr_nodes"]) for p in shown["partitions"]] == [
                (0, 1, [1], [1]),
                (1, 1, [1], [1]),
            ]
            if version >= 1:
                assert named["controller_id"] == 1
            if version >= 2:
                assert named["cluster_id"] == broker.broker.context.cluster.cluster_id  # type: ignore[union-attr]
            if version >= 7:
                assert shown["partitions"][0]["leader_epoch"] == 0
            if version >= 10:
                assert shown["topic_id"] == topic.topic_id
            every = await broker.call("Metadata", version, topics=[] if version == 0 else None)
            assert [t["name"] for t in every["topics"]] == ["a", "b"]
            if version >= 1:
                assert (await broker.call("Metadata", version, topics=[]))["topics"] == []
            if version >= 8:
                asked = await broker.call("Metadata", version, topics=[{"name": "a"}], include_topic_authorized_operations=True)
                assert asked["topics"][0]["topic_authorized_operations"] == 3576
            if 8 <= version <= 10:
                asked = await broker.call("Metadata", version, topics=[], include_cluster_authorized_operations=True)
                assert asked["cluster_authorized_operations"] == 8096

    asyncio.run(run())


def test_topics_by_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("a")
            topic = broker.topics.get("a")
            assert topic is not None
            found = await broker.call(
                "Metadata", topics=[{"topic_id": topic.topic_id, "name": None}, {"topic_id": UUID(int=9), "name": None}]
            )
            answers = {(t["error_code"], t["name"], t["topic_id"]) for t in found["topics"]}
            assert answers == {(0, "a", topic.topic_id), (Error.UNKNOWN_TOPIC_ID, None, UUID(int=9))}
            for version in (10, 11):
                refused = await broker.call("Metadata", version, topics=[{"topic_id": topic.topic_id, "name": "a"}])
                assert refused["topics"][0]["error_code"] == Error.INVALID_REQUEST
                assert refused["brokers"] == []
            refused = await broker.call("Metadata", 13, topics=[{"name": None}])
            assert refused["error_code"] == Error.INVALID_REQUEST

    asyncio.run(run())


def test_topics_that_are_asked_for_are_created(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, num_partitions="3") as broker:

            async def ask(*names: str, create: bool = True) -> dict[str, tuple[int, int]]:
                response = await broker.call("Metadata", topics=[{"name": name} for name in names], allow_auto_topic_creation=create)
                return {t["name"]: (t["error_code"], len(t["partitions"])) for t in response["topics"]}

            assert await ask("new", create=False) == {"new": (Error.UNKNOWN_TOPIC_OR_PARTITION, 0)}
            assert await ask("new", "new_er", "a b", "") == {
                "new": (0, 3),
                "new_er": (0, 3),
                "a b": (Error.INVALID_TOPIC_EXCEPTION, 0),
                "": (Error.INVALID_TOPIC_EXCEPTION, 0),
            }
            assert await ask("new.er") == {"new.er": (Error.INVALID_TOPIC_EXCEPTION, 0)}
            assert await ask("__transaction_state") == {"__transaction_state": (Error.UNKNOWN_TOPIC_OR_PARTITION, 0)}
            asked_at_once = await asyncio.gather(*(ask("racy") for _ in range(10)))
            assert asked_at_once == [{"racy": (0, 3)}] * 10
        async with running(tmp_path / "other", auto_create_topics_enable="false") as broker:
            assert await ask("new") == {"new": (Error.UNKNOWN_TOPIC_OR_PARTITION, 0)}

    asyncio.run(run())


def test_each_listener_is_told_its_own_address(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            for listener, host in (("tcp", "127.0.0.1"), ("unix", "socket.example")):
                response = await broker.call("Metadata", topics=[], listener=listener)
                assert [(b["host"], b["port"]) for b in response["brokers"]] == [(host, 9092)]
                cluster = await broker.call("DescribeCluster", listener=listener)
                assert [(b["broker_id"], b["host"], b["port"]) for b in cluster["brokers"]] == [(1, host, 9092)]

    asyncio.run(run())


def test_a_partition_that_fails_is_shown_without_a_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")
            context = broker.broker.context
            topic = broker.topics.get("t")
            assert context is not None
            assert topic is not None
            now = 1000
            monkeypatch.setattr(context.clock, "monotonic_ms", lambda: now)
            assert (await broker.call("Metadata", topics=[{"name": "t"}]))["topics"][0]["partitions"][0]["leader_id"] == 1
            broker.plane.open[topic.topic_id, 0].offline = Error.KAFKA_STORAGE_ERROR
            now += LISTING_AGE_MAX_MS + 1
            (partition,) = (await broker.call("Metadata", topics=[{"name": "t"}]))["topics"][0]["partitions"]
            assert partition["error_code"] == Error.LEADER_NOT_AVAILABLE
            assert (partition["leader_id"], partition["offline_replicas"]) == (-1, [1])

    asyncio.run(run())


@pytest.mark.parametrize("version", _versions("DescribeCluster"))
def test_describe_cluster(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path, broker_rack="r1") as broker:
            response = await broker.call("DescribeCluster", version, include_cluster_authorized_operations=True)
            assert response["error_code"] == 0
            assert response["controller_id"] == 1
            assert response["brokers"][0]["rack"] == "r1"
            assert response["cluster_authorized_operations"] == 8096
            if version >= 1:
                for kind, error in ((2, Error.MISMATCHED_ENDPOINT_TYPE), (9, Error.UNSUPPORTED_ENDPOINT_TYPE)):
                    response = await broker.call("DescribeCluster", version, endpoint_type=kind)
                    assert (response["error_code"], response["brokers"]) == (error, [])

    asyncio.run(run())


def test_describe_topic_partitions_in_pages(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, max_request_partition_size_limit="4") as broker:
            for name, partitions in (("a", 1), ("b", 5), ("c", 2)):
                await broker.create(name, partitions)

            async def ask(names: list[str], limit: int = 2000, cursor: tuple[str, int] | None = None) -> tuple[list[Any], Any]:
                at = None if cursor is None else {"topic_name": cursor[0], "partition_index": cursor[1]}
                response = await broker.call(
                    "DescribeTopicPartitions", topics=[{"name": n} for n in names], response_partition_limit=limit, cursor=at
                )
                following = response["next_cursor"]
                pages = [(t["name"], t["error_code"], [p["partition_index"] for p in t["partitions"]]) for t in response["topics"]]
                return pages, following and (following["topic_name"], following["partition_index"])

            seen: list[Any] = []
            cursor = None
            while True:
                pages, cursor = await ask([], 3, cursor)
                seen += [(name, index) for name, _, indexes in pages for index in indexes]
                if cursor is None:
                    break
            assert seen == [("a", 0), *(("b", i) for i in range(5)), ("c", 0), ("c", 1)]
            assert await ask([]) == ([("a", 0, [0]), ("b", 0, [0, 1, 2])], ("b", 3)), "the broker's limit counts too"
            assert await ask(["c", "a"], 1) == ([("a", 0, [0])], ("c", 0))
            assert await ask(["c"], 0) == ([("c", 0, [0])], ("c", 1))
            assert await ask(["zz", "a b"]) == (
                [("a b", Error.INVALID_TOPIC_EXCEPTION, []), ("zz", Error.UNKNOWN_TOPIC_OR_PARTITION, [])],
                None,
            )
            assert await ask(["c"], 3, ("zz", 0)) == ([("c", Error.INVALID_REQUEST, [])], None)
            assert await ask(["c"], 3, ("c", -1)) == ([("c", Error.INVALID_REQUEST, [])], None)
            assert await ask(["c"], 3, ("c", 99)) == ([("c", 0, [])], None)

    asyncio.run(run())


@pytest.mark.parametrize("version", _versions("ApiVersions"))
def test_api_versions(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            response = await broker.call("ApiVersions", version, client_software_name="a-client", client_software_version="1.2.3")
            assert response["error_code"] == 0
            shown = {a["api_key"]: (a["min_version"], a["max_version"]) for a in response["api_keys"]}
            assert shown == {key: api.advertised for key, api in API_BY_KEY.items() if api.advertised is not None}
            assert shown[0] == (0, 13), "older librdkafka does not compress otherwise (KAFKA-18659)"
            if version >= 3:
                levels = {f["name"]: f["max_version_level"] for f in response["finalized_features"]}
                elr = {"eligible.leader.replicas.version": 1}
                assert levels == elr | {"group.version": 1, "metadata.version": 30, "transaction.version": 2}
                assert response["finalized_features_epoch"] > 0
                lowest = {f["name"]: f["min_version"] for f in response["supported_features"]}
                assert lowest["metadata.version"] == 7
                assert ("transaction.version" in lowest) == (version >= 4), "older clients can't read a lowest level of 0"
                refused = await broker.call("ApiVersions", version, client_software_name="a b", client_software_version="1")
                assert (refused["error_code"], refused["api_keys"]) == (Error.INVALID_REQUEST, [])

    asyncio.run(run())


def test_every_served_api_has_a_handler_in_one_of_the_planes() -> None:
    from fastlog.broker.dispatch import HANDLERS, handler

    hot = {0, 1, 2}
    assert API_BY_KEY.keys() == HANDLERS.keys() | hot
    assert all(handler(key) is not None for key in HANDLERS)


def test_a_request_that_is_cut_anywhere_closes_its_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            body = encode_request(3, 13, {"topics": [{"name": "abc"}]})
            for length in range(len(body) - 1):  # the last byte is an empty list of tagged fields
                with pytest.raises(ConnectionError, match="undecodable Metadata request"):
                    await broker.plane.request(3, 13, body[:length], listener="tcp")

    asyncio.run(run())


def test_a_response_is_made_once_while_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is made anew when a topic came, grew or went, for another request or listener, and after a moment."""
    from fastlog.broker import dispatch

    handle = dispatch.handler(3)
    assert handle is not None
    made = 0

    async def counted(*given: Any) -> Any:
        nonlocal made
        made += 1
        return await handle(*given)

    monkeypatch.setitem(dispatch._loaded, 3, counted)

    async def run() -> None:
        async with running(tmp_path) as broker:
            assert broker.broker.context is not None

            async def partitions(name: str = "t", **more: Any) -> int:
                (topic,) = (await broker.call("Metadata", topics=[{"name": name}], allow_auto_topic_creation=False, **more))["topics"]
                return len(topic["partitions"]) if not topic["error_code"] else -topic["error_code"]

            await broker.create("t", 2)
            assert [await partitions() for _ in range(5)] == [2] * 5
            assert made == 1
            assert await partitions(listener="unix") == 2
            assert await partitions("u") == await partitions("u") == -Error.UNKNOWN_TOPIC_OR_PARTITION
            assert made == 3
            await broker.create("u", 4)
            assert (await partitions("u"), await partitions()) == (4, 2)
            assert made == 5
            await broker.call("CreatePartitions", topics=[{"name": "t", "count": 3, "assignments": None}], timeout_ms=1)
            assert await partitions() == 3
            await broker.call("DeleteTopics", topics=[{"name": "t"}], timeout_ms=1)
            assert await partitions() == -Error.UNKNOWN_TOPIC_OR_PARTITION
            now = broker.broker.context.clock.monotonic_ms()
            monkeypatch.setattr(type(broker.broker.context.clock), "monotonic_ms", lambda _: now + 2000)
            before = made
            assert await partitions("u") == 4
            assert made == before + 1

    asyncio.run(run())


def test_kept_responses_are_bounded(tmp_path: Path) -> None:
    from fastlog.broker.responses import BYTES_MAX, Responses

    async def run() -> None:
        async with running(tmp_path) as broker:
            assert broker.broker.context is not None
            kept = Responses(broker.topics, broker.broker.context.clock)
            keys = [(13, "tcp", b"%d" % i) for i in range(20)]
            for key in keys:
                assert kept.get(key) is None
                kept.put(key, bytes(BYTES_MAX // 8))
            assert [kept.get(key) is not None for key in keys] == [False] * 12 + [True] * 8
            kept.put(keys[0], bytes(BYTES_MAX))
            assert kept.get(keys[0]) is None

    asyncio.run(run())
