"""Consumer groups (KIP-848): joining, reconciliation, leaving, fencing, time-outs, topics that change, offsets."""

from __future__ import annotations

from typing import Any

import pytest

from fastlog.coordinator.consumer_group import GroupState, MemberState
from fastlog.coordinator.records import ConsumerKind, ConsumerRecord, decode
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import Bench, FakeTopics


def bench(**settings: Any) -> Bench:
    return Bench(None, FakeTopics(t=6, u=3), **settings)


def state(b: Bench, member_id: str, group_id: str = "c") -> MemberState:
    return b.shard.consumers.groups[group_id].members[member_id].state


def refused(b: Bench, *args: Any, **kwargs: Any) -> Error:
    with pytest.raises(KafkaError) as failure:
        b.beat(*args, **kwargs)
    return failure.value.code


def test_the_first_member_gets_everything_at_once() -> None:
    b = bench()
    answer = b.beat("a", 0, "t", "u")
    assert (answer["member_id"], answer["member_epoch"], answer["heartbeat_interval_ms"]) == ("a", 2, 5000)
    assert b.assigned(answer) == {"t": [0, 1, 2, 3, 4, 5], "u": [0, 1, 2]}
    assert b.shard.consumers.groups["c"].state is GroupState.STABLE
    assert b.assigned(b.beat("a", 2)) is None  # nothing new


def test_a_member_gives_up_before_another_is_given() -> None:
    b = bench()
    b.beat("a", 0, "t")
    b.advance(1_000)
    second = b.beat("b", 0, "t")
    assert (second["member_epoch"], b.assigned(second)) == (3, {})
    assert state(b, "b") is MemberState.UNRELEASED_PARTITIONS
    first = b.beat("a", 2)
    kept = b.assigned(first)
    assert first["member_epoch"] == 2  # not before it has let go
    assert kept is not None
    assert len(kept["t"]) == 3
    assert state(b, "a") is MemberState.UNREVOKED_PARTITIONS
    assert b.assigned(b.beat("b", 3)) is None
    assert b.beat("a", 2, owned=kept)["member_epoch"] == 3
    assert state(b, "a") is MemberState.STABLE
    given = b.assigned(b.beat("b", 3))
    assert given is not None
    assert sorted(kept["t"] + given["t"]) == [0, 1, 2, 3, 4, 5]
    assert b.shard.consumers.groups["c"].state is GroupState.STABLE


def test_heartbeats_are_asked_for_more_often_until_the_group_has_come_to_rest() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    assert b.beat("a", 0, "t")["heartbeat_interval_ms"] == 5_000
    assert b.beat("b", 0, "t")["heartbeat_interval_ms"] == 1_000
    answer = b.beat("a", 2)
    assert answer["heartbeat_interval_ms"] == 1_000
    assert b.beat("a", 2, owned=b.assigned(answer))["heartbeat_interval_ms"] == 1_000
    b.advance(5_000)
    assert b.beat("a", 3)["heartbeat_interval_ms"] == 5_000
    assert b.beat("b", 3)["heartbeat_interval_ms"] == 5_000


def test_target_assignments_are_not_made_more_often_than_their_interval() -> None:
    b = bench()
    b.beat("a", 0, "t")
    second = b.beat("b", 0, "t")
    assert b.assigned(second) == {}
    assert b.shard.consumers.describe("c")["group_state"] == "Assigning"
    b.advance(1_000)
    b.beat("b", second["member_epoch"])
    assert b.shard.consumers.describe("c")["group_state"] == "Reconciling"


def test_one_that_does_not_give_up_in_time_is_out() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t", rebalance=20_000)
    b.beat("b", 0, "t")
    b.beat("a", 2)
    for _ in range(4):
        b.advance(4_500)
        b.beat("a", 2)  # it is alive, and that is all
        b.beat("b", 3)
    b.advance(2_000)
    assert refused(b, "a", 2) is Error.UNKNOWN_MEMBER_ID
    assert b.assigned(b.beat("b", 3)) == {"t": [0, 1, 2, 3, 4, 5]}


def test_silence_ends_a_session() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t")
    b.advance(44_999)
    b.beat("a", 2)
    b.advance(44_999)
    assert b.shard.consumers.groups["c"].members
    b.advance(1)
    assert not b.shard.consumers.groups["c"].members
    assert b.shard.consumers.groups["c"].state is GroupState.EMPTY
    assert b.timers.armed == 0


