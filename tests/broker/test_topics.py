"""Topics over the wire: what Kafka 4.3's controller answers to each request, durability, and starts after a crash."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fastlog._core import DiskSync
from fastlog.broker.epochs import EpochFiles
from fastlog.metadata.sqlite import SqliteStore
from fastlog.metadata.store import StoreError
from fastlog.metadata.topics import decode_topic
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME
from fastlog.storage.epochs import load_epochs
from tests.broker.fake_plane import FakeDisk
from tests.broker.running import Running, new_topic, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NO_ID = UUID(int=0)
MANY = 8
"""From so many partitions on a start flushes for all of them at once, here."""


def _versions(name: str) -> range:
    first, last = API_BY_NAME[name].versions
    return range(first, last + 1)


@pytest.mark.parametrize("version", _versions("CreateTopics"))
def test_create_in_every_version(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            wanted = [new_topic("a", 3, {"retention.ms": "5000"}), new_topic("b", 1 if version < 4 else -1, factor=1)]
            response = await broker.call("CreateTopics", version, topics=wanted, timeout_ms=1000)
            first, second = response["topics"]
            assert (first["name"], first["error_code"], second["name"], second["error_code"]) == ("a", 0, "b", 0)
            topic = broker.topics.get("a")
            assert topic is not None
            assert topic.partition_count == 3
            assert topic.configs == {"retention.ms": "5000"}
            if version >= 5:
                assert (first["num_partitions"], first["replication_factor"], second["num_partitions"]) == (3, 1, 1)
                shown = {config["name"]: config for config in first["configs"]}
                assert shown["retention.ms"]["value"] == "5000"
                assert shown["retention.ms"]["config_source"] == 1
                assert shown["segment.bytes"] == {
                    "name": "segment.bytes",
                    "value": "1073741824",
                    "read_only": False,
                    "config_source": 5,
                    "is_sensitive": False,
                }
            if version >= 7:
                assert first["topic_id"] == topic.topic_id
            assert broker.plane.published[topic.topic_id].partitions == 3

    asyncio.run(run())


def _grown(name: str, count: int) -> dict[str, Any]:
    return {"name": name, "count": count, "assignments": None}


def _assigned(*replicas: tuple[int, list[int]], count: int = -1, factor: int = -1) -> dict[str, Any]:
    assignments = [{"partition_index": index, "broker_ids": ids} for index, ids in replicas]
    return {"name": "m", "num_partitions": count, "replication_factor": factor, "assignments": assignments}


REFUSED = [
    (new_topic(""), Error.INVALID_TOPIC_EXCEPTION, "Topic name is invalid: the empty string is not allowed"),
    (new_topic("."), Error.INVALID_TOPIC_EXCEPTION, "Topic name is invalid: '.' is not allowed"),
    (new_topic(".."), Error.INVALID_TOPIC_EXCEPTION, "Topic name is invalid: '..' is not allowed"),
    (
        new_topic("a b"),
        Error.INVALID_TOPIC_EXCEPTION,
        "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
    ),
    (
        new_topic("x" * 250),
        Error.INVALID_TOPIC_EXCEPTION,
        f"Topic name is invalid: the length of '{'x' * 250}' is longer than the max allowed length 249",
    ),
    (
        new_topic("x" * 32_767),
        Error.INVALID_TOPIC_EXCEPTION,
        f"Topic name is invalid: the length of '{'x' * 1962}...",
    ),
    (new_topic("taken"), Error.TOPIC_ALREADY_EXISTS, "Topic 'taken' already exists."),
    (new_topic("under.score"), Error.INVALID_TOPIC_EXCEPTION, "Topic 'under.score' collides with existing topic: under_score"),
    (new_topic("__cluster_metadata"), Error.INVALID_REQUEST, "Creation of internal topic __cluster_metadata is prohibited."),
    (new_topic("p", 0), Error.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."),
    (new_topic("p", -2), Error.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."),
    (new_topic("p", 2_000_000), Error.POLICY_VIOLATION, "Excessively large number of partitions per request."),
    (
        new_topic("p", factor=0),
        Error.INVALID_REPLICATION_FACTOR,
        "Replication factor must be larger than 0, or -1 to use the default value.",
    ),
    (
        new_topic("p", factor=3),
        Error.INVALID_REPLICATION_FACTOR,
        (
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 "
            "broker(s) are registered or some brokers have all their log directories cordoned."
        ),
    ),
    (
        _assigned((0, [1]), count=2),
        Error.INVALID_REQUEST,
        "A manual partition assignment was specified, but numPartitions was not set to -1.",
    ),
    (
        _assigned((0, [1]), factor=1),
        Error.INVALID_REQUEST,
        "A manual partition assignment was specified, but replication factor was not set to -1.",
    ),
    (_assigned((1, [1])), Error.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence"),
    (
        _assigned((0, [2])),
        Error.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes broker 2, but no such broker is registered.",
    ),
    (_assigned((0, [])), Error.INVALID_REPLICA_ASSIGNMENT, "The manual partition assignment includes an empty replica list."),
    (
        _assigned((0, [1, 1])),
        Error.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes the broker 1 more than once.",
    ),
    (
        _assigned((0, [1]), (0, [1])),
        Error.INVALID_REPLICA_ASSIGNMENT,
        "Found multiple manual partition assignments for partition 0",
    ),
    (new_topic("p", configs={"nope": "1"}), Error.INVALID_CONFIG, "Unknown topic config name: nope"),
    (new_topic("p", configs={"retention.ms": None}), Error.INVALID_CONFIG, "Null value not supported for topic configs: retention.ms"),
]


def test_what_cannot_be_created_is_refused_as_kafka_refuses_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            assert (await broker.create("taken"))["error_code"] == 0
            assert (await broker.create("under_score"))["error_code"] == 0
            for wanted, error, why in REFUSED:
                for validate_only in (True, False):
                    response = await broker.call("CreateTopics", topics=[wanted], timeout_ms=1000, validate_only=validate_only)
                    (topic,) = response["topics"]
                    assert (Error(topic["error_code"]), topic["error_message"]) == (error, why)
                    assert topic["topic_id"] == NO_ID
            twice = await broker.call("CreateTopics", topics=[new_topic("d"), new_topic("d"), new_topic("e")], timeout_ms=1000)
            answers = {(t["name"], t["error_code"], t["error_message"]) for t in twice["topics"]}
            assert answers == {("e", 0, None), ("d", Error.INVALID_REQUEST, "Duplicate topic name.")}
            assert [topic.name for topic in broker.topics.all()] == ["e", "taken", "under_score"]

    asyncio.run(run())


def test_validate_only_creates_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            response = await broker.call("CreateTopics", topics=[new_topic("v", 2)], timeout_ms=1000, validate_only=True)
            (topic,) = response["topics"]
            assert (topic["error_code"], topic["num_partitions"]) == (0, 2)
            assert topic["topic_id"] != NO_ID  # Kafka gives it one, too
            assert broker.topics.get("v") is None
            assert not list(tmp_path.glob("v-*"))  # noqa: ASYNC240

    asyncio.run(run())


def test_assigned_by_hand(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            response = await broker.call("CreateTopics", topics=[_assigned((1, [1]), (0, [1]))], timeout_ms=1000)
            assert response["topics"][0]["error_code"] == 0
            assert response["topics"][0]["num_partitions"] == 2

    asyncio.run(run())


def test_creations_at_the_same_time_do_not_collide(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            names = ["c.c", "c_c", "c.c", "other"] * 5
            answers = await asyncio.gather(*(broker.create(name) for name in names))
            assert sorted(a["name"] for a in answers if not a["error_code"])[1:] == ["other"]
            assert len([a for a in answers if not a["error_code"]]) == 2
            codes = {a["error_code"] for a in answers}
            assert codes <= {Error.NONE, Error.TOPIC_ALREADY_EXISTS, Error.INVALID_TOPIC_EXCEPTION}

    asyncio.run(run())


@pytest.mark.parametrize("version", _versions("DeleteTopics"))
def test_delete_in_every_version(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("gone", 2)
            topic = broker.topics.get("gone")
            assert topic is not None
            wanted = {"topic_names": ["gone", "never"]} if version < 6 else {"topics": [{"name": "gone"}, {"name": "never"}]}
            response = await broker.call("DeleteTopics", version, timeout_ms=1000, **wanted)
            codes = {answer["name"]: answer["error_code"] for answer in response["responses"]}
            assert codes == {"gone": 0, "never": Error.UNKNOWN_TOPIC_OR_PARTITION}
            assert broker.topics.get("gone") is None
            assert topic.topic_id not in broker.plane.published
            assert not list(tmp_path.glob("gone-*"))  # noqa: ASYNC240
            assert (await broker.create("gone"))["error_code"] == 0, "the name is free again"

    asyncio.run(run())


def test_delete_by_id_and_what_it_refuses(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            for name in ("a", "b", "c", "__consumer_offsets"):
                await broker.create(name)
            ids = {topic.name: topic.topic_id for topic in broker.topics.all()}

            async def delete(*topics: Mapping[str, Any]) -> list[tuple[str | None, Error, str | None]]:
                response = await broker.call("DeleteTopics", topics=list(topics), timeout_ms=1000)
                return [(a["name"], Error(a["error_code"]), a["error_message"]) for a in response["responses"]]

            unknown = UUID(int=5)
            assert await delete({"topic_id": unknown}) == [(None, Error.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")]
            assert await delete({"name": "a", "topic_id": unknown}) == [
                ("a", Error.INVALID_REQUEST, "You may not specify both topic name and topic id.")
            ]
            assert await delete({}) == [(None, Error.INVALID_REQUEST, "Neither topic name nor id were specified.")]
            assert await delete({"name": "a"}, {"name": "a"}) == [("a", Error.INVALID_REQUEST, "Duplicate topic name.")]
            both = await delete({"name": "a"}, {"topic_id": ids["a"]})
            assert {error for _, error, _ in both} == {Error.INVALID_REQUEST}
            internal = "Deletion of internal topic __consumer_offsets is prohibited."
            assert await delete({"name": "__consumer_offsets"}) == [("__consumer_offsets", Error.INVALID_REQUEST, internal)]
            assert await delete({"topic_id": ids["a"]}, {"name": "b"}) == [("a", Error.NONE, None), ("b", Error.NONE, None)]
            assert [topic.name for topic in broker.topics.all()] == ["__consumer_offsets", "c"]
        async with running(tmp_path, disk=broker.plane.disk, delete_topic_enable="false") as broker:
            response = await broker.call("DeleteTopics", topics=[{"name": "c"}], timeout_ms=1000)
            assert response["responses"][0]["error_code"] == Error.TOPIC_DELETION_DISABLED

    asyncio.run(run())


@pytest.mark.parametrize("version", _versions("CreatePartitions"))
def test_more_partitions(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t", 3)

            async def grow(count: int, assigned_to: list[list[int]] | None = None, name: str = "t", **more: Any) -> Any:
                assigned = None if assigned_to is None else [{"broker_ids": ids} for ids in assigned_to]
                topics = [{"name": name, "count": count, "assignments": assigned}]
                (result,) = (await broker.call("CreatePartitions", version, topics=topics, timeout_ms=1000, **more))["results"]
                return result["error_code"], result["error_message"]

            assert await grow(3) == (Error.INVALID_PARTITIONS, "Topic already has 3 partition(s).")
            assert await grow(-1) == (
                Error.INVALID_PARTITIONS,
                "The topic t currently has 3 partition(s); -1 would not be an increase.",
            )
            assert await grow(4, name="none") == (Error.UNKNOWN_TOPIC_OR_PARTITION, None)
            assert await grow(5, [[1]]) == (
                Error.INVALID_REPLICA_ASSIGNMENT,
                "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
            )
            assert (await grow(4, [[2]]))[0] == Error.INVALID_REPLICA_ASSIGNMENT
            assert await grow(9, validate_only=True) == (0, None)
            topic = broker.topics.get("t")
            assert topic is not None
            assert topic.partition_count == 3
            assert await grow(5, [[1], [1]]) == (0, None)
            assert topic.partition_count == 5
            assert broker.plane.published[topic.topic_id].partitions == 5
            twice = [_grown("t", 8), _grown("t", 9)]
            (result,) = (await broker.call("CreatePartitions", version, topics=twice, timeout_ms=1000))["results"]
            assert (result["error_code"], result["error_message"]) == (Error.INVALID_REQUEST, "Duplicate topic name.")

    asyncio.run(run())


def test_internal_topics_keep_their_partitions(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("__consumer_offsets", 5)
            response = await broker.call("CreatePartitions", topics=[_grown("__consumer_offsets", 9)], timeout_ms=1000)
            assert response["results"][0]["error_code"] == Error.INVALID_REQUEST

    asyncio.run(run())


# ---- durability ----


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk) as broker:
            await broker.create("a", 2, {"cleanup.policy": "compact"})
            await broker.create("b")
            await broker.append("a", 1, 7)
            ids = {topic.name: topic.topic_id for topic in broker.topics.all()}
        async with running(tmp_path, disk=disk) as again:
            assert {topic.name: topic.topic_id for topic in again.topics.all()} == ids
            topic = again.topics.get("a")
            assert topic is not None
            assert (topic.partition_count, topic.configs) == (2, {"cleanup.policy": "compact"})
            assert again.plane.published[topic.topic_id].rules.keys_required
            assert all(partition.epoch == 0 for partition in topic.partitions), "stopped in order: no new epoch"
            at = again.plane.positions(topic.topic_id, 1)
            assert at is not None
            assert at.log_end == 7

    asyncio.run(run())


def test_clients_are_let_in_last_and_partitions_closed_before_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk) as broker:
            await broker.create("a")
        assert broker.plane.events[-3:] == [("drain", 10_000), ("close", "a-0"), ("stop", [])]
        async with running(tmp_path, disk=disk) as broker:
            pass
        assert broker.plane.events[:5] == [("start",), ("open", "a-0", False), ("publish", "a", 1), ("drop_relics",), ("accept",)]

    asyncio.run(run())


CRASHES = ["write 1", "open 1", "write 2", "publish"]


@pytest.mark.parametrize("at", CRASHES)
@pytest.mark.parametrize("what", ["create", "grow"])
def test_a_crash_while_partitions_are_made_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, what: str
) -> None:
    async def run() -> None:
        disk = FakeDisk()
        if what == "grow":
            async with running(tmp_path, disk=disk) as broker:
                await broker.create("t", 1)
                await broker.append("t", 0, 3)
        async with running(tmp_path, disk=disk, kill=True) as broker:
            _crash(broker, monkeypatch, at)
            before = 1 if what == "grow" else 0
            api, wanted = ("CreateTopics", new_topic("t", 4)) if what == "create" else ("CreatePartitions", _grown("t", 4))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(broker.call(api, topics=[wanted], timeout_ms=1), 0.5)
        monkeypatch.undo()
        async with running(tmp_path, disk=disk) as again:
            topic = again.topics.get("t")
            if at == "write 1":
                assert (topic.partition_count if topic else 0) == before
                return
            assert topic is not None
            assert topic.partition_count == 4
            assert sorted(p.name for p in tmp_path.glob("t-*")) == ["t-0", "t-1", "t-2", "t-3"]  # noqa: ASYNC240
            at_0 = again.plane.positions(topic.topic_id, 0)
            assert at_0 is not None
            assert at_0.log_end == (3 if what == "grow" else 0)

    asyncio.run(run())


def _crash(broker: Running, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """From that point on the broker does nothing more."""
    step, _, number = at.partition(" ")
    count = 0

    async def crash(*_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    if step == "publish":
        monkeypatch.setattr(broker.plane, "publish_topic", crash)
        return
    if step == "open":
        real_open = broker.plane.open_partition

        async def open_one(spec: Any) -> Any:
            nonlocal count
            count += 1
            return await (real_open(spec) if count <= int(number) else crash())

        monkeypatch.setattr(broker.plane, "open_partition", open_one)
        return
    store = broker.topics.store
    real_write = store.write

    async def write(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return await (real_write(*arguments) if count < int(number) else crash())

    monkeypatch.setattr(store, "write", write)


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk(fail_open={"t-2": "the disk is full"})
        async with running(tmp_path, disk=disk) as broker:
            answer = await broker.create("t", 4)
            assert answer["error_code"] == Error.KAFKA_STORAGE_ERROR
            assert answer["error_message"] == "partition t-2 can't be made: the disk is full"
            assert not list(tmp_path.glob("t-*"))  # noqa: ASYNC240
            disk.fail_open.clear()
            assert (await broker.create("t", 2))["error_code"] == 0
            disk.fail_open["t-3"] = "the disk is full"
            response = await broker.call("CreatePartitions", topics=[_grown("t", 5)], timeout_ms=1)
            assert response["results"][0]["error_code"] == Error.KAFKA_STORAGE_ERROR
            assert sorted(p.name for p in tmp_path.glob("t-*")) == ["t-0", "t-1"]  # noqa: ASYNC240
            disk.fail_open.clear()
            assert (await broker.call("CreatePartitions", topics=[_grown("t", 5)], timeout_ms=1))["results"][0]["error_code"] == 0

    asyncio.run(run())


def test_a_creation_fails_when_the_metadata_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:

            async def full(*_: Any) -> int:
                raise StoreError("the disk is full")

            monkeypatch.setattr(SqliteStore, "write", full)
            answer = await broker.create("t", 4)
            assert answer["error_code"] == Error.KAFKA_STORAGE_ERROR
            monkeypatch.undo()
            assert (await broker.create("t", 4))["error_code"] == 0

    asyncio.run(run())


def test_what_belongs_to_no_topic_is_named_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        (tmp_path / "stray-0").mkdir()
        (tmp_path / "old-1.0123456789abcdef0123456789abcdef-delete").mkdir()
        with caplog.at_level(logging.WARNING):
            async with running(tmp_path) as broker:
                assert f"{tmp_path / 'stray-0'} belongs to no topic" in caplog.text
                answer = await broker.create("stray")
                assert answer["error_code"] == Error.KAFKA_STORAGE_ERROR
                assert "move it away" in answer["error_message"]
        assert (tmp_path / "stray-0").is_dir()
        assert not list(tmp_path.glob("old-*")), "what a deletion left is removed"  # noqa: ASYNC240

    asyncio.run(run())


def test_a_partition_whose_directory_is_gone_is_offline_and_not_made_anew(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk) as broker:
            await broker.create("t", 2)
        (tmp_path / "t-1" / "leader-epoch-checkpoint").unlink()
        (tmp_path / "t-1").rmdir()
        async with running(tmp_path, disk=disk) as again:
            response = await again.call("Metadata", topics=[{"name": "t"}])
            first, second = response["topics"][0]["partitions"]
            assert (first["error_code"], first["leader_id"], first["offline_replicas"]) == (0, 1, [])
            assert (second["error_code"], second["leader_id"], second["offline_replicas"]) == (Error.LEADER_NOT_AVAILABLE, -1, [1])
            assert not (tmp_path / "t-1").exists()

    asyncio.run(run())


def test_a_data_directory_that_is_missing_takes_only_its_partitions(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        one, two = tmp_path / "one", tmp_path / "two"
        async with running(one, two, disk=disk) as broker:
            await broker.create("t", 4)
            assert {len(list(d.glob("t-*"))) for d in (one, two)} == {2}, "partitions are dealt evenly"
        async with running(one, disk=disk) as again:
            response = await again.call("Metadata", topics=[{"name": "t"}])
            errors = [p["error_code"] for p in response["topics"][0]["partitions"]]
            assert sorted(errors) == [0, 0, Error.LEADER_NOT_AVAILABLE, Error.LEADER_NOT_AVAILABLE]
        async with running(one, two, disk=disk) as again:
            response = await again.call("Metadata", topics=[{"name": "t"}])
            assert [p["error_code"] for p in response["topics"][0]["partitions"]] == [0] * 4

    asyncio.run(run())


def test_a_start_flushes_for_many_partitions_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []

    class Sync(DiskSync):
        def __init__(self, path: Path) -> None:
            self.path = path

        def sync(self) -> None:
            flushed.append(self.path)
            super().sync()

    async def run() -> None:
        disk = FakeDisk()
        many, few = tmp_path / "many", tmp_path / "few"
        async with running(many, disk=disk, kill=True) as broker:
            await broker.create("t", MANY)
            await broker.append("t", 7, 3)
        async with running(many, few, disk=disk, kill=True) as broker:
            await broker.create("u", 3)
            assert flushed[:1] == [many], "what recovery left; before clients are let in"
            assert broker.topics.epoch_files is not None
            await broker.topics.epoch_files.done()
            assert flushed == [many] * 3, "the epochs' files, then their names"
            assert all(log.spec.together for log in broker.plane.open.values() if log.spec.topic == "t")
            topic = broker.topics.get("t")
            assert topic is not None
            for index in range(MANY):
                assert broker.plane.open[topic.topic_id, index].epoch == 1
                assert load_epochs(str(many / f"t-{index}")).entries == ([(0, 0), (1, 3)] if index == 7 else [(1, 0)])
        async with running(many, few, disk=disk) as broker:
            assert {log.spec.topic: log.spec.together for log in broker.plane.open.values()} == {"t": True, "u": False}
        flushed.clear()
        async with running(many, few, disk=disk) as broker:
            assert not any(log.spec.together for log in broker.plane.open.values()), "stopped in order"
        assert not flushed

    monkeypatch.setattr("fastlog.broker.opening.TOGETHER_MIN", MANY)
    monkeypatch.setattr("fastlog.broker.opening.synced_whole", lambda _: True)  # whatever the tests' directory is on
    monkeypatch.setattr("fastlog.broker.opening.DiskSync", Sync)
    asyncio.run(run())


def test_a_flush_for_many_that_fails_takes_only_their_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [1]

    class Sync(DiskSync):
        def sync(self) -> None:
            left[0] -= 1
            if not left[0]:
                raise OSError(errno.EIO, "Input/output error")

    async def run() -> None:
        disk = FakeDisk()
        one, two = tmp_path / "one", tmp_path / "two"
        async with running(one, disk=disk, kill=True) as broker:
            await broker.create("t", MANY)
        async with running(one, two, disk=disk) as broker:
            await broker.create("u", 1)
            offline = {log.spec.topic: log.offline for log in broker.plane.open.values()}
            assert offline == {"t": Error.KAFKA_STORAGE_ERROR, "u": 0}
        assert not (one / ".kafka_cleanshutdown").exists()
        async with running(one, two, disk=disk) as broker:
            topic = broker.topics.get("t")
            assert topic is not None
            for index in range(MANY):
                log = broker.plane.open[topic.topic_id, index]
                assert (log.offline, log.epoch) == (0, topic.partitions[index].epoch)
            assert broker.topics.epoch_files is not None
            await broker.topics.epoch_files.done()
            for index in range(MANY):
                log = broker.plane.open[topic.topic_id, index]
                assert load_epochs(str(one / f"t-{index}")).latest == log.epoch

    monkeypatch.setattr("fastlog.broker.opening.TOGETHER_MIN", MANY)
    monkeypatch.setattr("fastlog.broker.opening.synced_whole", lambda _: True)  # whatever the tests' directory is on
    monkeypatch.setattr("fastlog.broker.opening.DiskSync", Sync)
    asyncio.run(run())


def test_epochs_whose_checkpoints_are_not_written_are_in_the_topics_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=True) as broker:
            await broker.create("t", 2)
            await broker.append("t", 1, 3)
        with monkeypatch.context() as patch:
            patch.setattr(EpochFiles, "start", lambda _: None)
            for _ in range(2):
                async with running(tmp_path, disk=disk, kill=True) as broker:
                    await broker.append("t", 1, 4)
            async with running(tmp_path, disk=disk) as broker:  # stopped in order before they were written
                topic = broker.topics.get("t")
                assert topic is not None
                assert topic.record().epochs == {0: ((3, 0),), 1: ((1, 3), (2, 7), (3, 11))}
                assert decode_topic("t", topic.record().encode()) == topic.record()
            assert load_epochs(str(tmp_path / "t-1")).entries == [(0, 0)]
        async with running(tmp_path, disk=disk) as broker:
            topic = broker.topics.get("t")
            assert topic is not None
            assert topic.partitions[1].epochs.entries == [(0, 0), (1, 3), (2, 7), (3, 11)]
            assert topic.partitions[0].epochs.entries == [(3, 0)]
            assert broker.topics.epoch_files is not None
            await broker.topics.epoch_files.done()
            assert not topic.record().epochs
        assert load_epochs(str(tmp_path / "t-1")).entries == [(0, 0), (1, 3), (2, 7), (3, 11)]

    asyncio.run(run())


def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    async def run() -> None:
        seen: list[int] = []
        for kill in (True, False, True):
            async with running(tmp_path, kill=kill) as broker:
                for _ in range(3):
                    response = await broker.call("InitProducerId", transactional_id=None, transaction_timeout_ms=0)
                    assert response["error_code"] == 0
                    seen.append(response["producer_id"])
        assert len(set(seen)) == 9

    asyncio.run(run())


def test_the_record_of_a_topic_is_readable(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t", 2, {"retention.ms": "1"})
            entry = await broker.topics.store.get("/topics/t")
            assert entry is not None
            record = json.loads(entry.value)
            assert record["configs"] == {"retention.ms": "1"}
            assert record["made"] == 2
            assert len(record["partitions"]) == 2

    asyncio.run(run())
