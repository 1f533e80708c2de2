"""Groups that change between the classic and the consumer protocol while they are in use (`group.consumer.migration.policy`)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.coordinator.classic import State
from fastlog.coordinator.embedded import decode_assignment, encode_assignment
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import encode_data
from tests.coordinator.fakes import Bench, FakeTopics, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping


def metadata(*topics: str, **owned: list[int]) -> bytes:
    """ConsumerProtocolSubscription v1."""
    fields = {"topics": list(topics), "owned_partitions": [{"topic": topic, "partitions": indexes} for topic, indexes in owned.items()]}
    return struct.pack(">h", 1) + encode_data("consumer_protocol_subscription", 1, fields)


def assigned(data: bytes) -> dict[str, list[int]]:
    return {each["topic"]: each["partitions"] for each in decode_assignment(data)["assigned_partitions"]}


def bench(**settings: Any) -> Bench:
    return Bench(None, FakeTopics(t=4, u=2), consumer_assignment_interval_ms=0, **settings)


def classic(b: Bench, parts: Mapping[str, list[int]], **kwargs: Any) -> dict[str, str]:
    """A stable classic group "c": what each named member has been assigned of "t". Its members' ids."""
    joins = {name: b.join_twice("c", protocols={"range": metadata("t")}, client_id=name, **kwargs) for name in parts}
    b.advance(b.settings.initial_rebalance_delay_ms * 2)
    ids = {name: member_id for name, (member_id, _) in joins.items()}
    assignment = {ids[name]: encode_assignment(1, [{"topic": "t", "partitions": part}]) for name, part in parts.items()}
    group = b.group("c")
    for member_id in ids.values():
        assert b.sync(member_id, group.generation, assignment if group.is_leader(member_id) else {}, group_id="c").error is Error.NONE
    assert group.state is State.STABLE
    return ids


def rejoin(b: Bench, member_id: str, generation: int, **owned: list[int]) -> tuple[int, dict[str, list[int]]]:
    """A member of the classic protocol joins again and syncs; its generation and assignment."""
    assert b.heartbeat(member_id, generation, group_id="c") is Error.REBALANCE_IN_PROGRESS
    join = b.join("c", member_id, protocols={"range": metadata("t", **owned)})
    assert join.error is Error.NONE
    sync = b.sync(member_id, join["generation_id"], group_id="c")
    assert sync.error is Error.NONE
    return join["generation_id"], assigned(sync["assignment"])


def test_a_classic_group_becomes_a_consumer_group_and_a_classic_one_again() -> None:
    b = bench()
    ids = classic(b, {"a": [0, 1], "b": [2, 3]})
    answer = b.beat("m", 0, "t")
    group = b.shard.consumers.groups["c"]
    assert "c" not in b.shard.groups
    assert (answer["member_epoch"], b.assigned(answer)) == (2, {})
    assert group.members[ids["a"]].classic is not None
    found = {}
    for name, part in (("a", [0, 1]), ("b", [2, 3])):
        generation, told = rejoin(b, ids[name], 1, t=part)
        if told["t"] != part:
            assert generation == 1  # it has something to give up: a cooperative consumer does, and joins again
            generation, told = rejoin(b, ids[name], 1, t=told["t"])
        assert generation == 2
        found[name] = told["t"]
    given = b.assigned(b.beat("m", 2))
    assert given is not None
    assert sorted(found["a"] + found["b"] + given["t"]) == [0, 1, 2, 3]
    assert group.state.value == "Stable"
    described = b.shard.consumers.describe("c")
    assert sorted(member["member_type"] for member in described["members"]) == [0, 0, 1]
    restarted = b.restarted().shard.consumers.groups["c"]
    assert restarted.members == group.members

    b.beat("m", -1)
    assert "c" not in b.shard.consumers.groups
    back = b.group("c")
    assert (back.state, set(back.members), back.protocol) == (State.PREPARING_REBALANCE, set(ids.values()), "range")
    assert {member_id: assigned(member.assignment)["t"] for member_id, member in back.members.items()} == {
        ids[name]: part for name, part in found.items()
    }
    assert set(b.restarted().group("c").members) == set(ids.values())
    joins = [b.join("c", member_id, protocols={"range": metadata("t")}) for member_id in ids.values()]
    assert [join.error for join in joins] == [Error.NONE, Error.NONE]


