"""Committed offsets: who may commit, what is fetched, what is deleted, what expires."""

from uuid import UUID

import pytest

from fastlog.coordinator.classic import State
from fastlog.coordinator.operation import Result
from fastlog.coordinator.records import NO_TOPIC_ID, OffsetRecord
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import EPOCH_MS, Bench

DAY_MS = 24 * 60 * 60_000
WEEK_MS = 7 * DAY_MS
T0 = ("t", 0)


def refused(bench: Bench, *args: object, **kwargs: object) -> Error:
    with pytest.raises(KafkaError) as failure:
        bench.commit({T0: 1}, *args, **kwargs)  # type: ignore[arg-type]
    return failure.value.code


def fetched(bench: Bench, *topics: tuple[str, int], topic_id: UUID = NO_TOPIC_ID, group_id: str = "g") -> list[int]:
    asked = [{"name": topic, "topic_id": topic_id, "partition_indexes": [index]} for topic, index in topics]
    return [topic["partitions"][0]["committed_offset"] for topic in bench.shard.offsets.fetch(group_id, asked)]


def delete(bench: Bench, *topics: tuple[str, int], group_id: str = "g") -> list[Error]:
    asked = [{"name": topic, "partitions": [{"partition_index": index}]} for topic, index in topics]
    result = bench.execute(bench.shard.offsets.delete({"group_id": group_id, "topics": asked}))
    assert result.response is not None
    return [partition["error_code"] for topic in result.response["topics"] for partition in topic["partitions"]]


def sweep(bench: Bench) -> Result:
    return bench.execute(bench.shard.sweep())


# -- committing ---------------------------------------------------------------------------------------------------------------------


def test_a_consumer_without_a_group_commits() -> None:
    bench = Bench()
    assert bench.commit({T0: 5, ("u", 3): 7}) == [Error.NONE, Error.NONE]
    assert bench.committed() == {T0: 5, ("u", 3): 7}
    assert bench.group().state is State.EMPTY
    assert bench.group().protocol_type is None
    assert bench.restarted().committed() == {T0: 5, ("u", 3): 7}


def test_a_member_commits() -> None:
    bench = Bench()
    (member,) = bench.stable(1)
    assert bench.commit({T0: 5}, member, 1) == [Error.NONE]
    (topic,) = bench.shard.offsets.fetch("g", None)
    assert topic["partitions"] == [
        {"partition_index": 0, "committed_offset": 5, "committed_leader_epoch": 3, "metadata": "", "error_code": Error.NONE}
    ]


def test_who_may_not_commit() -> None:
    bench = Bench()
    assert refused(bench, "m", 1, version=9) is Error.GROUP_ID_NOT_FOUND
    assert refused(bench, "m", 1, version=8) is Error.ILLEGAL_GENERATION
    (member,) = bench.stable(1)
    assert refused(bench) is Error.UNKNOWN_MEMBER_ID  # a group with members
    assert refused(bench, "m", 1) is Error.UNKNOWN_MEMBER_ID
    assert refused(bench, member, 0) is Error.ILLEGAL_GENERATION
    assert refused(bench, member, 2) is Error.ILLEGAL_GENERATION
    assert refused(bench, member, -1) is Error.ILLEGAL_GENERATION
    assert refused(bench, member, 1, instance="i") is Error.UNKNOWN_MEMBER_ID
    assert bench.committed() == {}


def test_a_member_of_an_empty_group() -> None:
    bench = Bench()
    (member,) = bench.stable(1)
    bench.leave(member)
    assert refused(bench, member, 1) is Error.UNKNOWN_MEMBER_ID
    assert bench.commit({T0: 1}) == [Error.NONE]  # an administrator


def test_committing_during_a_rebalance() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    again = bench.join(member_id=leader)
    assert bench.commit({T0: 5}, follower, 1) == [Error.NONE]  # of the generation that ends
    bench.join(member_id=follower)
    assert again["generation_id"] == 2
    assert refused(bench, follower, 1) is Error.ILLEGAL_GENERATION
    assert refused(bench, follower, 2) is Error.REBALANCE_IN_PROGRESS  # no assignment yet
    bench.settle([leader, follower], 2)
    assert bench.commit({T0: 6}, follower, 2) == [Error.NONE]


def test_a_commit_is_a_sign_of_life() -> None:
    bench = Bench()
    (member,) = bench.stable(1, session=10_000)
    bench.advance(9_000)
    bench.commit({T0: 5}, member, 1)
    bench.advance(9_000)
    assert bench.heartbeat(member, 1) is Error.NONE


def test_metadata() -> None:
    bench = Bench(metadata_size_max=4)
    assert bench.commit({T0: 1}, metadata="12345") == [Error.OFFSET_METADATA_TOO_LARGE]
    assert bench.commit({T0: 1}, metadata="1234") == [Error.NONE]
    assert bench.commit({("u", 0): 1}, metadata=None) == [Error.NONE]
    assert bench.commit({("v", 0): 1}, metadata="éééé") == [Error.NONE]
    assert bench.commit({("v", 0): 1}, metadata="\U0001f600\U0001f600x") == [Error.OFFSET_METADATA_TOO_LARGE]
    metadata = {topic["name"]: topic["partitions"][0]["metadata"] for topic in bench.shard.offsets.fetch("g", None)}
    assert metadata == {"t": "1234", "u": "", "v": "éééé"}


