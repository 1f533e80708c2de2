"""The service: the topic, loading, appending, failing, and requests that wait."""

import asyncio
import itertools
from typing import Any

import pytest

from fastlog.coordinator.hashing import partition_of
from fastlog.coordinator.operation import Client
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.records import CONTROL, TRANSACTIONAL, Record, build_batch
from tests.coordinator.fakes import FakeLog, FakeTopics
from tests.coordinator.serving import CLIENT, Served, asynchronous, commit_request, turns, until


@asynchronous
async def test_the_topic_is_made_when_it_is_needed() -> None:
    async with Served() as served:
        assert served.topics.made == []
        assert await served.service.list_groups([], []) == {"error_code": Error.NONE, "groups": []}
        assert served.topics.made == []
        await asyncio.gather(*(served.service.ensure_topic() for _ in range(10)))
        assert served.topics.made == [
            ("__consumer_offsets", 3, {"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600"})
        ]
        await served.loaded()
        assert await served.commit(5) == 0


@asynchronous
async def test_the_topic_can_not_be_made() -> None:
    async with Served() as served:
        served.topics.fail = True
        with pytest.raises(KafkaError) as failure:
            await served.service.ensure_topic()
        assert failure.value.code is Error.COORDINATOR_NOT_AVAILABLE
        assert await served.commit(5) == Error.COORDINATOR_NOT_AVAILABLE
        served.topics.fail = False
        await served.loaded()
        assert await served.commit(5) == 0


@asynchronous
async def test_the_topic_that_is_there_says_how_many_partitions() -> None:
    async with Served(topics=FakeTopics(__consumer_offsets=7)) as served:
        await served.loaded()
        assert served.topics.made == []
        assert served.service.gauges()["partitions_active"] == 7


@asynchronous
async def test_while_loading() -> None:
    log = FakeLog()
    log.read_gate = asyncio.Event()
    async with Served(log, FakeTopics(__consumer_offsets=3)) as served:
        loading = Error.COORDINATOR_LOAD_IN_PROGRESS
        assert await served.commit(5) == loading
        assert (await served.join())["error_code"] == loading
        assert (await served.sync("m", 1, {}))["error_code"] == loading
        beat = {"group_id": "g", "generation_id": 1, "member_id": "m", "group_instance_id": None}
        assert await served.service.heartbeat(beat) == {"error_code": Error.NONE}
        leave = {"group_id": "g", "members": [{"member_id": "m", "group_instance_id": None}]}
        assert (await served.service.leave_group(leave))["error_code"] == loading
        assert (await served.service.describe_groups(["g"], 6))[0]["error_code"] == loading
        assert (await served.service.list_groups([], []))["error_code"] == loading
        assert await served.service.delete_groups(["g"]) == [{"group_id": "g", "error_code": loading}]
        assert (await served.service.delete_offsets({"group_id": "g", "topics": []}))["error_code"] == loading
        with pytest.raises(KafkaError) as failure:
            await served.fetch()
        assert failure.value.code is loading
        log.read_gate.set()
        await served.loaded()
        assert await served.commit(5) == 0


@asynchronous
async def test_a_partition_that_can_not_be_read_is_tried_again() -> None:
    log = FakeLog()
    log.fail_read = Error.KAFKA_STORAGE_ERROR
    async with Served(log, FakeTopics(__consumer_offsets=1)) as served:
        await turns()
        assert await served.commit(5) == Error.COORDINATOR_NOT_AVAILABLE
        log.fail_read = Error.NONE
        await served.loaded()
        assert await served.commit(5) == 0
        assert served.service.metrics.load_errors == 1


@asynchronous
async def test_commits_survive_a_restart() -> None:
    async with Served() as served:
        await served.loaded()
        member = await served.stable()
        groups = [f"group-{number}" for number in range(20)]
        await asyncio.gather(*(served.commit(number, group) for number, group in enumerate(groups)))
        other = await served.restarted()
        for number, group in enumerate(groups):
            assert await other.fetch(group) == {("t", 0): number}
        (described,) = await other.service.describe_groups(["g"], 6)
        assert described["group_state"] == "Stable"
        assert [each["member_id"] for each in described["members"]] == [member]
        assert other.service.metrics.load_records == served.service.metrics.append_records
        await other.service.stop()