def test_epochs_fence() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    assert refused(b, "a", 1) is Error.GROUP_ID_NOT_FOUND
    b.beat("a", 0, "t")
    assert refused(b, "a", 3) is Error.FENCED_MEMBER_EPOCH
    assert refused(b, "b", 1) is Error.UNKNOWN_MEMBER_ID
    b.beat("b", 0, "u")
    assert b.beat("a", 2)["member_epoch"] == 3
    # The answer was lost: the epoch before is good enough for one that says that it owns no more than it should.
    assert refused(b, "a", 2) is Error.FENCED_MEMBER_EPOCH
    assert b.beat("a", 2, owned={"t": [0]})["member_epoch"] == 3
    assert refused(b, "a", 2, owned={"u": [0]}) is Error.FENCED_MEMBER_EPOCH
    assert b.beat("a", 0, "t")["member_epoch"] == 3  # it may always start anew


def test_leaving() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t")
    b.beat("b", 0, "t")
    assert b.beat("a", -1)["member_epoch"] == -1
    assert refused(b, "a", -1) is Error.UNKNOWN_MEMBER_ID
    assert b.assigned(b.beat("b", 3)) == {"t": [0, 1, 2, 3, 4, 5]}
    with pytest.raises(KafkaError) as failure:
        b.beat("a", -1, group_id="none")
    assert failure.value.code is Error.GROUP_ID_NOT_FOUND


def test_a_static_member_comes_back_to_what_it_had() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    first = b.beat("a", 0, "t", instance="i")
    assert refused(b, "a2", 0, "t", instance="i") is Error.UNRELEASED_INSTANCE_ID
    assert b.beat("a", -2, instance="i")["member_epoch"] == -2
    epoch = b.shard.consumers.groups["c"].epoch
    back = b.beat("a2", 0, "t", instance="i")
    assert b.assigned(back) == b.assigned(first)
    assert b.shard.consumers.groups["c"].epoch == epoch  # no rebalance
    assert refused(b, "a", 2, instance="i") is Error.FENCED_INSTANCE_ID
    assert refused(b, "a", 2) is Error.UNKNOWN_MEMBER_ID
    assert refused(b, "x", 2, instance="j") is Error.UNKNOWN_MEMBER_ID
    b.beat("a2", -2, instance="i")
    b.advance(45_000)
    assert not b.shard.consumers.groups["c"].members


def test_a_group_has_room_for_so_many() -> None:
    b = bench(consumer_group_size_max=1)
    b.beat("a", 0, "t")
    assert refused(b, "b", 0, "t") is Error.GROUP_MAX_SIZE_REACHED
    assert b.beat("a", 0, "t")["error_code"] is Error.NONE


def test_topics_that_come_grow_and_go() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    assert b.assigned(b.beat("a", 0, "new", "t")) == {"t": [0, 1, 2, 3, 4, 5]}
    b.change_topic("new", 2)
    answer = b.beat("a", 2)
    assert b.assigned(answer) == {"t": [0, 1, 2, 3, 4, 5], "new": [0, 1]}
    b.change_topic("t", 7)
    answer = b.beat("a", answer["member_epoch"])
    assert b.assigned(answer) == {"t": [0, 1, 2, 3, 4, 5, 6], "new": [0, 1]}
    b.change_topic("new", 0)
    answer = b.beat("a", answer["member_epoch"])  # it has to give up what is not there any more
    assert b.assigned(answer) == {"t": [0, 1, 2, 3, 4, 5, 6]}
    epoch = answer["member_epoch"]
    b.change_topic("unrelated", 1)
    assert b.beat("a", epoch, owned={"t": range(7)})["member_epoch"] == epoch + 1
    assert b.shard.consumers.groups["c"].epoch == epoch + 1


def test_a_changed_subscription_takes_away_at_once() -> None:
    b = bench()
    b.beat("a", 0, "t", "u")
    answer = b.beat("a", 2, "u", owned={"t": range(6), "u": range(3)})
    assert b.assigned(answer) == {"u": [0, 1, 2]}
    assert state(b, "a") is MemberState.UNREVOKED_PARTITIONS
    b.advance(1_000)
    assert b.beat("a", 2, owned={"u": range(3)})["member_epoch"] == 3


