"""SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups."""

from typing import Any

import pytest

from fastlog.coordinator.classic import State
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import Bench, subscription


def joined(bench: Bench, count: int, **kwargs: Any) -> list[str]:
    """A group at generation 1 that awaits its assignment."""
    ids = [bench.join_twice(**kwargs)[0] for _ in range(count)]
    bench.advance(6_000 if count > 1 else 3_000)
    assert bench.group().state is State.COMPLETING_REBALANCE
    return ids


def test_everybody_gets_the_leaders_assignment() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2)
    early = bench.sync(follower, 1)
    assert early.answer is None
    first = bench.sync(leader, 1, {leader: b"A", follower: b"B"})
    assert (first["assignment"], early["assignment"]) == (b"A", b"B")
    assert (first["protocol_type"], first["protocol_name"]) == ("consumer", "range")
    assert bench.group().state is State.STABLE
    assert bench.sync(follower, 1)["assignment"] == b"B"  # again
    assert bench.metrics.rebalances_completed == 1


def test_the_assignment_is_given_when_the_log_has_it() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2)
    bench.hold = True
    waiting = bench.sync(leader, 1, {leader: b"A"})
    also = bench.sync(follower, 1)
    assert waiting.answer is None
    assert bench.group().state is State.COMPLETING_REBALANCE
    bench.release()
    assert waiting["assignment"] == b"A"
    assert also["assignment"] == b""  # the leader left it out


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (Error.KAFKA_STORAGE_ERROR, Error.NOT_COORDINATOR),
        (Error.NOT_LEADER_OR_FOLLOWER, Error.NOT_COORDINATOR),
        (Error.REQUEST_TIMED_OUT, Error.COORDINATOR_NOT_AVAILABLE),
        (Error.MESSAGE_TOO_LARGE, Error.UNKNOWN_SERVER_ERROR),
        (Error.RECORD_LIST_TOO_LARGE, Error.UNKNOWN_SERVER_ERROR),
    ],
)
def test_an_assignment_that_cannot_be_stored(failure: Error, shown: Error) -> None:
    bench = Bench()
    leader, follower = joined(bench, 2)
    bench.failing = failure
    early = bench.sync(follower, 1)
    waiting = bench.sync(leader, 1, {leader: b"A", follower: b"B"})
    assert (waiting.error, early.error) == (shown, shown)
    assert bench.group().state is State.PREPARING_REBALANCE
    assert bench.log == []
    bench.failing = Error.NONE
    again = [bench.join(member_id=member_id) for member_id in (leader, follower)]
    assert [waiting["generation_id"] for waiting in again] == [2, 2]


def test_a_rebalance_while_the_assignment_is_stored_makes_it_void() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2)
    bench.hold = True
    waiting = bench.sync(leader, 1, {leader: b"A"})
    bench.join(member_id=follower, protocols={"range": subscription("u")})
    assert waiting.error is Error.REBALANCE_IN_PROGRESS
    bench.release()
    assert bench.group().state is State.PREPARING_REBALANCE
    assert bench.group().members[leader].assignment == b""


def test_sync_in_the_wrong_state() -> None:
    bench = Bench()
    assert bench.sync("m", 1).error is Error.UNKNOWN_MEMBER_ID  # no such group
    leader, follower = bench.stable(2)
    assert bench.sync("m", 1).error is Error.UNKNOWN_MEMBER_ID
    assert bench.sync(leader, 0).error is Error.ILLEGAL_GENERATION
    assert bench.sync(leader, 2).error is Error.ILLEGAL_GENERATION
    assert bench.sync(leader, 1, protocol_type="connect").error is Error.INCONSISTENT_GROUP_PROTOCOL
    assert bench.sync(leader, 1, protocol_name="sticky").error is Error.INCONSISTENT_GROUP_PROTOCOL
    assert bench.sync(leader, 1, protocol_type=None, protocol_name=None).error is Error.NONE
    bench.join(member_id=leader)
    assert bench.sync(follower, 1).error is Error.REBALANCE_IN_PROGRESS
    bench.leave(leader, follower)
    assert bench.sync(follower, 1).error is Error.UNKNOWN_MEMBER_ID  # empty


def test_a_second_sync_of_the_same_member_answers_the_first() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2)
    first = bench.sync(follower, 1)
    second = bench.sync(follower, 1)
    assert first.error is Error.REBALANCE_IN_PROGRESS
    bench.sync(leader, 1, {follower: b"B"})
    assert second["assignment"] == b"B"