@asynchronous
async def test_the_log_may_begin_later() -> None:
    log = FakeLog()
    async with Served(log, FakeTopics(__consumer_offsets=1)) as served:
        await served.loaded()
        for offset in range(5):
            await served.commit(offset, partition=offset % 4)
        log.partition(0).start = 3
        other = await served.restarted()
        assert await other.fetch() == {("t", 3): 3, ("t", 0): 4}
        await other.service.stop()


@asynchronous
async def test_what_comes_together_goes_out_together() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1)) as served:
        await served.loaded()
        assert set(await asyncio.gather(*(served.commit(number, f"group-{number}") for number in range(500)))) == {0}
        assert served.log.appends <= 2
        assert served.service.metrics.append_records == 500


@asynchronous
async def test_batches_stay_within_their_limit() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1), values={"message.max.bytes": 2_000}) as served:
        await served.loaded()
        await asyncio.gather(*(served.commit(number, f"group-{number}", metadata="m" * 300) for number in range(50)))
        assert max(len(batch) for batch in served.log.partition(0).batches) <= 2_000
        assert served.log.appends >= 10


@asynchronous
async def test_an_operation_too_large_for_a_batch() -> None:
    async with Served(values={"message.max.bytes": 1_000}) as served:
        await served.loaded()
        assert await served.commit(1, metadata="m" * 2_000) == Error.UNKNOWN_SERVER_ERROR
        assert await served.commit(1) == 0
        member_id = (await served.join())["member_id"]
        joining = asyncio.create_task(served.join(member_id=member_id))
        await turns()
        await served.advance(0)
        generation = (await joining)["generation_id"]
        synced = await served.sync(member_id, generation, {member_id: b"x" * 5_000})
        assert synced["error_code"] == Error.UNKNOWN_SERVER_ERROR
        assert served.service.metrics.append_errors == 0


@asynchronous
async def test_a_large_expiry_is_divided() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1), values={"message.max.bytes": 2_000}) as served:
        await served.loaded()
        for number in range(100):
            await served.commit(number, f"group-{number}")
        await served.advance(8 * 24 * 60 * 60_000)
        await until(lambda: not served.service.gauges()["groups"])
        assert served.service.gauges()["offsets"] == 0
        assert max(len(batch) for batch in served.log.partition(0).batches) <= 2_000
        assert served.service.metrics.groups_expired == 100


@asynchronous
async def test_a_failed_append_that_left_nothing_in_the_log() -> None:
    async with Served() as served:
        await served.loaded()
        member = await served.stable()
        await served.commit(1, "h")
        served.log.fail = Error.KAFKA_STORAGE_ERROR
        assert await served.commit(2, "h") == Error.NOT_COORDINATOR
        served.log.fail = Error.NONE
        assert await served.fetch("h") == {("t", 0): 1}
        assert await served.commit(3, "h") == 0
        assert served.service.metrics.loads == 3  # none was loaded again
        beat = {"group_id": "g", "generation_id": 1, "member_id": member, "group_instance_id": None}
        assert await served.service.heartbeat(beat) == {"error_code": Error.NONE}


@pytest.mark.parametrize("leak", [False, True])
@asynchronous
async def test_a_failed_append_of_which_only_the_log_knows(leak: bool) -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1), values={"group.initial.rebalance.delay.ms": 3_000}) as served:
        await served.loaded()
        await served.commit(1)
        waiting = asyncio.create_task(served.join("other", client=Client(0, "old", "/")))
        await turns()
        served.log.fail = Error.KAFKA_STORAGE_ERROR
        served.log.leak = leak
        served.log.partition(0).offline = 56
        assert await served.commit(2) == Error.NOT_COORDINATOR
        assert (await waiting)["error_code"] == Error.NOT_COORDINATOR
        served.log.fail = Error.NONE
        served.log.partition(0).offline = 0
        await served.loaded()
        assert await served.fetch() == {("t", 0): 2 if leak else 1}
        assert served.service.metrics.loads == 2
        assert await served.commit(3) == 0


