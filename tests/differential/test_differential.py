"""fastlog answers as Kafka 4.3 did when the sequences were recorded; the long test asks a Kafka that runs.

Record anew: `python -m tests.differential --seed 500 --steps 2000 --record tests/differential/kafka-4.3.jsonl.gz`, run the test some
ten times beside a load, and take out the sequences whose answers hang on time (most of those with members that wait for one another).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.differential.allowed import RULES, Rule
from tests.differential.compare import differences
from tests.differential.recording import Recorded, load
from tests.differential.running import ARGS, SETTLE_S, fastlog_for, kafka_for, warm
from tests.differential.sequences import THEMES
from tests.differential.target import Target
from tests.differential.walk import Report, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


@pytest.mark.one_engine
@pytest.mark.timeout(300)
def test_as_recorded(start_broker: Start, engine: str) -> None:
    target = Target(start_broker(io=engine, args=ARGS).bootstrap)
    warm(target)
    found = []
    used: set[Rule] = set()
    themes = set()

    def replayed(sequence: Recorded, token: str | None) -> list[str]:
        """The differences of its first step that has any: what follows may come of it."""
        target.begin(token)
        for index, (step, kafka) in enumerate(zip(sequence.steps, sequence.kafka, strict=True)):
            different = differences(step, kafka, target.run(step), used)
            if different:
                return [f"--theme {sequence.theme} --seed {sequence.seed}, step {index}: {difference}; {step}" for difference in different]
        return []

    for sequence in load():
        themes.add(sequence.theme)
        # what does not come again hung on time: a member's session, say, on a machine that stood still
        if replayed(sequence, sequence.token) and replayed(sequence, None):
            found += replayed(sequence, None)
    target.close()
    assert themes == set(THEMES)
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:10])


def test_a_difference_is_found_and_told() -> None:
    step = {"api": "Heartbeat", "version": 4, "message": {}}
    used: set[Rule] = set()
    (found,) = differences(step, {"error_code": 25, "throttle_time_ms": 0}, {"error_code": 22, "throttle_time_ms": 0}, used)
    assert (found.path, found.kafka, found.fastlog, used) == (".error_code", 25, 22, set())
    assert differences(step, "closed", {"error_code": 0}, used)
    # one that is allowed is not told, and its rule counts as used; the others are named as unused
    theirs, ours = ({"topics": [{"name": "", "error_code": code}]} for code in (-1, 42))
    assert not differences({"api": "Metadata", "version": 12, "message": {}}, theirs, ours, used)
    report = Report(used=used)
    assert len(used) == 1
    assert set(report.unused()) == set(RULES) - used
    assert all(f"allowed, and not seen: {rule}" in report.text() for rule in report.unused())


@pytest.mark.parametrize(
    ("ours", "allowed"),
    [
        ([{"name": "t", "partitions": [{"partition_index": 0, "error_code": 0}]}], True),
        ([{"name": "t", "partitions": [{"partition_index": 0, "error_code": 3}]}], False),
        ([{"name": "t", "partitions": [{"partition_index": 1, "error_code": 0}]}], False),
        ([{"name": "t", "partitions": [{"partition_index": 0, "error_code": 0}] * 2}], False),
    ],
)
def test_a_topic_named_twice_has_to_be_answered_alike(ours: list[dict[str, Any]], allowed: bool) -> None:
    theirs = [{"name": "t", "partitions": [{"partition_index": 0, "error_code": 0}]}] * 2
    step = {"api": "TxnOffsetCommit", "version": 3, "message": {}}
    assert bool(differences(step, {"topics": theirs}, {"topics": ours}, set())) is not allowed


@pytest.mark.parametrize(
    ("ours", "allowed"),
    [
        ([(1, 0, 5, "b")], True),
        ([(0, 0, 5, None), (1, 0, 5, "b")], False),
        ([(1, 0, 6, "b")], False),
        ([(1, 0, 5, "b")] * 3, False),
        ([(2, 1, -1, "b")], False),
    ],
    ids=["less room", "lengths that are the same: each is compared", "another high watermark", "named twice", "an error"],
)
def test_partitions_without_room_have_to_be_answered_alike(ours: list[tuple[int, int, int, str | None]], allowed: bool) -> None:
    def responses(partitions: list[tuple[int, int, int, str | None]]) -> dict[str, Any]:
        names = ("partition_index", "error_code", "high_watermark", "records")
        return {"responses": [{"partitions": [dict(zip(names, partition, strict=True)) for partition in partitions]}]}

    step = {"api": "Fetch", "version": 12, "message": {}}
    theirs = responses([(0, 0, 5, "a"), (1, 0, 5, None)])
    assert bool(differences(step, theirs, responses(ours), set())) is not allowed


@pytest.mark.long
@pytest.mark.java
@pytest.mark.one_engine
@pytest.mark.timeout(900)
def test_beside_kafka(engine: str, kafka_classpath: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("FASTLOG_TEST_SEED", "100"))
    report = Report()
    with kafka_for(tmp_path) as there, fastlog_for(tmp_path, engine) as here:
        kafka, fastlog = Target(there, SETTLE_S), Target(here)
        warm(kafka)
        warm(fastlog)
        for number in range(seed, seed + 6):
            for theme in THEMES:
                walk(kafka, fastlog, theme, number, 25, report)
    with capsys.disabled():
        print(f"\n{report.steps} steps beside Kafka, seed {seed}")
    assert not report.kinds, report.text()
