"""What the description of a topic, and a start, say about durability."""

import asyncio
from pathlib import Path

import pytest

from fastlog.broker.server import Broker
from fastlog.config.durability import describe_durability
from tests.broker.fake_plane import FakeDisk, FakePlane
from tests.broker.running import options, running

DEFAULT = "acks=all is on stable storage; acks=1 survives a killed broker, not a power cut"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, f"{DEFAULT}; acks=0 is not waited for"),
        ({"flush.messages": "1"}, "acks=all and acks=1 are on stable storage (flush.messages=1); acks=0 is not waited for"),
        (
            {"flush.messages": "500", "flush.ms": "1000"},
            f"{DEFAULT}; flushed every 500 messages or after 1000 ms; acks=0 is not waited for",
        ),
        (
            {"write.caching": "true"},
            "acks=all and acks=1 survive a killed broker, not a power cut (write.caching=true); acks=0 is not waited for",
        ),
    ],
)
def test_a_topic_says_what_it_promises(settings: dict[str, str], said: str) -> None:
    assert describe_durability(settings) == said


def test_a_start_says_what_holds_and_for_how_many_topics_it_does_not(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        async with running(tmp_path, disk=disk) as broker:
            await broker.create("usual", configs={"retention.ms": "5"})
            await broker.create("same", configs={"write.caching": "false"})
            await broker.create("other", configs={"flush.messages": "1"})
        again = Broker(options([tmp_path], log_flush_interval_ms="250"), FakePlane(disk))
        facts = await again.start()
        await again.stop()
        assert facts.durability == (f"{DEFAULT}; flushed after 250 ms; acks=0 is not waited for (not 1 topics: see fastlog topic describe)")

    asyncio.run(run())
