"""What is dropped for its age or for the size of its log, and what never is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fastlog.broker.plane import TimeResult
from fastlog.broker.retention import Retention
from fastlog.protocol.errors import Error
from fastlog.storage.retention import Segment, first_kept, list_segments
from tests.broker.fake_plane import FakePlane
from tests.broker.running import running
from tests.broker.test_real import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.process import Broker

SEGMENTS = [Segment(0, 100), Segment(10, 100), Segment(20, 100), Segment(30, 4096)]  # the newest one holds 50


@pytest.mark.parametrize(
    ("first_young", "bytes_max", "kept"),
    [
        (None, -1, 0),
        (5, -1, 0),
        (9, -1, 0),
        (10, -1, 10),
        (19, -1, 10),
        (25, -1, 20),
        (30, -1, 30),
        (35, -1, 30),
        (-1, -1, 40),
        (None, 350, 0),
        (None, 251, 0),
        (None, 250, 10),
        (None, 151, 10),
        (None, 150, 20),
        (None, 50, 30),
        (None, 0, 30),
        (20, 250, 20),
        (5, 50, 30),
    ],
)
def test_whole_segments_go(first_young: int | None, bytes_max: int, kept: int) -> None:
    assert first_kept(SEGMENTS, 350, 40, first_young, bytes_max) == kept


def test_what_is_not_visible_stays() -> None:
    assert first_kept(SEGMENTS, 350, 25, 30, 0) == 20
    assert first_kept(SEGMENTS[:1], 100, 0, None, 0) == 0
    assert first_kept([], 0, 0, None, 0) == 0


def test_segments_are_found_by_their_files(tmp_path: Path) -> None:
    for name in (
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000020.log",
        "00000000000000000003.log",
        "next.segment",
    ):
        (tmp_path / name).write_bytes(b"x" * 7)
    assert list_segments(str(tmp_path)) == [Segment(0, 7), Segment(3, 7), Segment(20, 7)]


def test_only_where_the_topic_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            context = broker.broker.context
            assert context is not None
            asked: list[int] = []

            async def find_time(plane: FakePlane, topic_id: object, partition: int, timestamp: int) -> TimeResult:
                asked.append(timestamp)
                return TimeResult(Error.NONE, -1)

            monkeypatch.setattr(FakePlane, "find_time", find_time)
            monkeypatch.setattr(context.clock, "now_ms", lambda: 10_000)
            retention = Retention(context)

            async def check(**configs: str) -> tuple[int, list[int]]:
                asked.clear()
                await broker.create("t", configs={name.replace("_", "."): value for name, value in configs.items()})
                await broker.append("t", 0, 5)
                topic = broker.topics.get("t")
                assert topic is not None
                await retention.check(topic)
                at = broker.plane.positions(topic.topic_id, 0)
                assert at is not None
                await broker.call("DeleteTopics", topics=[{"name": "t"}], timeout_ms=1)
                return at.log_start, list(asked)

            assert await check(retention_ms="4000") == (5, [6000])
            assert await check(retention_ms="40000") == (5, [0])
            assert await check(retention_ms="-1") == (0, [])
            assert await check(retention_ms="4000", cleanup_policy="compact") == (0, [])
            assert await check(retention_ms="4000", cleanup_policy="") == (0, [])
            assert (await check(retention_ms="4000", cleanup_policy="compact,delete"))[0] == 5

    asyncio.run(run())


def test_a_broker_drops_what_is_too_much_and_too_old(
    start_broker: Callable[..., Broker], engine: str, eventually: Callable[[Callable[[], bool], float], None]
) -> None:
    broker = start_broker(io=engine, args=["--set", "log.retention.check.interval.ms=100"])
    wire = Wire(broker.bootstrap)
    small = {"segment.bytes": "1048576"}
    wire.create("much", configs=small | {"retention.bytes": "2000000"})
    wire.create("old", configs=small | {"retention.ms": "60000"})
    wire.create("kept", configs=small | {"retention.ms": "-1"})
    hour_ago = int(time.time() * 1000) - 3_600_000

    def earliest(name: str) -> int:
        topics = [{"name": name, "partitions": [{"partition_index": 0, "current_leader_epoch": -1, "timestamp": -2}]}]
        (found,) = wire.call("ListOffsets", 7, replica_id=-1, isolation_level=0, topics=topics)["topics"][0]["partitions"]
        return int(found["offset"])

    for number in range(60):
        assert wire.produce("much", [b"x" * 100_000])["error_code"] == 0
        assert wire.produce("kept", [b"x" * 100_000], timestamp_ms=hour_ago)["error_code"] == 0
        assert wire.produce("old", [b"x" * 100_000], timestamp_ms=hour_ago if number < 40 else None)["error_code"] == 0
    eventually(lambda: earliest("much") > 25 and earliest("old") > 20, 20.0)
    time.sleep(0.5)
    assert 25 < earliest("much") <= 40, "2 MB are kept, and no more than a segment beyond"
    assert 20 < earliest("old") <= 40, "only what is old goes"
    assert earliest("kept") == 0
    wire.close()
    broker.kill()
    broker.start()
    wire = Wire(broker.bootstrap)
    assert earliest("much") > 25
    wire.close()