def test_a_commit_counts_when_the_log_has_it() -> None:
    bench = Bench()
    bench.commit({T0: 1})
    bench.hold = True
    bench.commit({T0: 2})
    assert bench.committed() == {T0: 1}
    bench.release()
    assert bench.committed() == {T0: 2}


def test_a_commit_that_fails_changes_nothing() -> None:
    bench = Bench()
    bench.commit({T0: 1})
    bench.failing = Error.KAFKA_STORAGE_ERROR
    bench.commit({T0: 2, ("u", 0): 3})
    assert bench.committed() == {T0: 1}
    assert bench.restarted().committed() == {T0: 1}


# -- fetching -----------------------------------------------------------------------------------------------------------------------


def test_fetch() -> None:
    bench = Bench()
    bench.commit({T0: 5, ("t", 1): 6})
    assert fetched(bench, ("t", 1), ("t", 2), ("u", 0)) == [6, -1, -1]
    assert fetched(bench, T0, group_id="nobody") == [-1]
    assert bench.shard.offsets.fetch("nobody", None) == []
    (topic,) = bench.shard.offsets.fetch("g", [{"name": "u", "topic_id": UUID(int=0), "partition_indexes": [0]}])
    assert topic["partitions"] == [
        {"partition_index": 0, "committed_offset": -1, "committed_leader_epoch": -1, "metadata": "", "error_code": Error.NONE}
    ]


def test_an_offset_of_an_earlier_topic_of_that_name_is_not_fetched() -> None:
    bench = Bench()
    bench.commit({T0: 5}, topic_id=UUID(int=1))
    assert fetched(bench, T0, topic_id=UUID(int=1)) == [5]
    assert fetched(bench, T0, topic_id=UUID(int=2)) == [-1]
    assert fetched(bench, T0) == [5]  # by name
    assert fetched(bench.restarted(), T0, topic_id=UUID(int=2)) == [-1]


# -- deleting -----------------------------------------------------------------------------------------------------------------------


def test_delete() -> None:
    bench = Bench()
    bench.commit({T0: 5, ("u", 0): 6})
    assert delete(bench, T0, ("v", 9)) == [Error.NONE, Error.NONE]
    assert bench.committed() == {("u", 0): 6}
    assert bench.restarted().committed() == {("u", 0): 6}
    assert bench.metrics.offset_deletions == 1


def test_delete_what_is_being_committed() -> None:
    bench = Bench()
    bench.hold = True
    bench.commit({T0: 5})
    assert delete(bench, T0) == [Error.NONE]
    bench.release()
    assert bench.committed() == {}


def test_delete_what_is_consumed() -> None:
    bench = Bench()
    (member,) = bench.stable(1)  # subscribed to t
    bench.commit({T0: 5, ("u", 0): 6}, member, 1)
    assert delete(bench, T0, ("u", 0)) == [Error.GROUP_SUBSCRIBED_TO_TOPIC, Error.NONE]
    assert bench.committed() == {T0: 5}


def test_delete_of_a_group_of_another_protocol() -> None:
    bench = Bench()
    bench.stable(1, protocol_type="connect", protocols={"range": b""})
    with pytest.raises(KafkaError) as failure:
        delete(bench, T0)
    assert failure.value.code is Error.NON_EMPTY_GROUP


def test_delete_of_a_group_that_is_not_there() -> None:
    with pytest.raises(KafkaError) as failure:
        delete(Bench(), T0)
    assert failure.value.code is Error.GROUP_ID_NOT_FOUND


def test_delete_groups() -> None:
    bench = Bench()
    bench.commit({T0: 5, ("u", 0): 6}, group_id="simple")
    bench.leave(*bench.stable(1, "left"), group_id="left")
    bench.stable(1, "busy")
    result = bench.execute(bench.shard.delete_groups(["simple", "left", "busy", "nobody"]))
    assert result.response is not None
    assert {each["group_id"]: each["error_code"] for each in result.response["results"]} == {
        "simple": Error.NONE,
        "left": Error.NONE,
        "busy": Error.NON_EMPTY_GROUP,
        "nobody": Error.GROUP_ID_NOT_FOUND,
    }
    for each in (bench, bench.restarted()):
        assert set(each.shard.groups) == {"busy"}
        assert each.committed("simple") == {}
        assert each.shard.offsets.count == 0
    assert bench.metrics.groups_deleted == 2


def test_delete_a_group_whose_offsets_are_being_committed() -> None:
    bench = Bench()
    bench.hold = True
    bench.commit({T0: 5})
    bench.execute(bench.shard.delete_groups(["g"]))
    bench.release()
    for each in (bench, bench.restarted()):
        assert each.shard.groups == {}
        assert each.committed() == {}