def test_the_last_static_member_comes_back_with_the_classic_protocol() -> None:
    b = bench()
    b.beat("m", 0, "t", instance="i")
    b.beat("m", -2, instance="i")
    join = b.join("c", instance="i", protocols={"range": metadata("t")})
    assert join.error is Error.NONE
    group = b.group("c")
    assert group.state is State.STABLE
    member = group.members[join["member_id"]]
    assert member.instance_id == "i"
    assert assigned(member.assignment) == {"t": [0, 1, 2, 3]}
    assert b.sync(join["member_id"], join["generation_id"], group_id="c")["assignment"] == member.assignment
    assert b.restarted().group("c").members[join["member_id"]].assignment == member.assignment


def test_a_static_member_changes_its_protocol_within_the_group() -> None:
    b = bench()
    b.beat("m", 0, "t", instance="i")
    b.beat("n", 0, "t", instance="j")
    kept = b.assigned(b.beat("m", 2, instance="i"))
    assert kept is not None
    b.beat("m", 2, instance="i", owned=kept)
    b.beat("n", 3, instance="j")
    b.beat("m", -2, instance="i")
    join = b.join("c", instance="i", protocols={"range": metadata("t")})
    assert (join.error, join["generation_id"]) == (Error.NONE, 3)
    assert assigned(b.sync(join["member_id"], 3, group_id="c", instance="i")["assignment"]) == kept
    assert b.heartbeat(join["member_id"], 3, group_id="c", instance="i") is Error.NONE
    assert b.heartbeat("m", 3, group_id="c", instance="i") is Error.FENCED_INSTANCE_ID


@pytest.mark.parametrize(("policy", "up", "down"), [("disabled", 0, 0), ("upgrade", 1, 0), ("downgrade", 0, 1), ("bidirectional", 1, 1)])
def test_the_policy_says_what_is_allowed(policy: str, up: int, down: int) -> None:
    b = bench(consumer_migration=policy)
    classic(b, {"a": [0, 1, 2, 3]})
    if up:
        b.beat("m", 0, "t")
    else:
        with pytest.raises(KafkaError, match="online upgrade is disabled") as failure:
            b.beat("m", 0, "t")
        assert failure.value.code is Error.GROUP_ID_NOT_FOUND
    assert ("c" in b.shard.consumers.groups) == bool(up)

    b = bench()
    classic(b, {"a": [0, 1, 2, 3]})
    b.beat("m", 0, "t")
    b = b.restarted(consumer_migration=policy, consumer_assignment_interval_ms=0)
    b.beat("m", -1)
    assert ("c" in b.shard.groups) == bool(down)


def test_what_can_not_be_upgraded() -> None:
    for protocol_type, data, why in (
        ("consumer", b"\0\1\0", "malformed"),
        ("other", b"anything", "does not use the consumer embedded protocol"),
    ):
        b = bench()
        member_id, _ = b.join_twice("c", protocols={"range": data}, protocol_type=protocol_type)
        b.advance(b.settings.initial_rebalance_delay_ms)
        b.settle([member_id], 1, group_id="c")
        with pytest.raises(KafkaError, match=why):
            b.beat("m", 0, "t")
    b = bench(consumer_group_size_max=1)
    ids = classic(b, {"a": [0, 1], "b": [2, 3]})
    with pytest.raises(KafkaError, match="size exceeds"):
        b.beat("m", 0, "t")
    custom = struct.pack(">h", 1) + encode_data("consumer_protocol_assignment", 1, {"assigned_partitions": [], "user_data": b"mine"})
    b = bench()
    ids = classic(b, {"a": [0, 1, 2, 3]})
    b.group("c").members[ids["a"]].assignment = custom
    with pytest.raises(KafkaError, match="custom assignor"):
        b.beat("m", 0, "t")


