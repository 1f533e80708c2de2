"""Compaction beside Kafka 4.3: from the same input both leave the same, record by record, and Kafka's tools accept our cleaned segments."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.brokers import Kafka
from tests.support.java import compile_program, dump_segments, java

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.process import Broker

pytestmark = [pytest.mark.java, pytest.mark.long, pytest.mark.timeout(600)]
SOURCE = Path(__file__).parent / "java/Compacted.java"
HOUR_MS = 3_600_000
SETTINGS = {
    "log.cleaner.backoff.ms": "50",
    "log.retention.check.interval.ms": "200",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
}


@dataclass
class Side:
    """One of the two brokers."""

    name: str
    bootstrap: str
    data: Path
    program: str

    def java(self, *arguments: str) -> str:
        return java(self.program, "Compacted", self.bootstrap, *arguments)

    def logs(self, topic: str) -> list[Path]:
        return sorted((self.data / f"{topic}-0").glob("*.log"))

    def cleaned(self, topic: str) -> bool:
        """Whether all but the active segment is clean, by the broker's own checkpoint."""
        rows = (self.data / "cleaner-offset-checkpoint").read_text().splitlines()[2:]
        return f"{topic} 0 {int(self.logs(topic)[-1].stem)}" in rows

    def clean(self, topic: str) -> None:
        """One compaction of all that may be compacted."""
        self.java("clean", topic, "true")
        wait(lambda: self.cleaned(topic), f"{self.name} has not cleaned {topic}")
        self.java("clean", topic, "false")


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not _holds(condition):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except FileNotFoundError:
        return False


@pytest.fixture
def sides(kafka_classpath: str, tmp_path: Path, start_broker: Callable[..., Broker], engine: str) -> Iterator[list[Side]]:
    program = compile_program(kafka_classpath, SOURCE, tmp_path)
    ours = start_broker(io=engine, args=[word for pair in SETTINGS.items() for word in ("--set", "=".join(pair))])
    theirs = Kafka(tmp_path / "peer", 0, [*map("=".join, SETTINGS.items()), "log.cleaner.dedupe.buffer.size=16777216"])
    (tmp_path / "peer").mkdir()
    theirs.start()
    yield [Side("fastlog", ours.bootstrap, ours.data, program), Side("kafka", theirs.address, theirs.directory, program)]
    theirs.stop()


def markers(classpath: str, side: Side, topic: str) -> list[tuple[str, str]]:
    """Offset and kind of every marker, as DumpLogSegments says; which also means that it accepts batches and indexes."""
    said = dump_segments(classpath, side.logs(topic)[:-1])
    assert "isvalid: false" not in said
    return re.findall(r"\| offset: (\d+) .* endTxnMarker: (\w+)", said)


def check_files(classpath: str, side: Side, topic: str) -> None:
    """Every index of a cleaned segment agrees with its log."""
    names = [path.with_suffix(kind) for path in side.logs(topic)[:-1] for kind in (".index", ".timeindex", ".txnindex")]
    there = [name for name in names if name.exists() and name.stat().st_size]
    assert "passed sanity check" in dump_segments(classpath, there, "--index-sanity-check")
    said = dump_segments(classpath, there, "--verify-index-only")
    assert not re.search(r"Mismatches|Found|mismatch|not found", said), said[-3000:]


def tombstones(read: str) -> set[int]:
    """Their offsets."""
    return {int(line.split()[0]) for line in read.splitlines() if line.split()[4:5] == ["null"]}


def same(ours: tuple[str, list[tuple[str, str]]], theirs: tuple[str, list[tuple[str, str]]]) -> None:
    """What was read and the markers, line by line."""
    differing = "\n".join(list(unified_diff(ours[0].splitlines(), theirs[0].splitlines(), "fastlog", "kafka", n=1, lineterm=""))[:60])
    assert not differing, differing
    assert set(ours[1]) ^ set(theirs[1]) == set()
    assert ours == theirs


@pytest.mark.one_engine
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_the_same_is_left(sides: list[Side], kafka_classpath: str, fresh_name: str, codec: str) -> None:
    """Offsets, timestamps, keys, values, headers, tombstones and markers, after one compaction and after a second one, at which the
    tombstones of the first are due."""
    at = int(time.time() * 1000) - HOUR_MS

    def first(side: Side) -> tuple[str, list[tuple[str, str]]]:
        side.java("create", fresh_name, "cleanup.policy=compact", "segment.bytes=1048576", "delete.retention.ms=1000")
        side.java("write", fresh_name, "1", "260" if codec == "none" else "300", str(at), codec, "transactions")
        assert len(side.logs(fresh_name)) > 3
        side.clean(fresh_name)
        check_files(kafka_classpath, side, fresh_name)
        return side.java("read", fresh_name), markers(kafka_classpath, side, fresh_name)

    ours, theirs = map(first, sides)
    assert tombstones(ours[0])
    assert len(ours[0].splitlines()) < 2 * 260 * 20
    same(ours, theirs)
    time.sleep(1.5)  # delete.retention.ms, and some

    def second(side: Side) -> tuple[str, list[tuple[str, str]]]:
        side.java("write", fresh_name, "2", "120", str(at + 10_000), codec, "transactions")
        side.clean(fresh_name)
        check_files(kafka_classpath, side, fresh_name)
        return side.java("read", fresh_name), markers(kafka_classpath, side, fresh_name)

    before = tombstones(ours[0])
    ours, theirs = map(second, sides)
    assert not before & tombstones(ours[0])
    same(ours, theirs)


@pytest.mark.one_engine
def test_the_same_is_left_by_compact_and_delete(sides: list[Side], kafka_classpath: str, fresh_name: str) -> None:
    """Segments of records that are too old go as a whole, of the others the newest of each key stays."""
    now = int(time.time() * 1000)

    def run(side: Side) -> tuple[str, list[tuple[str, str]]]:
        configs = ("cleanup.policy=compact,delete", "segment.bytes=1048576", "retention.ms=-1", "delete.retention.ms=86400000")
        side.java("create", fresh_name, *configs)
        side.java("write", fresh_name, "3", "150", str(now - 3 * HOUR_MS), "none", "plain")  # a marker would be of now
        side.java("write", fresh_name, "4", "200", str(now - HOUR_MS // 2), "none", "transactions")
        side.clean(fresh_name)
        return side.java("read", fresh_name), markers(kafka_classpath, side, fresh_name)

    ours, theirs = map(run, sides)
    same(ours, theirs)
    for side in sides:
        side.java("alter", fresh_name, f"retention.ms={2 * HOUR_MS}")
        wait(lambda side=side: int(side.logs(fresh_name)[0].stem) > 0, f"{side.name} keeps what is too old")  # type: ignore[misc]

    def later(side: Side) -> str:
        return side.java("read", fresh_name)

    left, theirs_left = map(later, sides)
    assert left != ours[0]
    assert left == theirs_left
