"""The storage keeps its promises in every state that a crash may leave; and the explorer would notice if it did not."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from fastlog.native.plant import NAMES
from fastlog.native.tape import LIES
from tests.storage.crash import relay
from tests.storage.crash.explore import Exploration
from tests.storage.crash.machine import Plan

TAIL = Plan(aligned=True, acks=(1, 1, -1), steps=25, settings={"segment_bytes": 200_000})
BUGS: dict[str, Plan | None] = {
    "ack before flush": None,
    "flush before the write": Plan(acks=(1, 1, -1), steps=40),
    "tail not cut": TAIL,
    "truncation not flushed": TAIL,
    "blocks not zeroed": Plan(twins=True, settings={"segment_bytes": 200_000}),
    "overlapping writes": Plan(acks=(1, 1, -1), steps=40),
    "directory not synced": None,
    "file system not synced": replace(TAIL, together=True),
    "early duplicate": Plan(acks=(0, 1, -1), steps=40),
    "recycled blocks left whole": Plan(relay=True, acks=(-1,), steps=25, settings=relay.SETTINGS),
    "trusted index": Plan(crowd=True, partitions=1, settings={"segment_bytes": 1_000_000, "index_interval_bytes": 0}),
}


def test_every_promise_is_kept() -> None:
    found = Exploration(seed=1).run(states=1500)
    assert not found.violation, found
    assert found.states >= 1500
    assert found.kills > 3


@pytest.mark.long
def test_every_promise_is_kept_for_long() -> None:
    seed = int(time.time())
    found = Exploration(seed).run(states=100_000)
    assert not found.violation, f"{found} (first seed {seed})"


def test_a_seed_repeats() -> None:
    one, other = (Exploration(seed=77).run(states=1, scenarios=1) for _ in range(2))
    assert str(one) == str(other)
    assert one.events > 0


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found(bug: str) -> None:
    lies, plants = ((bug,), ()) if bug in LIES else ((), (bug,))
    found = Exploration(seed=1, plan=BUGS[bug], lies=lies, plants=plants).run(states=4000)
    assert found.violation, found


def test_every_bug_is_tried() -> None:
    assert set(BUGS) == LIES | set(NAMES)


@pytest.mark.parametrize("bug", [bug for bug, plan in BUGS.items() if plan is not None])
def test_without_the_bug_its_plan_is_fine(bug: str) -> None:
    found = Exploration(seed=1, plan=BUGS[bug]).run(states=100)
    assert not found.violation, found
