"""Answers to heartbeats that stand: given until anything changes that they depend on, and what sessions make of them.

That no answer stands too long is what the simulations show too: `Bench` gives answers again as the data plane does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastlog.coordinator.operation import Client
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import Bench, FakeTopics
from tests.coordinator.serving import Served, asynchronous

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from fastlog.coordinator.ports import StandingAnswer


def classic(size: int = 2) -> tuple[Bench, str]:
    """Members in a stable group; an answer to the first one's heartbeat stands."""
    b = Bench()
    member, *_ = b.stable(size, session=10_000)
    assert b.heartbeat(member, 1) is Error.NONE
    assert [standing.valid for standing in b.standings] == [True]
    return b, member


def other_of(b: Bench, member: str) -> str:
    return next(other for other in b.group().members if other != member)


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda b, _: b.join_twice(), Error.REBALANCE_IN_PROGRESS),
        (lambda b, _: b.join(member_id=b.group().leader_id or ""), Error.REBALANCE_IN_PROGRESS),
        (lambda b, member: b.leave(other_of(b, member)), Error.REBALANCE_IN_PROGRESS),
        (lambda b, member: b.leave(member), Error.UNKNOWN_MEMBER_ID),
        (lambda b, _: b.advance(10_000), Error.UNKNOWN_MEMBER_ID),
        (lambda b, _: b.shard.unload(), Error.UNKNOWN_MEMBER_ID),
    ],
    ids=["a join", "the leader's join", "a leave", "its leave", "sessions end", "unloading"],
)
def test_what_ends_the_answer_to_a_classic_member(change: Callable[[Bench, str], object], after: Error) -> None:
    b, member = classic()
    change(b, member)
    assert not any(standing.valid for standing in b.standings)
    assert b.heartbeat(member, 1) is after


def test_a_static_member_that_was_replaced_is_fenced() -> None:
    b = Bench()
    waiting = [b.join(instance=name) for name in ("lead", "follow")]
    b.advance(6_000)
    leader, old = (each["member_id"] for each in waiting)
    b.settle([leader, old], 1)
    assert b.heartbeat(old, 1, instance="follow") is Error.NONE
    assert b.heartbeat(leader, 1, instance="lead") is Error.NONE
    b.join(instance="follow")
    assert [standing.valid for standing in b.standings] == [False, True]  # its own answer only
    assert b.heartbeat(old, 1, instance="follow") is Error.FENCED_INSTANCE_ID


def test_no_answer_stands_while_a_group_forms() -> None:
    b = Bench()
    joins = [b.join_twice() for _ in range(2)]
    b.advance(6_000)
    for member, _ in joins:
        assert b.heartbeat(member, 1) is Error.NONE
    assert not b.standings


def test_a_deleted_group_knows_nobody() -> None:
    b = Bench()
    (member,) = b.stable(1)
    b.hold = True
    assert b.heartbeat(member, 1) is Error.NONE
    b.leave(member)
    b.execute(b.shard.delete_groups(["g"]))
    assert b.heartbeat(member, 1) is Error.COORDINATOR_NOT_AVAILABLE


def consumer(**settings: int) -> Bench:
    """Two members of the consumer protocol in a group at rest; an answer to each one's heartbeat stands."""
    b = Bench(None, FakeTopics(t=2, u=2), consumer_assignment_interval_ms=0, **settings)
    b.beat("a", 0, "t")
    b.beat("b", 0, "t")
    for _ in range(3):
        for member_id in ("a", "b"):
            epoch = b.shard.consumers.groups["c"].members[member_id].epoch
            given = b.assigned(b.beat(member_id, epoch))
            if given is not None:
                b.beat(member_id, b.shard.consumers.groups["c"].members[member_id].epoch, owned=given)
    b.advance(5_000)
    assert not b.standings  # members are asked for more heartbeats until now
    for member_id in ("a", "b"):
        b.beat(member_id, 3)
    assert [standing.valid for standing in b.standings] == [True, True]
    return b


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.beat("x", 0, "t"),
        lambda b: b.beat("b", -1),
        lambda b: b.beat("b", 3, "t", "u"),
        lambda b: b.advance(45_000),
        lambda b: b.change_topic("t", 3),
        lambda b: b.shard.consumers.on_settings_change(),
        lambda b: b.shard.unload(),
    ],
    ids=["a join", "a leave", "a subscription", "sessions end", "a topic grows", "settings change", "unloading"],
)
def test_what_ends_answers_to_consumers(change: Callable[[Bench], object]) -> None:
    b = consumer()
    change(b)
    assert not any(standing.valid for standing in b.standings)