@asynchronous
async def test_all_behind_a_failed_append_fail() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1)) as served:
        await served.loaded()
        served.log.gate = asyncio.Event()
        commits = [asyncio.create_task(served.commit(number, f"group-{number}")) for number in range(10)]
        await turns()
        served.log.fail = Error.NOT_ENOUGH_REPLICAS
        served.log.gate.set()
        assert set(await asyncio.gather(*commits)) == {Error.COORDINATOR_NOT_AVAILABLE}
        assert served.log.appends == 1
        served.log.fail = Error.NONE
        assert await served.commit(1) == 0


@asynchronous
async def test_an_append_that_takes_too_long() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1), values={"offsets.commit.timeout.ms": 20}) as served:
        await served.loaded()
        served.log.gate = asyncio.Event()
        assert await served.commit(1) == Error.COORDINATOR_NOT_AVAILABLE
        assert await served.commit(2) == Error.COORDINATOR_LOAD_IN_PROGRESS
        served.log.gate.set()  # it was only slow: what is in the log holds
        await served.loaded()
        assert await served.fetch() == {("t", 0): 1}


@asynchronous
async def test_an_append_that_raises() -> None:
    async with Served(topics=FakeTopics(t=4, __consumer_offsets=1)) as served:
        await served.loaded()

        async def broken(*args: Any) -> None:
            raise OSError("broken")

        whole = served.log.append
        served.log.append = broken  # type: ignore[method-assign, assignment]
        assert await served.commit(1) == Error.UNKNOWN_SERVER_ERROR
        served.log.append = whole  # type: ignore[method-assign]
        assert await served.commit(1) == 0


@asynchronous
async def test_a_defect_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Served() as served:
        await served.loaded()

        def broken(*args: Any, **kwargs: Any) -> bytes:
            raise RuntimeError("broken")

        with monkeypatch.context() as broken_by:
            broken_by.setattr("fastlog.coordinator.runtime.build_pairs", broken)
            assert await served.commit(1) == Error.UNKNOWN_SERVER_ERROR
        assert await served.commit(2) == 0
        assert await served.fetch() == {("t", 0): 2}


@asynchronous
async def test_a_few_partitions_are_read_at_a_time() -> None:
    log = FakeLog()
    log.read_gate = asyncio.Event()
    async with Served(log, FakeTopics(__consumer_offsets=50)) as served:
        await turns()
        assert log.reads == 4
        log.read_gate.set()
        await served.loaded()
        assert log.reads == 50


@asynchronous
async def test_fetching_stable_offsets_waits_for_commits_under_way() -> None:
    async with Served() as served:
        await served.loaded()
        await served.commit(1)
        served.log.gate = asyncio.Event()
        committing = asyncio.create_task(served.commit(2))
        await turns()
        stable = asyncio.create_task(served.fetch(stable=True))
        await turns()
        assert not stable.done()
        assert await served.fetch() == {("t", 0): 1}
        served.log.gate.set()
        assert await stable == {("t", 0): 2}
        assert await committing == 0
        assert await served.fetch(stable=True) == {("t", 0): 2}  # nothing under way


@asynchronous
async def test_fetching_stable_offsets_when_the_append_fails() -> None:
    async with Served() as served:
        await served.loaded()
        served.log.gate = asyncio.Event()
        committing = asyncio.create_task(served.commit(2))
        await turns()
        stable = asyncio.create_task(served.fetch(stable=True))
        await turns()
        served.log.fail = Error.REQUEST_TIMED_OUT
        served.log.gate.set()
        with pytest.raises(KafkaError) as failure:
            await stable
        assert failure.value.code is Error.NOT_COORDINATOR
        assert await committing == Error.COORDINATOR_NOT_AVAILABLE


@asynchronous
async def test_requests_that_are_refused_at_the_door() -> None:
    async with Served() as served:
        assert (await served.join(""))["error_code"] == Error.INVALID_GROUP_ID
        for session in (5_999, 1_800_001):
            assert (await served.join(session_timeout_ms=session))["error_code"] == Error.INVALID_SESSION_TIMEOUT
        assert (await served.sync("m", 1, {}, ""))["error_code"] == Error.INVALID_GROUP_ID
        assert (await served.service.heartbeat({"group_id": ""}))["error_code"] == Error.INVALID_GROUP_ID
        assert (await served.service.leave_group({"group_id": "", "members": []}))["error_code"] == Error.INVALID_GROUP_ID
        assert (await served.service.delete_offsets({"group_id": "", "topics": []}))["error_code"] == Error.INVALID_GROUP_ID
        await served.loaded()
        assert await served.commit(5, "") == 0  # the empty group id may commit, as ever
        assert await served.fetch("") == {("t", 0): 5}