def test_members_that_do_not_sync_are_removed() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2, session=1_000_000, rebalance=20_000)
    waiting = bench.sync(follower, 1)
    bench.advance(19_999)
    assert waiting.answer is None
    bench.advance(1)  # the leader did not
    assert waiting.error is Error.REBALANCE_IN_PROGRESS
    assert set(bench.group().members) == {follower}
    again = bench.join(member_id=follower)
    assert (again["generation_id"], again["leader"]) == (2, follower)
    assert bench.heartbeat(leader, 1) is Error.UNKNOWN_MEMBER_ID


def test_followers_that_do_not_sync_in_a_stable_group_are_removed() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2, session=1_000_000, rebalance=20_000)
    bench.sync(leader, 1, {leader: b"A", follower: b"B"})
    assert bench.group().state is State.STABLE
    bench.advance(20_000)
    assert set(bench.group().members) == {leader}
    assert bench.group().state is State.PREPARING_REBALANCE


def test_all_synced_in_time_nobody_is_removed() -> None:
    bench = Bench()
    ids = bench.stable(3, session=1_000_000, rebalance=20_000)
    bench.advance(100_000)
    assert set(bench.group().members) == set(ids)


def test_heartbeats_keep_a_member() -> None:
    bench = Bench()
    alive, silent = bench.stable(2, session=10_000)
    bench.advance(9_000)
    assert bench.heartbeat(alive, 1) is Error.NONE
    bench.advance(1_000)
    assert set(bench.group().members) == {alive}
    assert bench.heartbeat(silent, 1) is Error.UNKNOWN_MEMBER_ID
    assert bench.heartbeat(alive, 1) is Error.REBALANCE_IN_PROGRESS
    assert bench.join(member_id=alive)["generation_id"] == 2


def test_heartbeat_errors() -> None:
    bench = Bench()
    assert bench.heartbeat("m", 1) is Error.UNKNOWN_MEMBER_ID
    (member,) = bench.stable(1)
    assert bench.heartbeat("m", 1) is Error.UNKNOWN_MEMBER_ID
    assert bench.heartbeat(member, 0) is Error.ILLEGAL_GENERATION
    assert bench.heartbeat(member, 2) is Error.ILLEGAL_GENERATION
    assert bench.heartbeat(member, 1, instance="i") is Error.UNKNOWN_MEMBER_ID


def test_heartbeats_count_while_the_assignment_is_awaited() -> None:
    bench = Bench()
    leader, follower = joined(bench, 2, session=10_000)
    for _ in range(3):
        bench.advance(9_000)
        assert bench.heartbeat(leader, 1) is Error.NONE
        assert bench.heartbeat(follower, 1) is Error.NONE
    assert len(bench.group().members) == 2


def test_the_last_member_expires_and_the_group_is_empty() -> None:
    bench = Bench()
    bench.stable(1, session=10_000)
    bench.advance(10_000)
    assert bench.group().state is State.EMPTY
    assert bench.group().generation == 2
    assert bench.restarted().group().generation == 2


def test_leaving() -> None:
    bench = Bench()
    first, second = bench.stable(2)
    assert bench.leave(first) == [Error.NONE]
    assert bench.heartbeat(second, 1) is Error.REBALANCE_IN_PROGRESS
    assert bench.join(member_id=second)["leader"] == second
    assert bench.leave(second) == [Error.NONE]
    assert bench.group().state is State.EMPTY
    assert bench.group().protocol is None
    assert bench.group().leader_id is None
    assert bench.metrics.leaves == 2


def test_leaving_together() -> None:
    bench = Bench()
    ids = bench.stable(3)
    assert bench.leave(ids[0], "nobody", ids[2], ids[2]) == [
        Error.NONE,
        Error.UNKNOWN_MEMBER_ID,
        Error.NONE,
        Error.UNKNOWN_MEMBER_ID,
    ]
    assert set(bench.group().members) == {ids[1]}


def test_leaving_a_group_that_is_not_there() -> None:
    assert Bench().leave("m", ("", "i")) == [Error.UNKNOWN_MEMBER_ID, Error.UNKNOWN_MEMBER_ID]


def test_leaving_while_waiting_answers_the_wait() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    waiting = bench.join(member_id=leader)
    bench.leave(leader)
    assert waiting.error is Error.UNKNOWN_MEMBER_ID
    assert bench.join(member_id=follower)["generation_id"] == 2
    new, _ = bench.join_twice()
    assert bench.join(member_id=follower)["generation_id"] == 3
    parked = bench.sync(new, 3)
    bench.leave(new)
    assert parked.error is Error.UNKNOWN_MEMBER_ID