def test_members_choose_the_assignor() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t", "u", assignor="range")
    described = b.shard.consumers.describe("c")
    assert described["assignor_name"] == "range"
    b.beat("b", 0, "t", "u", assignor="range")
    b.beat("c", 0, "t", "u", assignor="range")
    group = b.shard.consumers.groups["c"]
    ids = {name: topic.topic_id for name, topic in b.topics.topics.items()}
    assert {member: {"t": target[ids["t"]], "u": target[ids["u"]]} for member, target in group.targets.items()} == {
        "a": {"t": {0, 1}, "u": {0}},
        "b": {"t": {2, 3}, "u": {1}},
        "c": {"t": {4, 5}, "u": {2}},
    }


def test_regular_expressions() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.change_topic("orders-eu", 2)
    assert refused(b, "a", 0, regex="(") is Error.INVALID_REGULAR_EXPRESSION
    assert refused(b, "a", 0, regex="(?=x)") is Error.INVALID_REGULAR_EXPRESSION
    answer = b.beat("a", 0, regex="orders-.*")
    assert b.assigned(answer) == {}
    b.advance(0)  # it is matched against the topics
    answer = b.beat("a", answer["member_epoch"])
    assert b.assigned(answer) == {"orders-eu": [0, 1]}
    b.change_topic("orders-us", 1)
    b.change_topic("my-orders-us", 1)  # the whole name has to match
    b.beat("a", answer["member_epoch"])
    b.advance(10_001)  # a group looks at all topics every ten seconds at most
    b.beat("a", answer["member_epoch"])
    b.advance(0)
    answer = b.beat("a", answer["member_epoch"])
    assert b.assigned(answer) == {"orders-eu": [0, 1], "orders-us": [0]}
    second = b.beat("b", 0, regex="orders-.*")  # that one is known
    assert b.shard.consumers.groups["c"].regexes == {"orders-.*": 2}
    assert second["member_epoch"] == answer["member_epoch"] + 1
    kept = b.assigned(b.beat("a", answer["member_epoch"]))
    assert kept is not None
    b.beat("a", answer["member_epoch"], owned=kept)
    b.beat("b", -1)
    b.beat("a", b.shard.consumers.groups["c"].members["a"].epoch, "t", regex="")
    assert not b.shard.consumers.groups["c"].regexes
    assert not b.shard.consumers.groups["c"].resolved
    assert not b.restarted().shard.consumers.groups["c"].resolved


def test_commits_are_checked_by_the_members_epoch() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t")
    assert b.commit({("t", 0): 5}, "a", 2, group_id="c") == [Error.NONE]

    def refusal(*args: Any, **kwargs: Any) -> Error:
        with pytest.raises(KafkaError) as failure:
            b.commit({("t", 0): 6}, *args, group_id="c", **kwargs)
        return failure.value.code

    assert refusal("a", 3) is Error.STALE_MEMBER_EPOCH
    assert refusal("z", 2) is Error.UNKNOWN_MEMBER_ID
    assert refusal("", -1) is Error.UNKNOWN_MEMBER_ID
    assert refusal("a", 2, version=8) is Error.UNSUPPORTED_VERSION
    b.beat("b", 0, "u")
    b.beat("a", 2)
    # It was on its way as the epoch rose; the partition has been the member's since before.
    assert b.commit({("t", 0): 7}, "a", 2, group_id="c") == [Error.NONE]
    with pytest.raises(KafkaError) as failure:
        b.commit({("u", 0): 7}, "a", 2, group_id="c")
    assert failure.value.code is Error.STALE_MEMBER_EPOCH
    b.beat("a", -1)
    b.beat("b", -1)
    assert b.commit({("t", 0): 8}, group_id="c") == [Error.NONE]  # nobody is in the group: an administrator may
    consumers = b.shard.consumers
    consumers.check_fetch("c", None, -1)
    b.beat("a", 0, "t")
    epoch = consumers.groups["c"].members["a"].epoch
    consumers.check_fetch("c", "a", epoch)
    for asked, code in ((("a", epoch - 1), Error.STALE_MEMBER_EPOCH), (("z", epoch), Error.UNKNOWN_MEMBER_ID)):
        with pytest.raises(KafkaError) as failure:
            consumers.check_fetch("c", *asked)
        assert failure.value.code is code


