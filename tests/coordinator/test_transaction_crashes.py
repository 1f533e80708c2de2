"""A broker that dies at any step of a transaction leaves all of it or nothing.

The logs are in memory and outlive the coordinators. Each step that makes something durable (an append to a coordinator's log, a marker)
may be the last one: the process dies before it (the log has it not) or after it (the log has it, nobody was told). Then new coordinators
load the logs; when they have come to rest every partition must have the same end of each transaction, the one that was answered.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.coordinator.operation import Client
from fastlog.coordinator.records import NO_TOPIC_ID
from fastlog.coordinator.transactions.state import PREPARED, State
from fastlog.protocol.errors import Error
from tests.coordinator.fakes import FakeClock, FakeLog, FakeTopics, Message, Outcome, TransactionLog
from tests.coordinator.serving import Served, asynchronous, until

if TYPE_CHECKING:
    from uuid import UUID

TIMEOUT_MS = 60_000
GROUP = "g"


@dataclass
class World:
    """What outlives a process, and when it dies: `left` durable steps from now (None: never). `leak`: the last one is in the log."""

    left: int | None = None
    leak: bool = False
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    data: dict[tuple[UUID, int], list[tuple[Any, ...]]] = field(default_factory=dict)
    """By partition: ("record", producer id, transaction) and ("marker", producer id, committed)."""
    clock: FakeClock = field(default_factory=FakeClock)
    topics: FakeTopics = field(default_factory=lambda: FakeTopics(t=2))
    lives: int = 0

    def __post_init__(self) -> None:
        self.offsets_log = _OffsetsLog(self)
        self.state_log = _StateLog(self)

    async def step(self) -> bool:
        """Whether the step is still taken, though nobody hears of it. Does not return for those behind the last one."""
        if self.dead.is_set():
            await asyncio.Event().wait()
        if self.left is None:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.dead.set()
        return True

    async def die(self) -> None:
        await asyncio.Event().wait()

    def revive(self, left: int | None) -> None:
        self.left = left
        self.dead = asyncio.Event()

    def served(self) -> Served:
        served = Served(self.offsets_log, self.topics, transaction_log=self.state_log, clock=self.clock)
        self.lives += 1
        served.blocks = 100 * self.lives  # of producer ids: none is given out twice
        return served

    def outcomes(self, transaction: int) -> set[bool | None]:
        """How a transaction ended in the partitions that have records of it; None: not yet."""
        found: set[bool | None] = set()
        for entries in self.data.values():
            for at, entry in enumerate(entries):
                if entry[0] == "record" and entry[2] == transaction:
                    ends = (other[2] for other in entries[at:] if other[:2] == ("marker", entry[1]))
                    found.add(next(ends, None))
        return found


class _OffsetsLog(FakeLog):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> Outcome:
        if await self.world.step():
            if self.world.leak:
                await super().append(topic_id, partition, batch)
            await self.world.die()
        return await super().append(topic_id, partition, batch)


class _StateLog(TransactionLog):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> Outcome:
        if await self.world.step():
            if self.world.leak:
                await super().append(topic_id, partition, batch)
            await self.world.die()
        return await super().append(topic_id, partition, batch)

    async def write_txn_marker(self, topic_id: UUID, partition: int, *, producer_id: int, commit: bool, **_: Any) -> Outcome:
        last = await self.world.step()
        if not last or self.world.leak:
            self.world.data.setdefault((topic_id, partition), []).append(("marker", producer_id, commit))
        if last:
            await self.world.die()
        return Outcome(Error.NONE)


@dataclass
class Attempt:
    """A producer's transaction, as far as it got."""

    number: int
    commit: bool
    answered: bool = False


async def transact(world: World, served: Served, name: str, attempt: Attempt, *, bumping: bool, offsets: bool) -> None:
    """A whole transaction; it writes to both partitions of the topic."""
    transactions, topic = served.transactions, world.topics.topics["t"]
    while True:
        given = await transactions.init_producer(name, TIMEOUT_MS, None)
        if given["error_code"] is Error.NONE:
            break
        assert given["error_code"] in {Error.CONCURRENT_TRANSACTIONS, Error.COORDINATOR_LOAD_IN_PROGRESS}, given
        await asyncio.sleep(0.001)
    producer_id, epoch = given["producer_id"], given["producer_epoch"]
    for index in range(2):
        if bumping:
            (error,) = await transactions.check(name, producer_id, epoch, [("t", index)], add=True)
        else:
            error = await transactions.add_partitions(name, producer_id, epoch, [("t", index)], client_version=0)
        assert error is Error.NONE
        world.data.setdefault((topic.topic_id, index), []).append(("record", producer_id, attempt.number))
    if offsets:
        if not bumping:
            assert await transactions.add_offsets(name, producer_id, epoch, GROUP) is Error.NONE
        client = Client(5 if bumping else 4, "client", "/127.0.0.1")
        answer = await served.service.commit_offsets_in_transaction(client, offset_commit(name, producer_id, epoch, attempt.number))
        assert answer["topics"][0]["partitions"][0]["error_code"] is Error.NONE
    ended = await transactions.end_transaction(name, producer_id, epoch, commit=attempt.commit, client_version=2 if bumping else 0)
    assert ended["error_code"] is Error.NONE
    attempt.answered = True


