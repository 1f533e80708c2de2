"""JoinGroup and the join phase: member ids, the initial delay, time-outs, protocols, the leader."""

import pytest

from fastlog.coordinator.classic import State
from fastlog.coordinator.operation import Client
from fastlog.protocol.errors import Error
from tests.coordinator.fakes import EPOCH_MS, Bench, Waiting, subscription


def test_a_new_member_gets_its_id_first() -> None:
    bench = Bench()
    first = bench.join(client_id="app")
    assert first.error is Error.MEMBER_ID_REQUIRED
    member_id = first["member_id"]
    assert member_id.startswith("app-")
    assert bench.group().state is State.EMPTY
    second = bench.join(member_id=member_id)
    assert second.answer is None
    assert bench.group().state is State.PREPARING_REBALANCE
    bench.advance(2_999)
    assert second.answer is None
    bench.advance(1)
    assert second.error is Error.NONE
    assert second["generation_id"] == 1
    assert (second["leader"], second["member_id"]) == (member_id, member_id)
    assert (second["protocol_type"], second["protocol_name"]) == ("consumer", "range")
    assert second["members"] == [{"member_id": member_id, "group_instance_id": None, "metadata": subscription("t")}]
    assert second["skip_assignment"] is False
    assert bench.group().state is State.COMPLETING_REBALANCE


@pytest.mark.parametrize("version", [0, 3])
def test_older_versions_join_at_once(version: int) -> None:
    bench = Bench()
    waiting = bench.join(version=version)
    bench.advance(3_000)
    assert waiting.error is Error.NONE


def test_an_unknown_member_id() -> None:
    bench = Bench()
    assert bench.join(member_id="nobody").error is Error.UNKNOWN_MEMBER_ID  # no such group
    bench.stable(1)
    assert bench.join(member_id="nobody").error is Error.UNKNOWN_MEMBER_ID


def test_a_pending_member_expires() -> None:
    bench = Bench()
    member_id = bench.join(session=7_000)["member_id"]
    bench.advance(6_999)
    assert member_id in bench.group().pending_joins
    bench.advance(1)
    assert not bench.group().pending_joins
    assert bench.join(member_id=member_id).error is Error.UNKNOWN_MEMBER_ID


def test_a_rebalance_waits_for_pending_members() -> None:
    bench = Bench()
    (old,) = bench.stable(1)
    pending = bench.join(session=10_000)
    assert pending.error is Error.MEMBER_ID_REQUIRED
    again = bench.join(member_id=old)  # the leader: a rebalance
    assert again.answer is None
    bench.advance(9_999)
    assert again.answer is None
    bench.advance(1)  # the pending member's time is over
    assert again["generation_id"] == 2


def test_a_pending_member_can_leave() -> None:
    bench = Bench()
    (old,) = bench.stable(1)
    pending = bench.join()["member_id"]
    again = bench.join(member_id=old)
    assert bench.leave(pending) == [Error.NONE]
    assert again["generation_id"] == 2


def test_a_pending_member_is_not_static() -> None:
    bench = Bench()
    pending = bench.join()["member_id"]
    assert bench.join(member_id=pending, instance="i").error is Error.UNKNOWN_SERVER_ERROR


def test_the_initial_delay_is_extended_while_members_come_and_ends_with_the_rebalance_timeout() -> None:
    bench = Bench()
    joins = [bench.join_twice(rebalance=10_000)[1]]
    for _ in range(3):  # 3 s, 6 s, 9 s: somebody new within each delay; the last one lasts until 10 s
        bench.advance(2_900)
        joins.append(bench.join_twice(rebalance=10_000)[1])
        assert all(waiting.answer is None for waiting in joins)
        bench.advance(100)
    bench.advance(500)
    joins.append(bench.join_twice(rebalance=10_000)[1])
    bench.advance(499)
    assert all(waiting.answer is None for waiting in joins)
    bench.advance(1)
    assert [waiting["generation_id"] for waiting in joins] == [1] * 5
    assert len(joins[0]["members"]) == 5
    assert all(waiting["members"] == [] for waiting in joins[1:])


def test_without_initial_delay() -> None:
    bench = Bench(initial_rebalance_delay_ms=0)
    _, waiting = bench.join_twice()
    bench.advance(0)
    assert waiting["generation_id"] == 1