def test_describing_and_listing() -> None:
    b = bench()
    b.beat("a", 0, "t", instance="i")
    b.stable(1)
    described = b.shard.consumers.describe("c")
    assert (described["group_state"], described["group_epoch"], described["assignment_epoch"]) == ("Stable", 2, 2)
    assert described["assignor_name"] == "uniform"
    (member,) = described["members"]
    assert (member["member_id"], member["instance_id"], member["member_type"]) == ("a", "i", 1)
    assert member["assignment"] == member["target_assignment"]
    assert member["assignment"]["topic_partitions"][0]["topic_name"] == "t"
    assert b.shard.consumers.describe("g")["error_message"] == "Group g is not a consumer group."
    assert b.shard.consumers.describe("none")["error_code"] is Error.GROUP_ID_NOT_FOUND
    listed = {group["group_id"]: (group["group_type"], group["group_state"]) for group in b.shard.listed(set(), set())}
    assert listed == {"c": ("consumer", "Stable"), "g": ("classic", "Stable")}
    assert [group["group_id"] for group in b.shard.listed(set(), {"consumer"})] == ["c"]
    assert [group["group_id"] for group in b.shard.listed({"stable"}, {"classic"})] == ["g"]
    assert b.shard.membership.describe("c", 6, is_consumer=True)["error_code"] is Error.GROUP_ID_NOT_FOUND


def test_deleting() -> None:
    b = bench()
    b.beat("a", 0, "t")
    b.commit({("t", 0): 5}, "a", 2, group_id="c")

    def delete() -> Error:
        result = b.execute(b.shard.delete_groups(["c"]))
        assert result.response is not None
        error: Error = result.response["results"][0]["error_code"]
        return error

    assert delete() is Error.NON_EMPTY_GROUP
    b.beat("a", -1)
    b.failing = Error.KAFKA_STORAGE_ERROR
    delete()
    b.failing = Error.NONE
    assert b.committed("c") == {("t", 0): 5}
    assert delete() is Error.NONE
    assert "c" not in b.shard.consumers.groups
    assert b.committed("c") == {}
    assert not b.restarted().shard.consumers.groups
    assert delete() is Error.GROUP_ID_NOT_FOUND


def test_offsets_expire_by_their_commit_and_the_group_with_them() -> None:
    b = bench(retention_ms=100_000)
    b.beat("a", 0, "t")
    b.commit({("t", 0): 5, ("u", 0): 6}, "a", 2, group_id="c")
    for _ in range(4):
        b.advance(40_000)
        b.beat("a", 2)
    b.execute(b.shard.sweep())
    assert b.committed("c") == {("t", 0): 5}  # it is subscribed to that one
    b.beat("a", -1)
    b.execute(b.shard.sweep())
    assert b.committed("c") == {}
    assert "c" not in b.shard.consumers.groups


def test_a_restart_brings_everything_back() -> None:
    b = bench(consumer_assignment_interval_ms=0)
    b.beat("a", 0, "t", instance="i")
    b.beat("b", 0, regex="u.*")
    b.advance(0)
    b.beat("b", 2)
    b.beat("a", 2, instance="i")
    other = b.restarted()
    before, after = b.shard.consumers.groups["c"], other.shard.consumers.groups["c"]
    assert after.members == before.members
    assert (after.targets, after.epoch, after.assignment_epoch) == (before.targets, before.epoch, before.assignment_epoch)
    assert (after.metadata_hash, after.resolved, after.regexes) == (before.metadata_hash, before.resolved, before.regexes)
    other.advance(45_000)
    assert not other.shard.consumers.groups["c"].members


def test_an_empty_classic_group_makes_room_and_the_other_way_round() -> None:
    b = bench()
    b.commit({("t", 0): 1}, group_id="c")  # a group without members
    b.beat("a", 0, "t")
    assert "c" not in b.shard.groups
    assert b.committed("c") == {("t", 0): 1}
    b.beat("a", -1)
    assert b.join("c", "x").error is Error.UNKNOWN_MEMBER_ID
    b.stable(1, "c")
    assert "c" not in b.shard.consumers.groups
    assert b.committed("c") == {("t", 0): 1}
    again = b.restarted()
    assert "c" in again.shard.groups
    assert "c" not in again.shard.consumers.groups


def test_records_are_those_of_kafka() -> None:
    b = bench()
    b.beat("a", 0, "t")
    b.beat("a", -1)
    written = [record for key, value in b.log if isinstance(record := decode(key, value), ConsumerRecord)]
    assert [(record.kind, record.value is not None) for record in written] == [
        (ConsumerKind.MEMBER, True),
        (ConsumerKind.GROUP, True),
        (ConsumerKind.TARGET_MEMBER, True),
        (ConsumerKind.TARGET, True),
        (ConsumerKind.CURRENT, True),
        (ConsumerKind.CURRENT, False),
        (ConsumerKind.TARGET_MEMBER, False),
        (ConsumerKind.MEMBER, False),
        (ConsumerKind.GROUP, True),
    ]
