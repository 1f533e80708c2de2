"""Many clients that join, work, leave, crash and come back; the coordinator is restarted and its log fails. All by chance, by seed.

After every step what must always hold is checked; at the end everybody has gone silent and everything must come to rest.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from typing import Any

import pytest

from fastlog.coordinator.classic import ClassicGroup, State
from fastlog.coordinator.records import OffsetRecord
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import Bench, Waiting, subscription

GROUPS = ["alpha", "beta"]
SESSION_MS = 10_000
REBALANCE_MS = 30_000


class Consumer:
    """A client: does what a consumer does, more or less in time."""

    def __init__(self, sim: Simulation, name: str, group_id: str, instance: str | None) -> None:
        self.sim = sim
        self.name = name
        self.group_id = group_id
        self.instance = instance
        self.reset()

    def reset(self) -> None:
        """The process starts anew; what it waited for will be answered to nobody."""
        self.member_id = ""
        self.generation = -1
        self.assigned: bytes | None = None
        self.joining: Waiting | None = None
        self.syncing: Waiting | None = None

    def step(self) -> None:
        if self.joining is not None:
            self.take_join()
        elif self.syncing is not None:
            self.take_sync()
        elif self.generation < 0:
            self.join()
        elif self.assigned is None:
            self.sync()
        else:
            self.work()

    def join(self) -> None:
        chance = self.sim.chance
        protocols = {"range": subscription("t")} if chance.random() < 0.9 else {"range": subscription("t", "u"), "sticky": b""}
        self.joining = self.sim.bench.join(
            self.group_id,
            self.member_id,
            instance=self.instance,
            protocols=protocols,
            session=SESSION_MS,
            rebalance=REBALANCE_MS,
            client_id=self.name,
        )
        self.sim.waits.append(self.joining)

    def take_join(self) -> None:
        assert self.joining is not None
        if self.joining.answer is None:
            return
        answer, self.joining = self.joining.answer, None
        error = answer["error_code"]
        if error is Error.MEMBER_ID_REQUIRED:
            self.member_id = answer["member_id"]
        elif error is Error.NONE:
            self.member_id = answer["member_id"]
            self.generation = answer["generation_id"]
            self.assigned = None
            self.members = [member["member_id"] for member in answer["members"]]
            self.leads = answer["leader"] == self.member_id and not answer["skip_assignment"]
        else:
            self.lost(error)

    def sync(self) -> None:
        assignments = {}
        if self.leads:
            nonce = self.sim.next()
            assignments = {member: f"{self.generation}/{member}/{nonce}".encode() for member in self.members}
        self.syncing = self.sim.bench.sync(
            self.member_id,
            self.generation,
            assignments,
            group_id=self.group_id,
            instance=self.instance,
            protocol_type=None,
            protocol_name=None,
        )
        self.sim.waits.append(self.syncing)

    def take_sync(self) -> None:
        assert self.syncing is not None
        if self.syncing.answer is None:
            return
        answer, self.syncing = self.syncing.answer, None
        if answer["error_code"] is not Error.NONE:
            self.lost(answer["error_code"])
            return
        self.assigned = answer["assignment"]
        self.sim.given(self, answer["assignment"])

    def work(self) -> None:
        bench, chance = self.sim.bench, self.sim.chance
        kind = chance.random()
        if kind < 0.5:
            error = bench.heartbeat(self.member_id, self.generation, group_id=self.group_id, instance=self.instance)
            if error is not Error.NONE:
                self.lost(error)
        elif kind < 0.9:
            self.sim.commit(self)
        elif kind < 0.95:
            self.generation = -1  # joins again for reasons of its own
        else:
            bench.leave((self.member_id, self.instance), group_id=self.group_id)
            self.reset()

    def lost(self, error: Error) -> None:
        self.generation = -1
        self.assigned = None
        if error in {Error.UNKNOWN_MEMBER_ID, Error.FENCED_INSTANCE_ID, Error.ILLEGAL_GENERATION}:
            self.member_id = ""


class Simulation:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.bench = Bench()
        self.waits: list[Waiting] = []
        self.counter = 0
        self.consumers = [
            Consumer(self, f"c{number}", self.chance.choice(GROUPS), f"i{number}" if number % 3 == 0 else None) for number in range(12)
        ]
        self.life: dict[str, int] = defaultdict(int)  # how often a group was seen gone
        self.nonces: dict[tuple[str, int, int], bytes] = {}  # of assignments, by group, its life and generation
        self.assignments: dict[tuple[str, int, int, str], bytes] = {}  # also by member
        self.behind: set[str] = set()  # groups whose last record the log did not take
        self.stored: dict[tuple[str, str, int], int] = {}  # what the log has

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def given(self, consumer: Consumer, assignment: bytes) -> None:
        """One generation has one assignment, and each member its own part of it."""
        if not assignment:
            return  # the leader knew the member by an earlier id
        generation, member_id, nonce = assignment.split(b"/")
        at = (consumer.group_id, self.life[consumer.group_id], int(generation))
        assert self.nonces.setdefault(at, nonce) == nonce
        if consumer.instance is None:
            assert int(generation) == consumer.generation
            assert member_id.decode() == consumer.member_id
        assert self.assignments.setdefault((*at, consumer.member_id), assignment) == assignment

    def commit(self, consumer: Consumer) -> None:
        key = (self.chance.choice("tu"), self.chance.randrange(3))
        try:
            self.bench.commit(
                {key: self.next()}, consumer.member_id, consumer.generation, group_id=consumer.group_id, instance=consumer.instance
            )
        except KafkaError as failure:
            consumer.lost(failure.code)

    def release(self) -> None:
        """The log ends what it held, well or badly; the model follows its records."""
        bench = self.bench
        bench.failing = self.chance.choice([Error.NONE] * 30 + [Error.KAFKA_STORAGE_ERROR, Error.REQUEST_TIMED_OUT])
        for record in [record for result in bench.held for record in result.records]:
            if not isinstance(record, OffsetRecord):
                (self.behind.discard if bench.failing is Error.NONE else self.behind.add)(record.group)
            elif bench.failing is Error.NONE:
                if record.value is None:
                    self.stored.pop(record[:3], None)
                else:
                    self.stored[record[:3]] = record.value.offset
        bench.release()
        bench.failing = Error.NONE

    def step(self) -> None:
        chance, bench = self.chance, self.bench
        bench.hold = True  # every append takes until the next release
        kind = chance.random()
        if kind < 0.9:
            chance.choice(self.consumers).step()
        elif kind < 0.98:
            bench.advance(chance.choice([1, 50, 100, 500, 500, 1_000, 1_000, 3_000]))
        elif kind < 0.985:
            chance.choice(self.consumers).reset()  # crashes
        elif kind < 0.99:
            bench.execute(bench.shard.sweep())
        elif kind < 0.995:
            bench.execute(bench.shard.delete_groups([chance.choice(GROUPS)]))
        elif kind < 0.997:
            self.restart()
        if bench.held and chance.random() < 0.7:
            self.release()
        self.check()

    def restart(self) -> None:
        """The coordinator is killed: what was not in the log is gone, and who waited is told by the closed connection."""
        self.bench.held.clear()
        for waiting in self.waits:
            if waiting.answer is None:
                waiting.answer = {"error_code": Error.NOT_COORDINATOR}
        self.bench = self.bench.restarted()
        self.behind.clear()

    # -- what must hold -------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        for group_id in GROUPS:
            if group_id not in self.bench.shard.groups:
                self.life[group_id] += 1
            expected = {key[1:]: offset for key, offset in self.stored.items() if key[0] == group_id}
            group = self.bench.shard.groups.get(group_id)
            if group is None or group.state is not State.DEAD:
                assert self.bench.committed(group_id) == expected
        for group in self.bench.shard.groups.values():
            consistent(group)
        if not self.bench.held and self.chance.random() < 0.2:
            self.compare(self.bench.restarted())

    def compare(self, other: Bench) -> None:
        """What another coordinator makes of the log is what this one has."""
        for group_id in GROUPS:
            assert other.committed(group_id) == self.bench.committed(group_id)
        for group_id, group in self.bench.shard.groups.items():
            if group.stored and group_id not in self.behind and group.state in {State.STABLE, State.EMPTY}:
                assert persistent(other.shard.groups[group_id]) == persistent(group)
        for group_id, group in other.shard.groups.items():
            assert group_id in self.bench.shard.groups
            consistent(group)


def persistent(group: ClassicGroup) -> Any:
    return (
        group.state,
        group.generation,
        group.protocol_type,
        group.protocol,
        group.leader_id,
        group.subscribed_topics,
        dict(group.static_members),
        [
            (member.member_id, member.instance_id, member.assignment, member.metadata(group.protocol), member.session_timeout_ms)
            for member in group.members.values()
        ],
    )


def consistent(group: ClassicGroup) -> None:
    members = group.members
    assert group.awaiting_joins == sum(member.awaiting_join is not None for member in members.values())
    assert group.static_members == {member.instance_id: member_id for member_id, member in members.items() if member.is_static}
    assert all(member.member_id == member_id for member_id, member in members.items())
    assert group.pending_syncs <= set(members)
    assert not set(group.pending_joins) & set(members)
    counts: dict[str, int] = defaultdict(int)
    for member in members.values():
        for name in {name for name, _ in member.protocols}:
            counts[name] += 1
        assert member.session.deadline_ms is not None or member.awaiting_join or member.awaiting_sync
    assert group.supported_protocols == counts
    assert (group.leader_id in members) == bool(members)
    match group.state:
        case State.EMPTY | State.DEAD:
            assert not members
        case State.PREPARING_REBALANCE:
            assert group.join_timer.deadline_ms is not None
            assert all(member.awaiting_sync is None for member in members.values())
        case State.COMPLETING_REBALANCE | State.STABLE:
            assert members
            assert all(group.protocol in dict(member.protocols) for member in members.values())
            if group.state is State.STABLE:
                assert all(member.awaiting_sync is None for member in members.values())


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTLOG_TEST_SEEDS", "25"))))
def test_simulation(seed: int) -> None:
    sim = Simulation(seed)
    for _ in range(1_500):
        sim.step()
    sim.bench.hold = False
    sim.bench.release()
    for _ in range(50):
        sim.bench.advance(60_000)
    assert all(waiting.answer is not None for waiting in sim.waits)
    assert sim.bench.timers.armed == 0
    for group in sim.bench.shard.groups.values():
        assert group.state is State.EMPTY
        assert not group.pending_joins
    assert sim.nonces  # it did get somewhere
