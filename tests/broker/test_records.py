"""Leader epochs and deleted records: what OffsetForLeaderEpoch and DeleteRecords answer, and what is left of it after a start."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fastlog.broker.server import METADATA
from fastlog.metadata.sqlite import open_store
from fastlog.metadata.topics import PREFIX, decode_topic
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME
from tests.broker.fake_plane import FakeDisk
from tests.broker.running import Running, running

if TYPE_CHECKING:
    from pathlib import Path


def _versions(name: str) -> range:
    first, last = API_BY_NAME[name].versions
    return range(first, last + 1)


async def _end(
    broker: Running, epoch: int, *, current: int = -1, topic: str = "t", partition: int = 0, version: int | None = None
) -> tuple[Error, int, int]:
    asked = {"partition": partition, "current_leader_epoch": current, "leader_epoch": epoch}
    response = await broker.call("OffsetForLeaderEpoch", version, replica_id=-1, topics=[{"topic": topic, "partitions": [asked]}])
    (answer,) = response["topics"][0]["partitions"]
    assert answer["partition"] == partition
    return Error(answer["error_code"]), answer["leader_epoch"], answer["end_offset"]


@pytest.mark.parametrize("version", _versions("OffsetForLeaderEpoch"))
def test_epochs_as_kafka_answers(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")
            await broker.append("t", 0, 4)
            assert await _end(broker, 0, version=version) == (Error.NONE, 0, 4)
            assert await _end(broker, 5, version=version) == (Error.NONE, -1, -1)
            assert await _end(broker, -1, version=version) == (Error.NONE, -1, -1)
            assert await _end(broker, 0, current=0, version=version) == (Error.NONE, 0, 4)
            assert await _end(broker, 0, current=9, version=version) == (Error.UNKNOWN_LEADER_EPOCH, -1, -1)
            assert await _end(broker, 0, topic="none", version=version) == (Error.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
            assert await _end(broker, 0, partition=7, version=version) == (Error.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)

    asyncio.run(run())


def test_an_unclean_start_begins_an_epoch_where_the_log_was_cut(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=True) as broker:
            await broker.create("t")
            await broker.append("t", 0, 10)
        disk.lost["t-0"] = 3
        async with running(tmp_path, disk=disk, kill=True) as broker:
            # a consumer that had read to offset 10 in epoch 0 learns that this epoch ended at 7
            assert await _end(broker, 0) == (Error.NONE, 0, 7)
            assert await _end(broker, 1) == (Error.NONE, 1, 7)
            assert await _end(broker, 0, current=0) == (Error.FENCED_LEADER_EPOCH, -1, -1)
            topic = broker.topics.get("t")
            assert topic is not None
            assert broker.plane.open[topic.topic_id, 0].epoch == 1
            assert broker.topics.epoch_files is not None
            await broker.topics.epoch_files.done()
            assert (tmp_path / "t-0" / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n1 7\n"
            await broker.append("t", 0, 5)
            metadata = await broker.call("Metadata", topics=[{"name": "t"}])
            assert metadata["topics"][0]["partitions"][0]["leader_epoch"] == 1
        async with running(tmp_path, disk=disk) as broker:
            assert await _end(broker, 0) == (Error.NONE, 0, 7)
            assert await _end(broker, 1) == (Error.NONE, 1, 12)
            assert await _end(broker, 2) == (Error.NONE, 2, 12)
        async with running(tmp_path, disk=disk) as broker:
            assert await _end(broker, 2) == (Error.NONE, 2, 12), "left in order: the epoch goes on"

    asyncio.run(run())


def test_epochs_without_a_checkpoint(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=True) as broker:
            await broker.create("t")
            await broker.append("t", 0, 4)
        checkpoint = tmp_path / "t-0" / "leader-epoch-checkpoint"
        checkpoint.write_text("damaged")
        async with running(tmp_path, disk=disk) as broker:
            assert await _end(broker, 0) == (Error.NONE, 0, 4)
            assert await _end(broker, 1) == (Error.NONE, 1, 4)
        checkpoint.unlink()
        async with running(tmp_path, disk=disk) as broker:
            assert await _end(broker, 1) == (Error.NONE, 1, 4)

    asyncio.run(run())


async def _delete(broker: Running, wanted: dict[int, int], topic: str = "t", version: int | None = None) -> dict[int, tuple[Error, int]]:
    partitions = [{"partition_index": index, "offset": offset} for index, offset in wanted.items()]
    response = await broker.call("DeleteRecords", version, topics=[{"name": topic, "partitions": partitions}], timeout_ms=1000)
    return {p["partition_index"]: (Error(p["error_code"]), p["low_watermark"]) for p in response["topics"][0]["partitions"]}


@pytest.mark.parametrize("version", _versions("DeleteRecords"))
def test_delete_records_as_kafka_answers(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t", 4)
            for partition in range(4):
                await broker.append("t", partition, 10)
            assert await _delete(broker, {0: 4, 1: -1, 2: 11, 3: -5, 9: 0}, version=version) == {
                0: (Error.NONE, 4),
                1: (Error.NONE, 10),
                2: (Error.OFFSET_OUT_OF_RANGE, -1),
                3: (Error.OFFSET_OUT_OF_RANGE, -1),
                9: (Error.UNKNOWN_TOPIC_OR_PARTITION, -1),
            }
            assert await _delete(broker, {0: 0}, "none", version) == {0: (Error.UNKNOWN_TOPIC_OR_PARTITION, -1)}
            await broker.create("__consumer_offsets")
            assert await _delete(broker, {0: 0}, "__consumer_offsets", version) == {0: (Error.INVALID_TOPIC_EXCEPTION, -1)}

    asyncio.run(run())


def test_deleted_records_stay_deleted_after_a_kill(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=True) as broker:
            await broker.create("t", 2)
            await broker.append("t", 0, 10)
            await _delete(broker, {0: 6})
            assert (tmp_path / "log-start-offset-checkpoint").read_text() == "0\n1\nt 0 6\n"
        for log in disk.logs.values():
            log.start = 0  # a data plane finds the start of the first segment
        async with running(tmp_path, disk=disk) as broker:
            topic = broker.topics.get("t")
            assert topic is not None
            at = broker.plane.positions(topic.topic_id, 0)
            assert at is not None
            assert (at.log_start, at.log_end) == (6, 10)

    asyncio.run(run())


@pytest.mark.parametrize("kill", [True, False])
def test_a_topic_of_the_same_name_does_not_inherit_a_log_start(tmp_path: Path, kill: bool) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=kill) as broker:
            await broker.create("t")
            await broker.append("t", 0, 10)
            await _delete(broker, {0: 6})
            await broker.call("DeleteTopics", topics=[{"name": "t"}], timeout_ms=1)
            await broker.create("t")
            await broker.append("t", 0, 8)
        async with running(tmp_path, disk=disk) as broker:
            topic = broker.topics.get("t")
            assert topic is not None
            at = broker.plane.positions(topic.topic_id, 0)
            assert at is not None
            assert (at.log_start, at.log_end) == (0, 8)

    asyncio.run(run())


def test_a_log_that_was_cut_below_its_start_begins_at_its_end(tmp_path: Path) -> None:
    """The checkpoint is newer than the data; what is appended then, at offsets that it calls deleted, outlives further starts."""

    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk, kill=True) as broker:
            await broker.create("t")
            await broker.append("t", 0, 10)
            await _delete(broker, {0: 9})
        disk.lost["t-0"] = 4
        for end in (6, 11):
            for log in disk.logs.values():
                log.start = 0
            async with running(tmp_path, disk=disk, kill=True) as broker:
                topic = broker.topics.get("t")
                assert topic is not None
                at = broker.plane.positions(topic.topic_id, 0)
                assert at is not None
                assert (at.log_start, at.log_end) == (6, end)
                assert (tmp_path / "log-start-offset-checkpoint").read_text() == "0\n1\nt 0 6\n"
                await broker.append("t", 0, 5)

    asyncio.run(run())


def test_an_epoch_that_only_the_metadata_have_begins_at_the_end(tmp_path: Path) -> None:
    """Kafka's controller begins one when a broker leaves in order, which that broker never hears of."""

    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk) as broker:
            await broker.create("t")
            await broker.append("t", 0, 4)
        store = await open_store(tmp_path / METADATA)
        entry = await store.get(PREFIX + "t")
        assert entry is not None
        record = decode_topic("t", entry.value)
        ahead = replace(record, partitions=tuple(replace(p, epoch=3) for p in record.partitions))
        await store.write({entry.key: ahead.encode()}, {entry.key: entry.revision})
        await store.close()
        for _ in range(2):
            async with running(tmp_path, disk=disk) as broker:
                assert await _end(broker, 0) == (Error.NONE, 0, 4)
                assert broker.topics.epoch_files is not None
                await broker.topics.epoch_files.done()
            assert (tmp_path / "t-0/leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n3 4\n"

    asyncio.run(run())