@asynchronous
async def test_version_0_has_no_rebalance_timeout() -> None:
    async with Served() as served:
        await served.loaded()
        joining = asyncio.create_task(served.join(client=Client(0, "old", "/"), rebalance_timeout_ms=-1, session_timeout_ms=7_000))
        await turns()
        await served.advance(0)
        assert (await joining)["error_code"] == 0
        runtime = served.service._runtimes[partition_of("g", 3)]
        assert [member.rebalance_timeout_ms for member in runtime.shard.groups["g"].members.values()] == [7_000]


@asynchronous
async def test_time_outs_come_by_themselves() -> None:
    async with Served(values={"group.min.session.timeout.ms": 1}) as served:
        await served.loaded()
        member = await served.stable()
        runtime = served.service._runtimes[partition_of("g", 3)]
        runtime.shard.groups["g"].members[member].session.arm(5)
        served.clock.at_ms += 5
        await until(lambda: not runtime.shard.groups["g"].members)


@asynchronous
async def test_a_cancelled_join_leaves_nothing_behind() -> None:
    async with Served() as served:
        await served.loaded()
        await served.stable()
        joins = [asyncio.create_task(served.join(client=Client(0, "old", "/"))) for _ in range(50)]
        await turns()
        assert served.service.gauges()["members"] == 51
        for join in joins:
            join.cancel()
        await asyncio.wait(joins)
        for _ in range(2):
            await served.advance(300_000)
        for _ in range(2):
            await served.advance(60_000)
        assert served.service.gauges()["members"] == 0
        assert served.service.gauges()["timers"] == 3  # each partition's sweep


@asynchronous
async def test_stopping_answers_whoever_waits_and_finishes_what_is_under_way() -> None:
    served = Served(values={"group.initial.rebalance.delay.ms": 3_000})
    await served.service.start()
    await served.loaded()
    joining = asyncio.create_task(served.join("waits", client=Client(0, "old", "/"), rebalance_timeout_ms=60_000))
    await turns()
    served.log.gate = asyncio.Event()
    committing = asyncio.create_task(served.commit(5))
    await turns()
    stopping = asyncio.create_task(served.service.stop())
    await turns()
    served.log.gate.set()
    await stopping
    assert await committing == 0
    assert (await joining)["error_code"] == Error.NOT_COORDINATOR
    assert await served.commit(6) == Error.NOT_COORDINATOR


@asynchronous
async def test_a_deleted_topics_offsets_go() -> None:
    log = FakeLog()
    async with Served(log, FakeTopics(t=1, u=1, __consumer_offsets=3)) as served:
        await served.loaded()
        groups = [f"group-{number}" for number in range(10)]
        await asyncio.gather(*(served.commit(1, group, topic=topic) for group, topic in itertools.product(groups, "tu")))
        served.service.on_topic_deleted("t")
        await turns()
        assert [await served.fetch(group, stable=True) for group in groups] == [{("u", 0): 1}] * 10
        log.read_gate = asyncio.Event()
        other = Served(log, served.topics)
        await other.service.start()
        other.service.on_topic_deleted("u")  # while it is being loaded
        log.read_gate.set()
        await other.loaded()
        await turns()
        assert [await other.fetch(group, stable=True) for group in groups] == [{}] * 10
        await other.service.stop()


@asynchronous
async def test_groups_of_several_partitions() -> None:
    async with Served() as served:
        await served.loaded()
        groups = [f"group-{number}" for number in range(12)]
        assert len({partition_of(group, 3) for group in groups}) == 3
        for group in groups:
            await served.commit(1, group)
        listed = await served.service.list_groups(["EMPTY "], ["Classic"])
        assert {group["group_id"] for group in listed["groups"]} == set(groups)
        assert [group["group_state"] for group in await served.service.describe_groups([*groups, "nobody"], 5)] == ["Empty"] * 12 + ["Dead"]
        deleted = await served.service.delete_groups([*groups, "nobody", groups[0]])
        assert {each["group_id"]: each["error_code"] for each in deleted} == dict.fromkeys(groups, Error.NONE) | {
            "nobody": Error.GROUP_ID_NOT_FOUND
        }
        assert len(deleted) == 13
        assert served.service.gauges()["groups"] == 0


