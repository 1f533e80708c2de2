"""Large groups and many groups over real connections, one for each member, and heartbeats that the data plane answers by itself."""

from __future__ import annotations

import selectors
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from tests.coordinator.test_wire import Wire, join_request
from tests.support.metrics import total
from tests.support.peer import create_topic
from tests.support.process import free_port, raise_descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from tests.conftest import Start
    from tests.support.process import Broker

pytestmark = [pytest.mark.timeout(600), pytest.mark.one_engine]

SIZES = [40, pytest.param(1_000, marks=pytest.mark.long)]
SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "group.consumer.min.heartbeat.interval.ms": "300",
    "group.consumer.heartbeat.interval.ms": "300",
    "fastlog.group.consumer.settling.heartbeat.interval.ms": "300",
}
CLASSIC: dict[str, Any] = {"session_timeout_ms": 120_000, "rebalance_timeout_ms": 120_000}


@pytest.fixture
def metrics() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def broker(start_broker: Start, engine: str, metrics: str) -> Broker:
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    return start_broker(io=engine, args=["--metrics", metrics, *settings])


@pytest.fixture
def connect(broker: Broker) -> Iterator[Any]:
    """connect(count): so many connections, closed after the test."""
    raise_descriptor_limit()
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(Wire(broker.bootstrap)) for _ in range(count)]


def stood(metrics: str) -> float:
    """Requests that the data plane has answered because their answers stood."""
    return total(metrics, "fastlog_standing_answers_total")


def ready(wire: Wire, group: str) -> None:
    """Waits for the group's partition to be loaded, as clients do."""
    while wire.ask("FindCoordinator", 4, {"coordinator_keys": [group]})["coordinators"][0]["error_code"]:
        pass
    while wire.heartbeat(group, "nobody", 1) is not Error.UNKNOWN_MEMBER_ID:
        pass


