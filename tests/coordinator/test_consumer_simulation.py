"""Consumers of both protocols that join, work, leave, crash, hang, change topics and the protocol they speak, in one group; answers
get lost, the log is slow or fails, the coordinator restarts, topics come and grow. All by chance, by seed.

After every step no partition may be owned by two members at once, and epochs may only grow; when chance ends all of it must come to rest.
"""

from __future__ import annotations

import os
import random
import struct
from collections import defaultdict
from typing import Any

import pytest

from fastlog.coordinator.classic import State
from fastlog.coordinator.consumer_group import GroupState, MemberState
from fastlog.coordinator.embedded import decode_assignment, decode_subscription, encode_assignment
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import encode_data
from tests.coordinator.fakes import Bench, FakeTopics, Waiting

GROUP = "c"
TOPICS = ("t", "u", "v")
Partition = tuple[str, int]


class Client:
    """A consumer: `owned` is what it reads from at this moment."""

    def __init__(self, sim: Simulation, number: int) -> None:
        self.sim = sim
        self.number = number
        self.instance = f"i{number}" if number % 3 == 0 else None
        self.classic = sim.chance.random() < 0.4
        self.topics = sim.some_topics()
        self.start()

    def start(self) -> None:
        """The process is new."""
        self.member_id = "" if self.classic else f"m{self.number}-{self.sim.next()}"
        self.epoch = -1  # not a member
        self.owned: set[Partition] = set()
        self.target: set[Partition] | None = None  # what it has been told to own, and is not there yet
        self.report = False  # it has to say what it owns
        self.busy = False  # its request is under way
        self.joining: Waiting | None = None
        self.syncing: Waiting | None = None
        self.hangs = False
        self.fenced = False

    def step(self) -> None:
        if self.busy or self.hangs:
            return
        if self.target is not None:
            self.move()
        elif self.classic:
            self.classic_step()
        else:
            self.consumer_step()

    def move(self) -> None:
        """Towards its target: first it stops reading what is not its own any more."""
        assert self.target is not None
        if self.owned - self.target:
            self.owned &= self.target
            self.report = True
            return
        self.owned |= self.target
        self.target = None

    def lost(self, *, forever: bool) -> None:
        """It is fenced: whatever it had is not its own any more. `forever`: its id is of no use either."""
        self.fenced = False
        self.owned = set()
        self.target = None
        self.epoch = -1
        if forever:
            self.member_id = "" if self.classic else f"m{self.number}-{self.sim.next()}"

    def restart(self, *, classic: bool) -> None:
        """It leaves in order, and comes back with a protocol, the other one perhaps: one step of a rolling restart."""
        self.owned = set()
        if self.epoch >= 0 and not self.busy:
            if self.classic:
                self.sim.bench.leave((self.member_id, self.instance), group_id=GROUP)
            else:
                self.beat(-1 if self.instance is None else -2)
        self.classic = classic
        self.start()

    # -- the consumer protocol ------------------------------------------------------------------------------------------------------

    def consumer_step(self) -> None:
        chance = self.sim.chance
        if self.epoch < 0:
            self.owned = set()
            self.beat(0, *self.topics)
            return
        kind = chance.random()
        if kind < 0.03:
            self.topics = self.sim.some_topics()
            self.beat(self.epoch, *self.topics, owned=self.by_topic())
        elif kind < 0.05:
            self.owned = set()
            self.beat(-2 if self.instance is not None and chance.random() < 0.5 else -1)
            self.epoch = -1
        elif self.report or kind < 0.3:
            self.beat(self.epoch, owned=self.by_topic())
        else:
            self.beat(self.epoch)

    def by_topic(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for topic, index in self.owned:
            found[topic].append(index)
        return found

    def beat(self, epoch: int, *topics: str, owned: dict[str, list[int]] | None = None) -> None:
        sim = self.sim
        reported = self.report and owned is not None
        try:
            answer = sim.bench.beat(self.member_id, epoch, *topics, group_id=GROUP, owned=owned, instance=self.instance, rebalance=-1)
        except KafkaError as failure:
            sim.errors.add(failure.code)
            if failure.code in {Error.FENCED_MEMBER_EPOCH, Error.FENCED_INSTANCE_ID, Error.UNKNOWN_MEMBER_ID, Error.GROUP_ID_NOT_FOUND}:
                self.lost(forever=failure.code is not Error.FENCED_MEMBER_EPOCH)
            return
        if sim.chance.random() < 0.05:
            return  # the answer gets lost

        def take(error: Error) -> None:
            if error is Error.NONE and epoch >= 0:
                self.epoch = answer["member_epoch"]
                self.report = self.report and not reported
                assigned = sim.bench.assigned(answer)
                if assigned is not None:
                    self.target = {(topic, index) for topic, indexes in assigned.items() for index in indexes}

        sim.when_stored(self, take)

    # -- the classic protocol, cooperative ------------------------------------------------------------------------------------------

    def classic_step(self) -> None:
        bench, chance = self.sim.bench, self.sim.chance
        if self.joining is not None:
            self.take_join()
        elif self.syncing is not None:
            self.take_sync()
        elif self.epoch < 0:
            self.join()
        elif self.report:
            self.report = False
            self.join()  # it has given something up: somebody waits for that
        elif chance.random() < 0.03:
            self.owned = set()
            bench.leave((self.member_id, self.instance), group_id=GROUP)
            self.start()
        else:
            error = bench.heartbeat(self.member_id, self.epoch, group_id=GROUP, instance=self.instance)
            if error is Error.REBALANCE_IN_PROGRESS:
                self.join()
            elif error is not Error.NONE:
                self.lost(forever=True)

    def join(self) -> None:
        fields = {
            "topics": list(self.topics),
            "owned_partitions": [{"topic": topic, "partitions": indexes} for topic, indexes in self.by_topic().items()],
        }
        metadata = struct.pack(">h", 1) + encode_data("consumer_protocol_subscription", 1, fields)
        self.joining = self.sim.bench.join(
            GROUP, self.member_id, instance=self.instance, protocols={"cooperative": metadata}, rebalance=60_000, session=15_000
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
            self.epoch = answer["generation_id"]
            leads = answer.get("leader") == self.member_id and not answer["skip_assignment"]
            assignments = assign(answer["members"], self.sim.bench.topics) if leads else {}
            self.syncing = self.sim.bench.sync(
                self.member_id,
                self.epoch,
                assignments,
                group_id=GROUP,
                instance=self.instance,
                protocol_type="consumer",
                protocol_name="cooperative",
            )
            self.sim.waits.append(self.syncing)
        elif error is not Error.REBALANCE_IN_PROGRESS:
            self.lost(forever=True)

    def take_sync(self) -> None:
        assert self.syncing is not None
        if self.syncing.answer is None:
            return
        answer, self.syncing = self.syncing.answer, None
        error = answer["error_code"]
        if error is Error.REBALANCE_IN_PROGRESS:
            self.join()
        elif error is not Error.NONE:
            self.lost(forever=True)
        elif answer["assignment"]:
            assigned = decode_assignment(answer["assignment"])["assigned_partitions"]
            self.target = {(each["topic"], index) for each in assigned for index in each["partitions"]}
            if self.fenced:
                self.owned &= self.target
                self.fenced = False


def assign(members: list[dict[str, Any]], topics: FakeTopics) -> dict[str, bytes]:
    """What a cooperative leader does: nothing is given that another one still has."""
    subscriptions = {member["member_id"]: decode_subscription(member["metadata"]) for member in members}
    held: dict[Partition, str] = {}
    claimed_twice: set[Partition] = set()
    for member_id, subscription in subscriptions.items():
        for each in subscription["owned_partitions"]:
            for index in each["partitions"]:
                if held.setdefault((each["topic"], index), member_id) != member_id:
                    claimed_twice.add((each["topic"], index))
    wanted: dict[str, dict[str, list[int]]] = {member_id: defaultdict(list) for member_id in subscriptions}
    turn = 0
    for topic in TOPICS:
        takers = [member_id for member_id, subscription in subscriptions.items() if topic in subscription["topics"]]
        count = topics.topics[topic].partition_count if topic in topics.topics else 0
        for index in range(count if takers else 0):
            taker = takers[turn % len(takers)]
            turn += 1
            if held.get((topic, index), taker) == taker and (topic, index) not in claimed_twice:
                wanted[taker][topic].append(index)
    return {
        member_id: encode_assignment(1, [{"topic": topic, "partitions": indexes} for topic, indexes in given.items()])
        for member_id, given in wanted.items()
    }


class Simulation:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counter = 0
        self.bench = Bench(None, FakeTopics(t=4, u=2), initial_rebalance_delay_ms=0, consumer_session_ms=15_000)
        self.waits: list[Waiting] = []
        self.stored: list[tuple[Client, Any]] = []  # who waits for the log, and what to do then
        self.clients = [Client(self, number) for number in range(6)]
        self.epochs: dict[str, int] = {}  # of members, as last seen
        self.group_epoch = 0
        self.seen: set[str] = set()  # which situations came up
        self.errors: set[Error] = set()
        self.taste = 0.4  # how many want to speak the classic protocol; it changes

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def some_topics(self) -> tuple[str, ...]:
        return tuple(self.chance.sample(TOPICS, self.chance.choice([1, 2, 2, 3])))

    def when_stored(self, client: Client, take: Any) -> None:
        if not self.bench.held:
            take(Error.NONE)
            return
        client.busy = True
        self.stored.append((client, take))

    def release(self) -> None:
        bench = self.bench
        ahead = any(result.at_once for result in bench.held)
        bench.failing = self.chance.choice([Error.NONE] * 40 + [Error.KAFKA_STORAGE_ERROR])
        error = bench.failing
        bench.release()
        bench.failing = Error.NONE
        stored, self.stored = self.stored, []
        for client, take in stored:
            client.busy = False
            take(error)
        if error is not Error.NONE and ahead:
            self.restart()  # as the runtime does: what was decided is not so

    def restart(self) -> None:
        self.bench.held.clear()
        for client, take in self.stored:
            client.busy = False
            take(Error.NOT_COORDINATOR)
        self.stored.clear()
        self.bench.shard.unload()
        self.bench = self.bench.restarted(initial_rebalance_delay_ms=0, consumer_session_ms=15_000)
        for waiting in self.waits:
            if waiting.answer is None:
                waiting.answer = {"error_code": Error.NOT_COORDINATOR}
        self.epochs.clear()
        self.group_epoch = 0

    def step(self) -> None:
        chance, bench = self.chance, self.bench
        bench.hold = chance.random() < 0.3
        kind = chance.random()
        client = chance.choice(self.clients)
        if kind < 0.9:
            client.step()
        elif kind < 0.97:
            bench.advance(chance.choice([1, 100, 500, 1_000, 3_000, 5_000]))
        elif kind < 0.975:
            client.start()  # crashes, and comes back
        elif kind < 0.98:
            client.hangs = not client.hangs
        elif kind < 0.985 and not client.busy:
            client.classic = chance.random() < self.taste  # a restart with the protocol of the day
            client.start()
        elif kind < 0.99:
            name = chance.choice(TOPICS)
            known = bench.topics.topics.get(name)
            if known is None or known.partition_count < 8:
                bench.change_topic(name, 1 if known is None else known.partition_count + 1)
        elif kind < 0.993:
            self.restart()
        if self.bench.held and chance.random() < 0.8:
            self.release()
        self.check()

    # -- what must hold -------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        group = self.bench.shard.consumers.groups.get(GROUP)
        classic = self.bench.shard.groups.get(GROUP)
        assert group is None or classic is None
        members = group.members if group is not None else classic.members if classic is not None else {}
        owner: dict[Partition, int] = {}
        for client in self.clients:
            # One that was fenced does not know before it hears of it, even when it asks to be a member again.
            client.fenced |= client.epoch >= 0 and client.member_id not in members
            if client.epoch >= 0 and not client.fenced:
                for partition in client.owned:
                    assert owner.setdefault(partition, client.number) == client.number, partition
        if group is None:
            self.epochs.clear()
            self.group_epoch = 0
            if classic is not None and classic.state is State.STABLE:
                self.seen.add("classic")
            return
        assert group.epoch >= max(self.group_epoch, group.assignment_epoch)
        self.group_epoch = group.epoch
        held: dict[tuple[Any, int], str] = {}
        for member_id, member in group.members.items():
            self.seen |= {member.state.name, "mixed" if 0 < group.classic_members < len(group.members) else "one"}
            if member.epoch > 0:
                assert member.epoch >= self.epochs.get(member_id, 0)
                assert member.epoch <= group.assignment_epoch
                self.epochs[member_id] = member.epoch
            for part in (member.assigned, member.revoking):
                for topic_id, indexes in part.items():
                    for index in indexes:
                        assert held.setdefault((topic_id, index), member_id) == member_id
                        assert group.partition_epoch(topic_id, index) == member.epoch
        assert group.static_members == {m.instance_id: m.member_id for m in group.members.values() if m.instance_id is not None}
        assert set(group.targets) <= set(group.members)

    def settle(self) -> None:
        """Nobody does anything of its own accord any more."""
        self.restart()
        self.bench.hold = False
        assert not self.stored
        for client in self.clients:
            client.hangs = False
            client.classic = False
            client.start()
        quiet = random.Random(1)
        quiet.random = lambda: 0.2  # type: ignore[method-assign] # every client reports, none leaves
        self.chance = quiet
        for _ in range(60):
            for client in self.clients:
                client.step()
                client.step()
            self.bench.advance(5_000)
            self.check()


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTLOG_TEST_SEEDS", "25"))))
def test_simulation(seed: int) -> None:
    sim = Simulation(seed)
    for turn in range(2_000):
        sim.taste = 1.0 if turn // 400 % 2 else 0.1
        if turn % 400 < 120 and turn % 20 == 0:
            sim.clients[turn % 400 // 20].restart(classic=sim.taste == 1.0)
        sim.step()
    sim.settle()
    group = sim.bench.shard.consumers.groups[GROUP]
    assert group.state is GroupState.STABLE
    assert sorted(group.members) == sorted(client.member_id for client in sim.clients)
    for client in sim.clients:
        assert group.members[client.member_id].state is MemberState.STABLE
        mine = {(topic, index) for topic, index in client.owned}
        assert mine == {
            (topic.name, index)
            for topic_id, indexes in group.targets[client.member_id].items()
            if (topic := sim.bench.topics.by_id(topic_id)) is not None
            for index in indexes
        }
    everything = {
        (name, index)
        for name, topic in sim.bench.topics.topics.items()
        if any(name in client.topics for client in sim.clients)
        for index in range(topic.partition_count)
    }
    assert {partition for client in sim.clients for partition in client.owned} == everything
    assert {"mixed", "UNREVOKED_PARTITIONS", "UNRELEASED_PARTITIONS"} <= sim.seen  # it did get somewhere
    assert sim.errors <= {
        Error.FENCED_MEMBER_EPOCH,
        Error.FENCED_INSTANCE_ID,
        Error.UNKNOWN_MEMBER_ID,
        Error.GROUP_ID_NOT_FOUND,
        Error.UNRELEASED_INSTANCE_ID,
        Error.COORDINATOR_NOT_AVAILABLE,
    }
    again = sim.bench.restarted().shard.consumers.groups[GROUP]
    assert (again.members, again.targets, again.epoch) == (group.members, group.targets, group.epoch)
