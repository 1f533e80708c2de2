"""Exploring: lives of a machine, and what is left when the power goes at any moment of them, also while it recovers.

`python -m tests.storage.crash --help` runs it for as long as one likes.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastlog.native.plant import plant
from tests.storage.crash import relay
from tests.storage.crash.machine import Machine, Plan, Violation
from tests.storage.crash.model import Model

STATES_OF_A_LIFE = 30


@dataclass
class Found:
    """What an exploration came to."""

    scenarios: int = 0
    states: int = 0
    events: int = 0
    kills: int = 0
    deepest: int = 0
    violation: str = ""
    seed: int = 0
    """Of the scenario that has it."""
    trail: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.scenarios} scenarios, {self.events} events, {self.kills} kills, {self.states} states"
        if not self.violation:
            return f"{counts}: every promise was kept"
        return f"{counts}: seed {self.seed}: {' -> '.join(self.trail)}: {self.violation}"


def plan_of(rng: random.Random) -> Plan:
    """Some kind of life."""
    kind = rng.random()
    settings: dict[str, Any] = {
        "segment_bytes": rng.choice((9_000, 30_000, 30_000, 100_000, 1_000_000)),
        "index_interval_bytes": rng.choice((0, 4096)),
    }
    if rng.random() < 0.2:
        settings["flush_messages"] = rng.choice((1, 5))
    plan = Plan(
        arena=rng.random() < 0.3,
        together=rng.random() < 0.4,
        checkpoint_bytes=rng.choice((0, 5_000, 20_000)),
        unchecked_max=rng.choice((0, 0, 15_000)),
        steps=rng.choice((15, 30, 60)),
        faults=rng.choice((0.0, 0.0, 0.005, 0.02)),
        settings=settings,
        acks=rng.choice(((-1,), (-1, -1, 1, 0), (-1, 1), (1, 1, -1))),
    )
    if kind < 0.25:
        return replace(plan, aligned=True)
    if kind < 0.35:
        return replace(plan, twins=True, faults=0.0)
    if kind < 0.40:
        return replace(
            plan, crowd=True, partitions=1, settings=settings | {"index_interval_bytes": 0, "segment_bytes": 1_000_000}, faults=0.0
        )
    if kind < 0.50:
        return replace(plan, partitions=18, flush_group=True, acks=(-1, -1, 1), steps=90)
    if kind < 0.57:
        return replace(plan, relay=True, settings=settings | relay.SETTINGS)
    if kind < 0.64:
        return replace(plan, compact=True, partitions=1, steps=90, settings=settings | {"segment_bytes": rng.choice((20_000, 60_000))})
    if kind < 0.71:
        return replace(plan, transactions=True, partitions=3, faults=0.0)
    return plan


class Exploration:
    """Scenarios from one seed on, until there are `states` states. With a `plan` all have that one."""

    def __init__(self, seed: int, *, plan: Plan | None = None, lies: tuple[str, ...] = (), plants: tuple[str, ...] = ()) -> None:
        self.seed = seed
        self.plan = plan
        self.lies = frozenset(lies)
        self.plants = plants
        self.found = Found()
        self._serial = 0

    def run(self, states: int, *, scenarios: int = 1 << 30) -> Found:
        plant(*self.plants)
        shm = Path("/dev/shm")
        scratch = Path(tempfile.mkdtemp(prefix="fastlog-crash-", dir=shm if shm.is_dir() else None))
        try:
            seed = self.seed
            while self.found.states < states and self.found.scenarios < scenarios:
                self.found.scenarios += 1
                self.found.seed = seed
                self.found.trail = []
                try:
                    self._scenario(seed, scratch)
                except Violation as violation:
                    self.found.violation = str(violation)
                    break
                seed += 1
        finally:
            plant()
            shutil.rmtree(scratch)
        return self.found

    def _place(self, scratch: Path) -> Path:
        self._serial += 1
        return scratch / f"{self._serial}"

    def _scenario(self, seed: int, scratch: Path) -> None:
        rng = random.Random(seed)
        plan = replace(self.plan or plan_of(rng), lies=self.lies)
        root = self._place(scratch)
        root.mkdir()
        machine = Machine(root, scratch, [Model(f"t-{i}", i, keyed=plan.compact) for i in range(plan.partitions)], plan, seed)
        self._lives(machine, rng, lives=rng.choice((1, 1, 2, 3)))
        self._power_cuts(machine, rng, STATES_OF_A_LIFE, depth=0)

    def _lives(self, machine: Machine, rng: random.Random, lives: int) -> None:
        """Some processes one after the other, each but the last killed or stopped; the last one is in the middle of something."""
        self.found.trail.append(f"{lives} lives")
        try:
            for life in range(lives):
                machine.start()
                if machine.plan.crowd and life == 0:
                    machine.crowd()
                if machine.plan.relay and life == 0 and len(machine.pairs()) == machine.plan.partitions:
                    relay.run(machine)
                machine.work(rng.randint(0, machine.plan.steps))
                if life + 1 < lives or rng.random() < 0.1:
                    if rng.random() < 0.75:
                        self.found.kills += 1
                        machine.kill()
                    else:
                        machine.stop()
        finally:
            machine.abandon()

    def _power_cuts(self, machine: Machine, rng: random.Random, states: int, depth: int) -> None:
        events = machine.now
        self.found.events += events
        self.found.deepest = max(self.found.deepest, depth)
        for _ in range(states):
            when = rng.choice((rng.randint(0, events), rng.randint(0, events), events))
            seed = rng.getrandbits(32)
            self.found.states += 1
            self.found.trail = [*self.found.trail[: depth + 1], f"power cut before event {when} of {events} (state {seed})"]
            child = machine.after_power_cut(when, self._place(machine.scratch), seed)
            deeper = depth < 2 and rng.random() < (0.3 if depth == 0 else 0.15)
            try:
                child.start()
                if deeper:
                    child.work(rng.choice((0, 0, child.plan.steps // 2, child.plan.steps)))
            finally:
                child.abandon()
            if deeper:
                self._power_cuts(child, rng, 6 if depth == 0 else 3, depth + 1)
            shutil.rmtree(child.root)
        if depth == 0:
            shutil.rmtree(machine.root)
