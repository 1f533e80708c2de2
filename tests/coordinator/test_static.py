"""Static members (group.instance.id, KIP-345, KIP-814)."""

from typing import Any

import pytest

from fastlog.coordinator.classic import State
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import Bench, Waiting, subscription


def stable(bench: Bench, *instances: str, **kwargs: Any) -> list[str]:
    """A stable group of static members; the first leads."""
    joins = [bench.join(instance=instance, **kwargs) for instance in instances]
    bench.advance(6_000)
    ids = [waiting["member_id"] for waiting in joins]
    bench.settle(ids, 1)
    return ids


def test_a_static_member_joins_in_one_step() -> None:
    bench = Bench()
    waiting = bench.join(instance="i1")
    assert waiting.answer is None
    bench.advance(3_000)
    assert waiting["member_id"].startswith("i1-")
    assert waiting["members"][0]["group_instance_id"] == "i1"


def test_a_returning_follower_does_not_start_a_rebalance() -> None:
    bench = Bench()
    leader, old = stable(bench, "lead", "follow")
    back = bench.join(instance="follow")
    assert back.error is Error.NONE
    new = back["member_id"]
    assert new != old
    assert (back["generation_id"], back["leader"], back["members"], back["skip_assignment"]) == (1, leader, [], False)
    assert bench.group().state is State.STABLE
    assert bench.sync(new, 1, instance="follow")["assignment"] == old.encode()  # what it had
    assert bench.heartbeat(old, 1, instance="follow") is Error.FENCED_INSTANCE_ID
    assert bench.heartbeat(new, 1, instance="follow") is Error.NONE
    assert set(bench.restarted().group().members) == {leader, new}


def test_a_returning_leader_keeps_the_assignment() -> None:
    bench = Bench()
    old, follower = stable(bench, "lead", "follow")
    back = bench.join(instance="lead")
    new = back["member_id"]
    assert (back["leader"], back["skip_assignment"]) == (new, True)
    assert {member["member_id"] for member in back["members"]} == {new, follower}
    assert bench.group().is_leader(new)
    assert bench.sync(new, 1, instance="lead")["assignment"] == old.encode()


@pytest.mark.parametrize("version", [5, 8])
def test_a_returning_leader_that_can_not_skip_is_told_of_the_leader_before(version: int) -> None:
    bench = Bench()
    old, _ = stable(bench, "lead", "follow")
    back = bench.join(instance="lead", version=version)
    assert (back["leader"], back["members"], back["skip_assignment"]) == (old, [], False)
    assert back["member_id"] != old


def test_it_is_answered_when_the_log_has_it() -> None:
    bench = Bench()
    stable(bench, "lead", "follow")
    bench.hold = True
    back = bench.join(instance="follow")
    assert back.answer is None
    bench.release()
    assert back.error is Error.NONE


def test_a_failed_append_restores_the_old_member_id() -> None:
    bench = Bench()
    leader, old = stable(bench, "lead", "follow", session=20_000)
    bench.failing = Error.KAFKA_STORAGE_ERROR
    back = bench.join(instance="follow", protocols={"range": subscription("u")}, session=7_000)
    assert (back.error, back["member_id"]) == (Error.NOT_COORDINATOR, "")
    group = bench.group()
    assert set(group.members) == {leader, old}
    assert group.static_members == {"lead": leader, "follow": old}
    assert group.members[old].protocols == [("range", subscription("t"))]
    assert group.members[old].session_timeout_ms == 20_000
    assert group.awaiting_joins == 0
    assert bench.heartbeat(old, 1, instance="follow") is Error.NONE


def test_a_rebalance_meanwhile_answers_it() -> None:
    bench = Bench()
    leader, _ = stable(bench, "lead", "follow")
    bench.hold = True
    back = bench.join(instance="follow")
    again = bench.join(member_id=leader, instance="lead")
    assert back["generation_id"] == again["generation_id"] == 2
    bench.release()
    assert bench.group().state is State.COMPLETING_REBALANCE


def test_leaving_meanwhile() -> None:
    bench = Bench()
    stable(bench, "lead", "follow")
    bench.hold = True
    back = bench.join(instance="follow")
    assert bench.leave(("", "follow")) == [Error.NONE]
    assert back.error is Error.UNKNOWN_MEMBER_ID
    bench.release()
    assert set(bench.group().static_members) == {"lead"}