def test_leaving_completes_a_rebalance_that_waited_for_it() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    waiting = bench.join(member_id=leader)
    bench.leave(follower)
    assert waiting["generation_id"] == 2


def test_an_empty_group_is_stored_as_empty() -> None:
    bench = Bench()
    ids = bench.stable(2)
    bench.leave(*ids)
    loaded = bench.restarted().group()
    assert (loaded.state, loaded.generation, loaded.protocol_type) == (State.EMPTY, 2, "consumer")
    assert loaded.state_ms == bench.group().state_ms


def test_a_loaded_group_goes_on() -> None:
    bench = Bench()
    ids = bench.stable(2, session=10_000)
    loaded = bench.restarted()
    assert loaded.group().state is State.STABLE
    assert [loaded.heartbeat(member_id, 1) for member_id in ids] == [Error.NONE, Error.NONE]
    assert loaded.sync(ids[1], 1)["assignment"] == ids[1].encode()
    assert loaded.group().subscribed_topics == {"t"}
    loaded.advance(10_000)
    assert loaded.group().state is State.EMPTY  # nobody went on


def test_unloading_answers_whoever_waits() -> None:
    bench = Bench()
    _leader, follower = joined(bench, 2)
    syncing = bench.sync(follower, 1)
    waiting = bench.join_twice("other")[1]
    bench.shard.unload()
    assert (syncing.error, waiting.error) == (Error.NOT_COORDINATOR, Error.NOT_COORDINATOR)
    assert bench.timers.armed == 0
    assert bench.shard.groups == {}


def test_describe() -> None:
    bench = Bench()
    (member,) = bench.stable(1)
    described = bench.shard.membership.describe("g", 6)
    assert described["group_state"] == "Stable"
    assert (described["protocol_type"], described["protocol_data"]) == ("consumer", "range")
    assert described["members"] == [
        {
            "member_id": member,
            "group_instance_id": None,
            "client_id": "client",
            "client_host": "/127.0.0.1",
            "member_metadata": subscription("t"),
            "member_assignment": member.encode(),
        }
    ]
    bench.join_twice()
    described = bench.shard.membership.describe("g", 6)
    assert (described["group_state"], described["protocol_data"]) == ("PreparingRebalance", "")
    assert [member["member_metadata"] for member in described["members"]] == [b"", b""]


def test_describe_what_is_not_there() -> None:
    bench = Bench()
    assert bench.shard.membership.describe("g", 5) == {"group_id": "g", "group_state": "Dead"}
    described = bench.shard.membership.describe("g", 6)
    assert (described["group_state"], described["error_code"]) == ("Dead", Error.GROUP_ID_NOT_FOUND)
    assert described["error_message"] == "Group g not found."


def test_list() -> None:
    bench = Bench()
    bench.stable(1, "stable")
    bench.commit({("t", 0): 1}, group_id="simple")
    listed = bench.shard.membership.listed(set(), set())
    assert {(group["group_id"], group["group_state"], group["protocol_type"], group["group_type"]) for group in listed} == {
        ("stable", "Stable", "consumer", "classic"),
        ("simple", "Empty", "", "classic"),
    }
    assert [group["group_id"] for group in bench.shard.membership.listed({"stable", "dead"}, set())] == ["stable"]
    assert len(bench.shard.membership.listed(set(), {"classic"})) == 2
    assert bench.shard.membership.listed(set(), {"consumer"}) == []


def test_a_deleted_group_cannot_be_used_until_the_log_has_it() -> None:
    bench = Bench()
    bench.leave(*bench.stable(1))
    bench.hold = True
    result = bench.execute(bench.shard.delete_groups(["g"]))
    assert result.response == {"results": [{"group_id": "g", "error_code": Error.NONE}]}
    assert bench.join().error is Error.COORDINATOR_NOT_AVAILABLE
    with pytest.raises(KafkaError) as failure:
        bench.commit({("t", 0): 1})
    assert failure.value.code is Error.COORDINATOR_NOT_AVAILABLE
    assert bench.heartbeat("m", 1) is Error.COORDINATOR_NOT_AVAILABLE
    bench.release()
    assert "g" not in bench.shard.groups
    bench.hold = False
    assert bench.join().error is Error.MEMBER_ID_REQUIRED  # a new group