def all_ask(wires: list[Wire], name: str, version: int, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each connection's request, all of them under way together; the answers."""
    for wire, request in zip(wires, requests, strict=True):
        wire.send(name, version, request)
    return [wire.receive() for wire in wires]


class Member:
    """A member of a classic group, as clients are that."""

    def __init__(self, wire: Wire, group: str) -> None:
        self.wire = wire
        self.group = group
        self.member_id = ""
        self.generation = -1
        self.assignment: bytes | None = None
        self.asked = ""

    def ask(self, name: str, version: int, **request: Any) -> None:
        self.asked = name
        self.wire.send(name, version, {"group_id": self.group, "member_id": self.member_id} | request)

    def join(self) -> None:
        self.assignment = None
        self.ask("JoinGroup", 9, **join_request(self.group, self.member_id, **CLASSIC))

    def heartbeat(self) -> None:
        self.ask("Heartbeat", 4, generation_id=self.generation)

    def take(self) -> bool:
        """Takes an answer, and goes on. Whether that was a heartbeat's and nothing has changed."""
        answer = self.wire.receive()
        asked, error, self.asked = self.asked, Error(answer["error_code"]), ""
        if error is Error.MEMBER_ID_REQUIRED:
            self.member_id = answer["member_id"]
            self.join()
        elif error in {Error.REBALANCE_IN_PROGRESS, Error.ILLEGAL_GENERATION}:
            self.join()
        else:
            assert error is Error.NONE, (asked, error)
            if asked == "JoinGroup":
                self.generation = answer["generation_id"]
                given = [{"member_id": each["member_id"], "assignment": each["member_id"].encode()} for each in answer["members"]]
                named = {"protocol_type": answer["protocol_type"], "protocol_name": answer["protocol_name"]}
                self.ask("SyncGroup", 5, generation_id=self.generation, assignments=given, **named)
            elif asked == "SyncGroup":
                self.assignment = answer["assignment"]
            return asked == "Heartbeat"
        return False


def all_join(wires: list[Wire], groups: list[str]) -> tuple[list[str], list[int]]:
    """Member ids and generations, each in a group that has come to rest."""
    members = [Member(wire, group) for wire, group in zip(wires, groups, strict=True)]
    waiting = selectors.DefaultSelector()
    for member in members:
        waiting.register(member.wire.socket, selectors.EVENT_READ, member)
        member.join()
    good = 0  # heartbeats since all have what their group gave them
    while good < len(members):
        answered = waiting.select(0.05)
        for key, _ in answered:
            good += key.data.take()
        if any(member.assignment is None for member in members):
            good = 0
        if not answered and not any(member.asked for member in members):
            good = 0
        if not answered:
            for member in members:
                if member.assignment is not None and not member.asked:
                    member.heartbeat()
    waiting.close()
    assert [member.assignment for member in members] == [member.member_id.encode() for member in members]
    return [member.member_id for member in members], [member.generation for member in members]


def heartbeats(groups: list[str], ids: list[str], generations: list[int]) -> list[dict[str, Any]]:
    return [
        {"group_id": group, "generation_id": generation, "member_id": member_id, "group_instance_id": None}
        for group, member_id, generation in zip(groups, ids, generations, strict=True)
    ]


def errors(answers: list[dict[str, Any]]) -> set[Error]:
    return {Error(answer["error_code"]) for answer in answers}


@pytest.mark.parametrize("size", SIZES)
def test_a_large_classic_group(metrics: str, connect: Any, fresh_name: str, size: int) -> None:
    (admin,) = connect(1)
    ready(admin, fresh_name)
    wires, groups = connect(size), [fresh_name] * size
    ids, generations = all_join(wires, groups)
    beats = heartbeats(groups, ids, generations)
    assert errors(all_ask(wires, "Heartbeat", 4, beats)) == {Error.NONE}
    before = stood(metrics)
    for _ in range(3):
        assert errors(all_ask(wires, "Heartbeat", 4, beats)) == {Error.NONE}
    assert stood(metrics) - before == 3 * size
    assert admin.leave(fresh_name, (ids[-1], None)) == [Error.NONE]
    answers = all_ask(wires, "Heartbeat", 4, beats)
    assert errors(answers[:-1]) == {Error.REBALANCE_IN_PROGRESS}
    assert errors(answers[-1:]) == {Error.UNKNOWN_MEMBER_ID}
    assert stood(metrics) - before == 3 * size


@pytest.mark.parametrize("size", SIZES)
def test_many_classic_groups(broker: Broker, connect: Any, fresh_name: str, size: int) -> None:
    """A member each, which commits and is found again after a restart."""
    (admin,) = connect(1)
    create_topic(broker.bootstrap, f"{fresh_name}-topic")
    wires, groups = connect(size), [f"{fresh_name}-{i}" for i in range(size)]
    for group in groups:
        ready(admin, group)
    ids, generations = all_join(wires, groups)
    beats = heartbeats(groups, ids, generations)
    for _ in range(2):
        assert errors(all_ask(wires, "Heartbeat", 4, beats)) == {Error.NONE}
    commits = [
        {
            "group_id": group,
            "generation_id_or_member_epoch": 1,
            "member_id": member_id,
            "topics": [
                {"name": f"{fresh_name}-topic", "partitions": [{"partition_index": 0, "committed_offset": i, "committed_metadata": ""}]}
            ],
        }
        for i, (group, member_id) in enumerate(zip(groups, ids, strict=True))
    ]
    for answer in all_ask(wires, "OffsetCommit", 9, commits):
        assert answer["topics"][0]["partitions"][0]["error_code"] == Error.NONE
    assert len([each for each in admin.ask("ListGroups", 5, {})["groups"] if each["group_id"].startswith(fresh_name)]) == size
    broker.kill()
    broker.start()
    with Wire(broker.bootstrap) as again:
        for i, group in enumerate(groups):
            ready(again, group)
            assert again.fetch(group, f"{fresh_name}-topic") == i
            # The group is as it was, its members too.
            assert again.heartbeat(group, ids[i], 1) is Error.NONE


class Consumer:
    """A member of the consumer protocol that stops reading what it has to at once."""

    def __init__(self, group: str, number: int, topic: str) -> None:
        self.group = group
        self.member_id = f"member-{number}"
        self.topic = topic
        self.epoch = 0
        self.owned: list[dict[str, Any]] = []
        self.report = False

    def request(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"group_id": self.group, "member_id": self.member_id, "member_epoch": self.epoch}
        if not self.epoch:
            asked |= {"rebalance_timeout_ms": 120_000, "subscribed_topic_names": [self.topic], "topic_partitions": []}
        elif self.report:
            asked |= {"topic_partitions": self.owned}
        return asked

    def take(self, answer: dict[str, Any]) -> None:
        assert answer["error_code"] == Error.NONE, answer
        self.report = answer["assignment"] is not None
        if answer["assignment"] is not None:
            self.owned = [
                {"topic_id": each["topic_id"], "partitions": each["partitions"]} for each in answer["assignment"]["topic_partitions"]
            ]
        self.epoch = answer["member_epoch"]

    @property
    def partitions(self) -> list[tuple[UUID, int]]:
        return [(each["topic_id"], index) for each in self.owned for index in each["partitions"]]


@pytest.mark.parametrize("size", SIZES)
def test_a_large_consumer_group(broker: Broker, metrics: str, connect: Any, fresh_name: str, size: int) -> None:
    (admin,) = connect(1)
    create_topic(broker.bootstrap, fresh_name, size)
    ready(admin, fresh_name)
    wires = connect(size)
    members = [Consumer(fresh_name, number, fresh_name) for number in range(size)]
    asked = 0.0
    while True:
        before = stood(metrics)
        answers = all_ask(wires, "ConsumerGroupHeartbeat", 1, [member.request() for member in members])
        for member, answer in zip(members, answers, strict=True):
            member.take(answer)
        asked = stood(metrics) - before
        shares = [len(member.partitions) for member in members]
        if asked == size:  # nobody has anything to say or to be told
            break
        time.sleep(0.1)
    assert shares == [1] * size
    assert len({partition for member in members for partition in member.partitions}) == size
    assert len({member.epoch for member in members}) == 1
    # One leaves, and another one is given what it had.
    gone, gone_wire = members.pop(), wires.pop()
    left = gone_wire.ask("ConsumerGroupHeartbeat", 1, {"group_id": fresh_name, "member_id": gone.member_id, "member_epoch": -1})
    assert left["error_code"] == Error.NONE
    while sum(len(member.partitions) for member in members) < size:
        for member, answer in zip(
            members, all_ask(wires, "ConsumerGroupHeartbeat", 1, [member.request() for member in members]), strict=True
        ):
            member.take(answer)
        time.sleep(0.1)
    assert len({partition for member in members for partition in member.partitions}) == size


def test_a_session_that_the_data_plane_keeps_alive(metrics: str, connect: Any, fresh_name: str) -> None:
    """Its heartbeats are answered without the coordinator for longer than its session lasts; when they end, so does the session."""
    wire, admin = connect(2)
    session_s = 1.5
    while True:
        group = f"{fresh_name}-{time.monotonic_ns()}"
        ready(admin, group)
        member, _ = wire.enter(group, session_timeout_ms=int(session_s * 1000))
        wire.sync(group, member, 1, {member: b"mine"})
        assert wire.heartbeat(group, member, 1) is Error.NONE
        before, beats = stood(metrics), 0
        began = last = time.monotonic()
        longest = 0.0
        while last - began < 1.6 * session_s and longest < session_s / 2:
            time.sleep(0.1)
            answered = wire.heartbeat(group, member, 1)
            beats += 1
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        if longest < session_s / 2:  # else the machine stood still, which says nothing
            break
    assert answered is Error.NONE
    assert stood(metrics) - before == beats
    deadline = time.monotonic() + 60
    while admin.state(group) != "Empty":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert time.monotonic() - last > 0.9 * session_s
    assert wire.heartbeat(group, member, 1) is Error.UNKNOWN_MEMBER_ID