def offset_commit(name: str, producer_id: int, epoch: int, offset: int) -> Message:
    at = {"partition_index": 0, "committed_offset": offset, "committed_leader_epoch": -1, "committed_metadata": ""}
    return {
        "transactional_id": name,
        "group_id": GROUP,
        "producer_id": producer_id,
        "producer_epoch": epoch,
        "generation_id_or_member_epoch": -1,
        "member_id": "",
        "group_instance_id": None,
        "topics": [{"name": "t", "topic_id": NO_TOPIC_ID, "partitions": [at]}],
    }


async def live(world: World, *transactions: Any) -> bool:
    """One life of the coordinators, until the transactions are through and complete, or the process dies; whether it lived."""
    served = world.served()
    await served.start()

    async def work() -> None:
        await asyncio.gather(*(transact(world, served, **each) for each in transactions))
        await until(lambda: at_rest(served))

    working = asyncio.create_task(work())
    dying = asyncio.create_task(world.dead.wait())
    await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
    lived = working.done()
    if lived:
        await working
    await kill(served)
    return lived


async def kill(served: Served) -> None:
    for partitions in (served.service._partitions, served.transactions._partitions):
        partitions._running = False
        if partitions._alarm is not None:
            partitions._alarm.cancel()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def at_rest(served: Served) -> bool:
    runtimes = served.transactions._partitions.runtimes
    return all(
        entry.pending is None and entry.value.state not in PREPARED for runtime in runtimes for entry in runtime.shard.entries.values()
    )


async def recover(world: World) -> Served:
    """New coordinators; what was open has timed out and all is at rest."""
    world.revive(None)
    served = world.served()
    await served.start()
    await until(lambda: not any(each.gauges()["partitions_loading"] for each in (served.service, served.transactions)))
    for _ in range(2):
        await until(lambda: at_rest(served))
        await served.advance(TIMEOUT_MS + 1)
    await until(lambda: at_rest(served))
    entries = [entry for runtime in served.transactions._partitions.runtimes for entry in runtime.shard.entries.values()]
    assert all(entry.value.state is not State.ONGOING for entry in entries)
    return served


async def committed_offset(served: Served) -> int:
    (topic,) = await served.service.fetch_offsets(GROUP, [{"name": "t", "partition_indexes": [0]}], require_stable=True)
    (partition,) = topic["partitions"]
    assert partition["error_code"] is Error.NONE, "nothing is pending any more"
    offset: int = partition["committed_offset"]
    return offset


@pytest.mark.parametrize("offsets", [False, True], ids=["", "offsets"])
@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@pytest.mark.parametrize("bumping", [True, False], ids=["v2", "v1"])
@asynchronous
async def test_a_death_at_every_step(bumping: bool, commit: bool, offsets: bool) -> None:
    for left, leak in itertools.product(range(100), (False, True)):
        world = World(left=left, leak=leak)
        attempt = Attempt(1, commit)
        lived = await live(world, {"name": "x", "attempt": attempt, "bumping": bumping, "offsets": offsets})
        served = await recover(world)
        try:
            outcomes = world.outcomes(1)
            assert len(outcomes) <= 1, f"after {left} steps: {world.data}"
            if attempt.answered:
                assert outcomes == {commit}
            elif not commit:
                assert True not in outcomes
            assert None not in outcomes
            if offsets:
                assert await committed_offset(served) == (1 if outcomes == {True} else -1), f"after {left} steps"
            after = Attempt(2, commit=True)
            await transact(world, served, "x", after, bumping=bumping, offsets=offsets)
            await until(partial(at_rest, served))
            assert world.outcomes(2) == {True}
            assert len(world.outcomes(1)) <= 1
        finally:
            await served.transactions.stop()
            await served.service.stop()
        if lived:
            assert left > 4
            return
    raise AssertionError("it never got through")


@asynchronous
async def test_deaths_by_chance() -> None:
    """Several producers at once, several lives."""
    seed = int(os.environ.get("FASTLOG_TEST_SEED", random.randrange(2**32)))
    print(f"FASTLOG_TEST_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(12):
        world = World(leak=chance.random() < 0.5)
        attempts: list[Attempt] = []
        for _ in range(chance.randint(1, 4)):
            world.revive(chance.randint(0, 40))
            these = [
                {
                    "name": f"x{number}",
                    "attempt": Attempt(len(attempts) + number + 1, chance.random() < 0.7),
                    "bumping": chance.random() < 0.5,
                    "offsets": chance.random() < 0.5,
                }
                for number in range(chance.randint(1, 4))
            ]
            attempts += [each["attempt"] for each in these if isinstance(each["attempt"], Attempt)]
            await live(world, *these)
        served = await recover(world)
        try:
            for attempt in attempts:
                outcomes = world.outcomes(attempt.number)
                assert len(outcomes) <= 1, (attempt, world.data)
                assert None not in outcomes
                if attempt.answered:
                    assert outcomes == {attempt.commit}, (attempt, list(world.data.values()))
            offset = await committed_offset(served)
            assert offset == -1 or world.outcomes(offset) == {True}
        finally:
            await served.transactions.stop()
            await served.service.stop()