def test_a_change_of_the_chosen_protocol_starts_a_rebalance() -> None:
    bench = Bench()
    both = {"range": subscription("t"), "sticky": subscription("t")}
    (old,) = stable(bench, "lead", protocols=both)
    back = bench.join(instance="lead", protocols={"sticky": subscription("t")})
    assert back.error is Error.NONE
    assert (back["generation_id"], back["protocol_name"]) == (2, "sticky")
    assert old not in bench.group().members


def test_returning_while_the_assignment_is_awaited_starts_a_rebalance() -> None:
    bench = Bench()
    joins = [bench.join(instance=instance) for instance in ("lead", "follow")]
    bench.advance(6_000)
    parked = bench.sync(joins[1]["member_id"], 1, instance="follow")
    back = bench.join(instance="follow")
    assert parked.error is Error.FENCED_INSTANCE_ID
    assert back.answer is None
    assert bench.group().state is State.PREPARING_REBALANCE
    again = bench.join(member_id=joins[0]["member_id"], instance="lead")
    assert (again["generation_id"], back["generation_id"]) == (2, 2)


def test_returning_during_the_join_phase_fences_the_one_before() -> None:
    bench = Bench()
    first = bench.join(instance="i")
    second = bench.join(instance="i")
    assert first.error is Error.FENCED_INSTANCE_ID
    bench.advance(3_000)
    assert second["generation_id"] == 1
    assert len(bench.group().members) == 1


def test_fencing() -> None:
    bench = Bench()
    leader, old = stable(bench, "lead", "follow")
    new = bench.join(instance="follow")["member_id"]
    assert bench.join(member_id=old, instance="follow").error is Error.FENCED_INSTANCE_ID
    assert bench.sync(old, 1, instance="follow").error is Error.FENCED_INSTANCE_ID
    with pytest.raises(KafkaError) as failure:
        bench.commit({("t", 0): 1}, old, 1, instance="follow")
    assert failure.value.code is Error.FENCED_INSTANCE_ID
    assert bench.leave((old, "follow")) == [Error.FENCED_INSTANCE_ID]
    assert bench.heartbeat(old, 1) is Error.UNKNOWN_MEMBER_ID
    assert bench.join(member_id=leader, instance="nobody").error is Error.UNKNOWN_MEMBER_ID
    assert bench.heartbeat(new, 1, instance="lead") is Error.FENCED_INSTANCE_ID


def test_removal_by_instance_id() -> None:
    bench = Bench()
    leader, _ = stable(bench, "lead", "follow")
    assert bench.leave(("", "follow"), ("", "nobody"), ("", None)) == [Error.NONE, Error.UNKNOWN_MEMBER_ID, Error.UNKNOWN_MEMBER_ID]
    assert bench.heartbeat(leader, 1, instance="lead") is Error.REBALANCE_IN_PROGRESS


def test_a_static_member_that_does_not_join_again_stays_until_its_session_ends() -> None:
    bench = Bench()
    leader, absent = stable(bench, "lead", "absent", session=100_000, rebalance=20_000)
    again = bench.join(member_id=leader, instance="lead", session=100_000, rebalance=20_000)
    bench.advance(20_000)
    assert again["generation_id"] == 2
    assert set(bench.group().members) == {leader, absent}
    assert {member["member_id"] for member in again["members"]} == {leader, absent}


def test_when_only_absent_static_members_are_left_the_rebalance_waits_for_their_sessions() -> None:
    bench = Bench()
    leader, follower = stable(bench, "lead", "follow", session=50_000, rebalance=20_000)
    new, waiting = bench.join_twice(session=50_000, rebalance=20_000)
    bench.leave(new)
    assert waiting.error is Error.UNKNOWN_MEMBER_ID
    bench.advance(20_000)
    assert bench.group().state is State.PREPARING_REBALANCE  # nobody joined
    assert set(bench.group().members) == {leader, follower}
    bench.advance(30_000)
    assert bench.group().state is State.EMPTY


def test_the_old_members_timer_does_not_touch_the_new_one() -> None:
    bench = Bench()
    stable(bench, "lead", "follow", session=10_000)
    bench.advance(5_000)
    new = bench.join(instance="follow", session=10_000)["member_id"]
    bench.advance(5_000)  # the old one's session would end here; the leader's does
    assert set(bench.group().members) == {new}


def test_a_fenced_waiting_member_is_answered_once() -> None:
    bench = Bench()
    waits: list[Waiting] = [bench.join(instance="i") for _ in range(5)]
    assert [waiting.error for waiting in waits[:4]] == [Error.FENCED_INSTANCE_ID] * 4
    bench.advance(3_000)
    assert waits[4].error is Error.NONE