def test_a_deletion_that_fails_leaves_the_group() -> None:
    bench = Bench()
    bench.commit({T0: 5})
    bench.failing = Error.KAFKA_STORAGE_ERROR
    bench.execute(bench.shard.delete_groups(["g"]))
    assert bench.group().state is State.EMPTY
    assert bench.committed() == {T0: 5}
    bench.failing = Error.NONE
    assert bench.commit({T0: 6}) == [Error.NONE]


def test_a_deleted_topics_offsets_go() -> None:
    bench = Bench()
    bench.commit({T0: 5, ("u", 0): 6}, group_id="a")
    bench.commit({("t", 7): 5}, group_id="b")
    bench.hold = True
    bench.commit({("t", 8): 5}, group_id="c")
    bench.execute(bench.shard.delete_topic("t"))
    bench.release()
    for each in (bench, bench.restarted()):
        assert [each.committed(group_id) for group_id in "abc"] == [{("u", 0): 6}, {}, {}]


# -- expiry -------------------------------------------------------------------------------------------------------------------------


def test_offsets_of_a_consumer_without_a_group_expire_by_their_commit() -> None:
    bench = Bench()
    bench.commit({T0: 5})
    bench.advance(DAY_MS)
    bench.commit({("u", 0): 6})
    bench.advance(WEEK_MS - DAY_MS - 1)
    sweep(bench)
    assert len(bench.committed()) == 2
    bench.advance(1)
    sweep(bench)
    assert bench.committed() == {("u", 0): 6}
    assert bench.metrics.offsets_expired == 1
    bench.advance(DAY_MS)
    sweep(bench)
    for each in (bench, bench.restarted()):
        assert each.shard.groups == {}
        assert each.committed() == {}
    assert bench.metrics.groups_expired == 1


def test_offsets_of_an_empty_group_expire_counted_from_when_it_became_empty() -> None:
    bench = Bench()
    (member,) = bench.stable(1, session=1_800_000)
    bench.commit({T0: 5}, member, 1)
    for _ in range(10 * 48):  # ten days
        bench.advance(1_800_000 - 1)
        assert bench.heartbeat(member, 1) is Error.NONE
        sweep(bench)
    assert bench.committed() == {T0: 5}
    bench.leave(member)
    bench.advance(WEEK_MS - 1)
    sweep(bench)
    assert bench.committed() == {T0: 5}
    restarted = bench.restarted()
    for each in (bench, restarted):
        each.clock.at_ms += 1 if each is bench else 0
        sweep(each)
        assert each.committed() == {}
        assert each.shard.groups == {}


def test_offsets_of_topics_that_a_stable_group_left_expire() -> None:
    bench = Bench()
    (member,) = bench.stable(1, session=1_800_000)  # subscribed to t
    bench.commit({T0: 5, ("old", 0): 6}, member, 1)
    for _ in range(7 * 48 + 1):
        bench.advance(1_800_000 - 1)
        bench.heartbeat(member, 1)
    sweep(bench)
    assert bench.committed() == {T0: 5}


def test_offsets_do_not_expire_during_a_rebalance() -> None:
    bench = Bench(retention_ms=1)
    leader, _ = bench.stable(2)
    bench.commit({("old", 0): 6}, leader, 1)
    bench.join(member_id=leader)
    bench.advance(10)
    sweep(bench)
    assert bench.committed() == {("old", 0): 6}


def test_a_commit_under_way_keeps_an_expired_offset() -> None:
    bench = Bench()
    bench.commit({T0: 5})
    bench.advance(WEEK_MS)
    bench.hold = True
    bench.commit({T0: 6})
    sweep(bench)
    bench.release()
    assert bench.committed() == {T0: 6}
    assert bench.restarted().committed() == {T0: 6}


def test_a_retention_time_of_the_commits_own() -> None:
    bench = Bench()
    bench.commit({T0: 5}, retention=1_000)
    assert bench.restarted().shard.offsets.committed["g"]["t"][0].expire_ms == EPOCH_MS + 1_000
    bench.advance(999)
    sweep(bench)
    assert bench.committed() == {T0: 5}
    bench.advance(1)
    sweep(bench)
    assert bench.committed() == {}


def test_groups_that_came_to_nothing_go_without_a_record() -> None:
    bench = Bench()
    bench.join(session=10_000)
    sweep(bench)
    assert set(bench.shard.groups) == {"g"}  # its pending member may come back
    bench.advance(10_000)
    sweep(bench)
    assert bench.shard.groups == {}
    assert bench.log == []


def test_an_expiry_that_fails_leaves_everything() -> None:
    bench = Bench()
    bench.commit({T0: 5})
    bench.advance(WEEK_MS)
    bench.failing = Error.REQUEST_TIMED_OUT
    sweep(bench)
    assert bench.group().state is State.EMPTY
    assert bench.committed() == {T0: 5}
    bench.failing = Error.NONE
    sweep(bench)
    assert bench.shard.groups == {}


def test_a_tombstone_for_nothing() -> None:
    bench = Bench()
    bench.shard.replay(OffsetRecord("g", "t", 0, None))
    assert bench.shard.groups == {}
    assert bench.shard.offsets.count == 0