def test_a_topic_of_no_concern_ends_nothing() -> None:
    b = consumer()
    b.change_topic("u", 3)
    b.change_topic("new", 1)
    assert all(standing.valid for standing in b.standings)


def test_consumers_with_news_get_no_answer_that_stands() -> None:
    b = consumer()
    before = len(b.standings)
    b.beat("a", 3, owned={"t": [0]})
    b.beat("a", 3, rebalance=60_000)
    with pytest.raises(KafkaError):
        b.beat("a", 2)
    assert len(b.standings) == before


@pytest.mark.parametrize("kind", ["classic", "consumer"])
def test_a_session_lasts_as_long_as_answers_are_given(kind: str) -> None:
    """Ten sessions long its answer is given without the coordinator; then it falls silent, and its session ends when it has to."""
    if kind == "classic":
        b, member = classic(1)
        session_ms = 10_000
        members: Container[str] = b.group().members
    else:
        b, member = consumer(), "a"
        session_ms, members = 45_000, b.shard.consumers.groups["c"].members
    for _ in range(20):
        b.advance(session_ms // 2)
        for standing in b.standings:
            if standing.valid:
                standing.seen_ms = b.clock.monotonic_ms()
    assert member in members
    b.advance(session_ms - 1)
    assert member in members
    b.advance(1)
    assert member not in members


def test_a_session_goes_on_from_the_last_answer_when_it_is_revoked() -> None:
    b, member = classic()
    b.advance(7_000)
    b.standings[0].seen_ms = b.clock.monotonic_ms()
    other = other_of(b, member)
    assert b.heartbeat(other, 1) is Error.NONE
    b.join_twice(session=10_000)  # all are to join again
    assert not b.standings[0].valid
    b.advance(9_999)
    assert member in b.group().members
    b.advance(1)
    assert member not in b.group().members
    assert b.metrics.members_expired >= 1


def test_only_the_newest_answer_stands() -> None:
    """A member that comes on another connection: what stood on the first is of no use any more."""
    b, member = classic()
    asked = {"group_id": "g", "generation_id": 1, "member_id": member, "group_instance_id": None}
    assert b.shard.heartbeat(asked) is Error.NONE
    b.shard.stand(asked)
    assert [standing.valid for standing in b.standings] == [False, True]


@asynchronous
async def test_the_service_gives_them_to_who_can_use_them() -> None:
    async with Served() as served:
        await served.loaded()
        member = await served.stable()
        asked = {"group_id": "g", "generation_id": 1, "member_id": member, "group_instance_id": None}
        given: list[StandingAnswer] = []
        assert (await served.service.heartbeat(asked, given.append))["error_code"] is Error.NONE
        assert len(given) == 1
        assert (await served.service.heartbeat(asked | {"generation_id": 2}, given.append))["error_code"] is Error.ILLEGAL_GENERATION
        await served.service.heartbeat(asked)
        joined = await served.beat("m", 0)
        quiet = {
            "group_id": "c",
            "member_id": "m",
            "member_epoch": joined["member_epoch"],
            "instance_id": None,
            "rack_id": None,
            "rebalance_timeout_ms": -1,
            "subscribed_topic_names": None,
            "subscribed_topic_regex": None,
            "server_assignor": None,
            "topic_partitions": None,
        }
        for _ in range(2):  # the first one compares the topics with what was known of them
            await served.service.consumer_group_heartbeat(Client(1, "client", "/127.0.0.1"), quiet, given.append)
        assert len(given) == 2
        await served.service.on_settings_change()
        assert [getattr(answer, "valid", None) for answer in given] == [True, False]  # a classic group has none