@asynchronous
async def test_what_other_coordinators_and_transactions_left() -> None:
    """A log of Kafka's: kinds of records that are not ours, unreadable ones, and offsets committed in transactions."""
    log = FakeLog()

    async def put(records: list[tuple[bytes, bytes | None]], **kwargs: Any) -> None:
        batch = build_batch([Record(0, 1, key, value) for key, value in records], timestamp_ms=1, **kwargs)
        assert (await log.append(FakeTopics().topics, 0, batch)).error is Error.NONE  # type: ignore[arg-type]

    def offset(partition: int, value: int) -> tuple[bytes, bytes]:
        return b"\0\1\0\1g\0\1t" + partition.to_bytes(4), b"\0\3" + value.to_bytes(8) + b"\xff" * 4 + b"\0\0" + bytes(8)

    await put([offset(0, 1), (b"\0\x03\0\1x", b"whatever"), (b"\0\1broken", b""), (b"\0\2\0\1x", b"\0\x63")])
    await put([offset(0, 10), offset(1, 10), offset(2, 10)], attributes=TRANSACTIONAL, producer_id=7, producer_epoch=0)
    await put([offset(2, 99)], attributes=TRANSACTIONAL, producer_id=8, producer_epoch=0)
    await put([offset(1, 11)])  # newer than the one in the transaction
    await put([(b"\0\0\0\1", b"\0\0" + bytes(4))], attributes=TRANSACTIONAL | CONTROL, producer_id=7, producer_epoch=0)
    await put([(b"\0\0\0\0", b"\0\0" + bytes(4))], attributes=TRANSACTIONAL | CONTROL, producer_id=8, producer_epoch=0)
    await put([offset(3, 5)], attributes=TRANSACTIONAL, producer_id=9, producer_epoch=0)  # never ended
    async with Served(log, FakeTopics(__consumer_offsets=1)) as served:
        await served.loaded()
        assert await served.fetch() == {("t", 0): 10, ("t", 1): 11, ("t", 2): 10}
        assert served.service.metrics.load_records_skipped == 3


@asynchronous
async def test_producer_ids_are_given_once() -> None:
    served = Served()
    ids = await asyncio.gather(*(served.service.producer_ids.next_id() for _ in range(2_500)))
    assert sorted(ids) == list(range(2_500))
    assert served.blocks == 3


@asynchronous
async def test_a_block_that_can_not_be_reserved() -> None:
    served = Served()
    ids = served.service.producer_ids

    async def fail() -> range:
        raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)

    ids._reserve_block = fail
    with pytest.raises(KafkaError):
        await ids.next_id()
    ids._reserve_block = served.reserve_block
    assert await ids.next_id() == 0


@asynchronous
async def test_a_thousand_groups_and_members_are_cheap() -> None:
    async with Served(values={"offsets.topic.num.partitions": 50}) as served:
        await served.loaded()
        members = {f"group-{number}": "" for number in range(1_000)}
        for group in members:
            members[group] = await served.stable(group)
        assert served.service.gauges()["members"] == 1_000
        heap = len(served.service._partitions.timers)
        beats = [
            {"group_id": group, "generation_id": 1, "member_id": member, "group_instance_id": None} for group, member in members.items()
        ]
        for _ in range(9):
            await served.advance(2_000)
            assert {(await served.service.heartbeat(beat))["error_code"] for beat in beats} == {Error.NONE}
        assert len(served.service._partitions.timers) <= heap
        assert served.service.gauges()["members"] == 1_000


@asynchronous
async def test_one_request_of_many_partitions() -> None:
    async with Served() as served:
        await served.loaded()
        request = commit_request(1, "g")
        at = request["topics"][0]["partitions"][0]
        request["topics"][0]["partitions"] = [at | {"partition_index": index, "committed_offset": index} for index in range(1_000)]
        response = await served.service.commit_offsets(CLIENT, request)
        assert len(response["topics"][0]["partitions"]) == 1_000
        assert await served.fetch() == {("t", index): index for index in range(1_000)}
        assert served.log.appends == 1