def test_a_new_member_in_a_stable_group_starts_a_rebalance() -> None:
    bench = Bench()
    (old,) = bench.stable(1)
    new, waiting = bench.join_twice()
    assert bench.group().state is State.PREPARING_REBALANCE
    assert bench.heartbeat(old, 1) is Error.REBALANCE_IN_PROGRESS
    again = bench.join(member_id=old)
    assert (again["generation_id"], waiting["generation_id"]) == (2, 2)
    assert (again["leader"], waiting["leader"]) == (old, old)
    assert {member["member_id"] for member in again["members"]} == {old, new}
    assert waiting["members"] == []


def test_members_that_do_not_join_again_are_removed() -> None:
    bench = Bench()
    leader, follower = bench.stable(2, session=30_000, rebalance=20_000)
    new, waiting = bench.join_twice(session=30_000, rebalance=20_000)
    bench.advance(19_999)
    assert waiting.answer is None
    again = bench.join(member_id=follower, session=30_000, rebalance=20_000)
    bench.advance(1)
    assert set(bench.group().members) == {follower, new}
    assert waiting["leader"] == again["leader"] == follower  # the leader is gone: another one
    assert len(again["members"]) == 2
    assert bench.heartbeat(leader, 2) is Error.UNKNOWN_MEMBER_ID
    assert bench.metrics.members_expired == 1


def test_the_longest_rebalance_timeout_counts() -> None:
    bench = Bench()
    ids = [bench.join_twice(session=1_000_000, rebalance=timeout)[0] for timeout in (5_000, 50_000)]
    bench.advance(6_000)
    bench.settle(ids, 1)
    _, waiting = bench.join_twice(rebalance=1_000)
    bench.advance(49_999)
    assert waiting.answer is None
    bench.advance(1)
    assert waiting.error is Error.NONE


def test_the_leader_that_joins_again_starts_a_rebalance() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    again = bench.join(member_id=leader)
    assert again.answer is None
    assert bench.heartbeat(follower, 1) is Error.REBALANCE_IN_PROGRESS
    also = bench.join(member_id=follower)
    assert (again["generation_id"], also["generation_id"]) == (2, 2)


def test_a_follower_that_joins_again_with_the_same_metadata_does_not() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    again = bench.join(member_id=follower)
    assert (again.error, again["generation_id"], again["leader"], again["members"]) == (Error.NONE, 1, leader, [])
    assert bench.group().state is State.STABLE


def test_a_follower_with_other_metadata_starts_a_rebalance() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    again = bench.join(member_id=follower, protocols={"range": subscription("t", "u")})
    assert again.answer is None
    bench.join(member_id=leader)
    assert again["generation_id"] == 2
    assert bench.group().subscribed_topics == {"t", "u"}


def test_joining_again_while_the_assignment_is_awaited() -> None:
    bench = Bench()
    first, waiting = bench.join_twice()
    second, _ = bench.join_twice()
    bench.advance(6_000)
    assert waiting["generation_id"] == 1
    # The same metadata: the response may have been lost, so it is given again, to the leader with all members.
    assert len(bench.join(member_id=first)["members"]) == 2
    assert bench.join(member_id=second)["members"] == []
    assert bench.group().state is State.COMPLETING_REBALANCE
    parked = bench.sync(second, 1)
    assert parked.answer is None
    bench.join(member_id=second, protocols={"range": subscription("u")})
    assert bench.group().state is State.PREPARING_REBALANCE
    assert parked.error is Error.REBALANCE_IN_PROGRESS


def test_a_second_join_of_the_same_member_answers_the_first() -> None:
    bench = Bench()
    leader, _ = bench.stable(2)
    first = bench.join(member_id=leader)
    second = bench.join(member_id=leader)
    assert first.error is Error.REBALANCE_IN_PROGRESS
    assert second.answer is None


def test_protocols_are_voted_for() -> None:
    bench = Bench()
    meta = subscription("t")
    preferences = [("range", "sticky"), ("sticky", "range"), ("sticky", "range", "other")]
    joins = [bench.join_twice(protocols=dict.fromkeys(names, meta)) for names in preferences]
    bench.advance(6_000)
    assert {waiting["protocol_name"] for _, waiting in joins} == {"sticky"}