def test_whoever_waits_in_the_classic_group_is_told_to_ask_again() -> None:
    b = bench()
    ids = classic(b, {"a": [0, 1], "b": [2, 3]})
    waiting = b.join("c", ids["b"], protocols={"range": metadata("t", "u", t=[2, 3])}, client_id="b")
    assert waiting.answer is None
    b.beat("m", 0, "t")
    assert waiting.error is Error.REBALANCE_IN_PROGRESS
    held = {
        (topic_id, index) for m in b.shard.consumers.groups["c"].members.values() for topic_id, part in m.assigned.items() for index in part
    }
    assert len(held) == 4


def test_requests_of_the_classic_protocol_to_a_consumer_group() -> None:
    b = bench()
    b.beat("m", 0, "t")
    first = b.join("c", protocols={"range": metadata("t"), "sticky": metadata("t")})
    assert first.error is Error.MEMBER_ID_REQUIRED
    member_id = first["member_id"]
    assert member_id not in b.shard.consumers.groups["c"].members
    assert b.join("c", member_id, protocols={"range": b"\0"}).error is Error.UNKNOWN_SERVER_ERROR
    assert b.join("c", member_id, protocol_type="other").error is Error.INCONSISTENT_GROUP_PROTOCOL
    join = b.join("c", member_id, protocols={"range": metadata("t"), "sticky": metadata("t")})
    assert (join["protocol_name"], join["generation_id"], join.answer.get("members")) == ("range", 3, None) if join.answer else False
    assert b.join("c", "x", protocols={"other": metadata("t")}).error is Error.INCONSISTENT_GROUP_PROTOCOL

    def sync(asks: str, generation: int, name: str = "range") -> Waiting:
        return b.sync(asks, generation, group_id="c", protocol_name=name)

    assert sync("x", 3).error is Error.UNKNOWN_MEMBER_ID
    assert sync("m", 2).error is Error.UNKNOWN_MEMBER_ID  # that one does not use the classic protocol
    assert sync(member_id, 2).error is Error.ILLEGAL_GENERATION
    assert sync(member_id, 3, "sticky").error is Error.INCONSISTENT_GROUP_PROTOCOL
    assert sync(member_id, 3).error is Error.NONE
    assert b.heartbeat(member_id, 3, group_id="c") is Error.NONE  # what it waits for has not been given up
    assert b.heartbeat(member_id, 2, group_id="c") is Error.ILLEGAL_GENERATION
    assert b.heartbeat("m", 2, group_id="c") is Error.UNKNOWN_MEMBER_ID
    kept = b.assigned(b.beat("m", 2))
    assert kept is not None
    b.beat("m", 2, owned=kept)
    assert b.heartbeat(member_id, 3, group_id="c") is Error.REBALANCE_IN_PROGRESS
    assert rejoin(b, member_id, 3)[1] == {"t": sorted(set(range(4)) - set(kept["t"]))}
    with pytest.raises(KafkaError) as failure:
        b.commit({("t", 0): 1}, member_id, 4, group_id="c")
    assert failure.value.code is Error.ILLEGAL_GENERATION
    assert b.leave("x", member_id, group_id="c") == [Error.UNKNOWN_MEMBER_ID, Error.NONE]
    assert set(b.shard.consumers.groups["c"].members) == {"m"}


def test_a_classic_member_that_does_not_join_or_sync_in_time_is_out() -> None:
    b = bench(consumer_session_ms=600_000)
    b.beat("m", 0, "t")
    member_id, join = b.join_twice("c", protocols={"range": metadata("t")}, rebalance=20_000, session=100_000)
    assert join.error is Error.NONE
    b.advance(20_000)
    assert member_id not in b.shard.consumers.groups["c"].members
    member_id, join = b.join_twice("c", protocols={"range": metadata("t")}, rebalance=20_000, session=100_000)
    generation = join["generation_id"]
    assert b.sync(member_id, generation, group_id="c").error is Error.NONE
    kept = b.assigned(b.beat("m", b.shard.consumers.groups["c"].members["m"].epoch))
    assert kept is not None
    b.beat("m", b.shard.consumers.groups["c"].members["m"].epoch, owned=kept)
    assert b.heartbeat(member_id, generation, group_id="c") is Error.REBALANCE_IN_PROGRESS
    b.advance(19_999)
    assert b.heartbeat(member_id, generation, group_id="c") is Error.REBALANCE_IN_PROGRESS  # that gives it no more time
    b.advance(1)
    assert member_id not in b.shard.consumers.groups["c"].members