def test_a_protocol_that_not_all_support_is_not_chosen() -> None:
    bench = Bench()
    meta = subscription("t")
    joins = [bench.join_twice(protocols=dict.fromkeys(names, meta)) for names in [("a", "b"), ("a", "b"), ("b",)]]
    bench.advance(6_000)
    assert {waiting["protocol_name"] for _, waiting in joins} == {"b"}


@pytest.mark.parametrize(("protocol_type", "protocols"), [("consumer", {"sticky": b""}), ("connect", {"range": b""}), ("", {"range": b""})])
def test_inconsistent_protocols(protocol_type: str, protocols: dict[str, bytes]) -> None:
    bench = Bench()
    bench.stable(1)
    assert bench.join(protocol_type=protocol_type, protocols=protocols).error is Error.INCONSISTENT_GROUP_PROTOCOL


@pytest.mark.parametrize(("protocol_type", "name"), [("", "range"), ("consumer", None)])
def test_a_first_member_without_protocols(protocol_type: str, name: str | None) -> None:
    bench = Bench()
    request = {
        "group_id": "g", "member_id": "", "group_instance_id": None, "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000,
        "protocol_type": protocol_type, "protocols": [] if name is None else [{"name": name, "metadata": b""}], "reason": None,
    }  # fmt: skip
    waiting = Waiting()
    bench.execute(bench.shard.joining.join(Client(9, "c", "/"), request, waiting))
    assert waiting.error is Error.INCONSISTENT_GROUP_PROTOCOL


def test_group_max_size_in_a_stable_group() -> None:
    bench = Bench(group_size_max=2)
    bench.stable(2)
    refused = bench.join()
    assert (refused.error, refused["member_id"]) == (Error.GROUP_MAX_SIZE_REACHED, "")
    assert len(bench.group().members) == 2


def test_group_max_size_turns_the_last_ones_away_in_a_rebalance() -> None:
    bench = Bench(group_size_max=2)
    ids = [bench.join_twice()[0] for _ in range(2)]
    assert bench.join().error is Error.GROUP_MAX_SIZE_REACHED
    bench.advance(6_000)
    bench.settle(ids, 1)


def test_a_new_member_whose_join_is_not_answered_expires() -> None:
    bench = Bench(new_member_join_ms=5_000)
    bench.stable(1, session=1_000_000, rebalance=900_000)
    _, waiting = bench.join_twice(rebalance=900_000)
    bench.advance(4_999)
    assert waiting.answer is None
    bench.advance(1)
    assert waiting.error is Error.UNKNOWN_MEMBER_ID
    assert len(bench.group().members) == 1


def test_a_member_that_waits_for_a_rebalance_does_not_expire() -> None:
    bench = Bench()
    leader, follower = bench.stable(2, session=10_000, rebalance=100_000)
    again = bench.join(member_id=leader, session=10_000, rebalance=100_000)
    for _ in range(9):
        bench.advance(9_000)
        assert bench.heartbeat(follower, 1) is Error.REBALANCE_IN_PROGRESS
    assert again.answer is None
    assert leader in bench.group().members


def test_an_over_full_group_is_rebalanced_when_loaded() -> None:
    bench = Bench()
    ids = bench.stable(3)
    loaded = bench.restarted(group_size_max=2)
    assert loaded.group().state is State.PREPARING_REBALANCE
    joins = [loaded.join(member_id=member_id) for member_id in ids]
    assert joins[2].error is Error.GROUP_MAX_SIZE_REACHED


def test_the_state_timestamp_is_wall_clock_time() -> None:
    bench = Bench()
    bench.stable(1)
    assert bench.group().state_ms == EPOCH_MS + 3_000


def test_the_subscribed_topics_of_a_group_that_is_no_consumer_are_not_known() -> None:
    bench = Bench()
    bench.stable(1, protocol_type="connect", protocols={"sessioned": b"\x00"})
    assert bench.group().subscribed_topics is None
    assert not bench.group().is_subscribed_to("t")


def test_a_consumer_whose_subscription_cannot_be_read_is_subscribed_to_everything() -> None:
    bench = Bench()
    bench.stable(1, protocols={"range": b"\x00\x00\x00\x00\x00\x05\x00\x63"})
    assert bench.group().subscribed_topics is None
    assert bench.group().is_subscribed_to("anything")
