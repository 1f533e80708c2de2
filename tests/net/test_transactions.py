"""Transactional produces and reads of committed records over a socket, on a data plane whose coordinator is the test.

What the coordinator itself decides is tested with it; here it says what a test wants said, when the test wants it said.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker.plane import BatchRules, ListenAddress, LogSettings, PartitionSpec, PlaneConfig, TxnCheck
from fastlog.broker.shards import ShardedPlane
from fastlog.protocol.errors import Error
from fastlog.protocol.records import CONTROL, TRANSACTIONAL, Record, build_batch, build_end_marker, iter_batches
from tests.support.peer import Peer, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

TOPIC, TOPIC_ID = "t", uuid.UUID(int=7)
NOW = int(time.time() * 1000)


class Running:
    """A data plane with a topic of some partitions, on as many shards as there are `cores`."""

    def __init__(self) -> None:
        self.plane = ShardedPlane()
        self.checks: asyncio.Queue[TxnCheck] = asyncio.Queue()
        self.bootstrap = ""

    async def start(self, path: Path, io: str, partitions: int, shards: int) -> None:
        config = PlaneConfig(cores=[0] * shards, memory=64 << 20, io=io, arena=None)
        await self.plane.start(config, lambda _: None, self.checks.put_nowait)
        for index in range(partitions):
            spec = PartitionSpec(
                TOPIC_ID, TOPIC, index, str(path / f"{TOPIC}-{index}"), 0, create=True, clean=False, settings=LogSettings()
            )
            assert (await self.plane.open_partition(spec)).error == Error.NONE
        await self.plane.publish_topic(TOPIC, TOPIC_ID, partitions, BatchRules(), internal=False)
        (bound,) = await self.plane.bind([ListenAddress("plain", "127.0.0.1", 0)])
        await self.plane.accept()
        self.bootstrap = f"127.0.0.1:{bound.port}"

    async def mark(self, partition: int, producer: int, epoch: int, *, commit: bool, version: int = 1) -> int:
        result = await self.plane.write_txn_marker(
            TOPIC_ID, partition, producer_id=producer, producer_epoch=epoch, coordinator_epoch=0, commit=commit, version=version
        )
        assert result.error == Error.NONE
        return result.base_offset

    async def begin(self, peer: Peer, producer: int, **fields: Any) -> dict[str, Any]:
        """A produce that begins a transaction, with the coordinator's consent."""
        answer = asyncio.ensure_future(asyncio.to_thread(peer.call, "Produce", 12, produce(producer=producer, **fields)))
        check = await asyncio.wait_for(self.checks.get(), 20)
        self.plane.txn_checked(check.token, [Error.NONE] * len(check.partitions))
        return partition_of(await answer)


@asynccontextmanager
async def running(path: Path, io: str, *, partitions: int = 1, shards: int = 1) -> AsyncIterator[Running]:
    here = Running()
    cores = os.sched_getaffinity(0)
    await here.start(path, io, partitions, shards)
    try:
        yield here
    finally:
        await here.plane.drain(1000)
        await here.plane.unpublish_topic(TOPIC_ID)
        for index in range(partitions):
            await here.plane.close_partition(TOPIC_ID, index)
        await here.plane.stop()
        os.sched_setaffinity(0, cores)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 120))


def data(producer: int, epoch: int = 0, sequence: int = 0, count: int = 1, attributes: int = TRANSACTIONAL) -> bytes:
    records = [Record(i, NOW, b"k", b"v%d" % producer) for i in range(count)]
    return build_batch(records, timestamp_ms=NOW, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, attributes=attributes)


def produce(*, producer: int = 1, epoch: int = 0, sequence: int = 0, partitions: tuple[int, ...] = (0,), txn: str | None = "x") -> Any:
    parts = [{"index": partition, "records": data(producer, epoch, sequence)} for partition in partitions]
    return {"transactional_id": txn, "acks": -1, "timeout_ms": 10_000, "topic_data": [{"name": TOPIC, "partition_data": parts}]}


def raw(batch: bytes, *, partition: int = 0, txn: str | None = "x") -> Any:
    parts = [{"index": partition, "records": batch}]
    return {"transactional_id": txn, "acks": -1, "timeout_ms": 10_000, "topic_data": [{"name": TOPIC, "partition_data": parts}]}


def partition_of(response: dict[str, Any], index: int = 0) -> dict[str, Any]:
    (topic,) = response["responses"]
    found: dict[str, Any] = (topic.get("partition_responses") or topic.get("partitions"))[index]
    return found


async def call(peer: Peer, api: str, version: int, message: Any) -> Any:
    return await asyncio.to_thread(peer.call, api, version, message)


@pytest.mark.parametrize("version", range(3, 14))
def test_a_transaction_begins_when_the_coordinator_agrees(tmp_path: Path, engine: str, version: int) -> None:
    async def test() -> None:
        async with running(tmp_path, engine, partitions=2) as here:
            with Peer(here.bootstrap) as peer:
                asked = produce(partitions=(0, 1))
                if version >= 13:
                    asked["topic_data"][0]["topic_id"] = TOPIC_ID
                answer = asyncio.ensure_future(call(peer, "Produce", version, asked))
                check = await here.checks.get()
                assert (check.transactional_id, check.producer_id, check.producer_epoch, check.add) == ("x", 1, 0, version >= 12)
                assert check.partitions == [(TOPIC_ID, TOPIC, 0), (TOPIC_ID, TOPIC, 1)]
                assert not answer.done()
                here.plane.txn_checked(check.token, [Error.NONE, Error.INVALID_TXN_STATE])
                response = await answer
                first, second = partition_of(response, 0), partition_of(response, 1)
                assert (first["error_code"], first["base_offset"]) == (0, 0)
                assert (second["error_code"], second["base_offset"]) == (Error.INVALID_TXN_STATE, -1)
                # it goes on without a question; after its end the next one is asked for
                assert partition_of(await call(peer, "Produce", 12, produce(sequence=1)))["error_code"] == 0
                await here.mark(0, 1, 0, commit=True)
                assert (await here.begin(peer, 1, sequence=2))["base_offset"] == 3
                assert here.checks.empty()

    run(test)


def test_nothing_overtakes_a_produce_that_waits(tmp_path: Path, engine: str) -> None:
    async def test() -> None:
        async with running(tmp_path, engine) as here:
            with Peer(here.bootstrap) as peer, Peer(here.bootstrap) as other:
                asked = [peer.ask("Produce", 11, produce(sequence=sequence)) for sequence in range(5)]
                check = await here.checks.get()
                # other connections go on meanwhile
                plain = await call(other, "Produce", 9, raw(data(-1, -1, -1, attributes=0), txn=None))
                assert partition_of(plain)["base_offset"] == 0
                here.plane.txn_checked(check.token, [Error.NONE])
                answers = [await asyncio.to_thread(peer.answer) for _ in asked]
                assert [(correlation, partition_of(answer)["base_offset"]) for correlation, answer in answers] == [
                    (correlation, 1 + i) for i, correlation in enumerate(asked)
                ]
                assert here.checks.empty()

    run(test)


def test_partitions_of_other_shards_are_asked_too(tmp_path: Path, engine: str) -> None:
    async def test() -> None:
        async with running(tmp_path, engine, partitions=4, shards=2) as here:
            with Peer(here.bootstrap) as peer:
                for sequence in range(3):
                    answer = asyncio.ensure_future(call(peer, "Produce", 12, produce(sequence=sequence, partitions=(0, 1, 2, 3))))
                    if sequence == 0:
                        check = await here.checks.get()
                        assert [index for _, _, index in check.partitions] == [0, 1, 2, 3]
                        here.plane.txn_checked(check.token, [Error.NONE] * 4)
                    response = await answer
                    assert [partition_of(response, i)["base_offset"] for i in range(4)] == [sequence] * 4
                assert here.checks.empty()

    run(test)


@pytest.mark.parametrize(
    ("said", "version", "told"),
    [
        (Error.PRODUCER_FENCED, 12, Error.INVALID_PRODUCER_EPOCH),
        (Error.INVALID_PRODUCER_EPOCH, 12, Error.INVALID_PRODUCER_EPOCH),
        (Error.TRANSACTION_ABORTABLE, 10, Error.INVALID_TXN_STATE),
        (Error.TRANSACTION_ABORTABLE, 11, Error.TRANSACTION_ABORTABLE),
        (Error.CONCURRENT_TRANSACTIONS, 11, Error.NOT_ENOUGH_REPLICAS),
        (Error.CONCURRENT_TRANSACTIONS, 12, Error.CONCURRENT_TRANSACTIONS),
        (Error.NOT_COORDINATOR, 12, Error.NOT_ENOUGH_REPLICAS),
        (Error.COORDINATOR_LOAD_IN_PROGRESS, 9, Error.NOT_ENOUGH_REPLICAS),
        (Error.INVALID_PRODUCER_ID_MAPPING, 12, Error.INVALID_PRODUCER_ID_MAPPING),
    ],
)
def test_errors_are_those_that_a_producer_knows(tmp_path: Path, said: Error, version: int, told: Error) -> None:
    async def test() -> None:
        async with running(tmp_path, "auto") as here:
            with Peer(here.bootstrap) as peer:
                answer = asyncio.ensure_future(call(peer, "Produce", version, produce()))
                here.plane.txn_checked((await here.checks.get()).token, [said])
                assert partition_of(await answer)["error_code"] == told
                positions = here.plane.positions(TOPIC_ID, 0)
                assert positions is not None
                assert positions.log_end == 0

    run(test)


def test_what_no_coordinator_need_be_asked(tmp_path: Path, engine: str) -> None:
    async def test() -> None:
        async with running(tmp_path, engine, partitions=2) as here:
            with Peer(here.bootstrap) as peer:

                async def refused(message: Any) -> list[int]:
                    response = await call(peer, "Produce", 12, message)
                    return [p["error_code"] for topic in response["responses"] for p in topic["partition_responses"]]

                assert await refused(produce(txn=None)) == [Error.TRANSACTIONAL_ID_AUTHORIZATION_FAILED]
                two = produce(partitions=(0, 1))
                two["topic_data"][0]["partition_data"][1]["records"] = data(2)
                assert await refused(two) == [Error.INVALID_PRODUCER_ID_MAPPING] * 2
                marker = build_end_marker(producer_id=1, producer_epoch=0, coordinator_epoch=0, commit=True, timestamp_ms=NOW)
                assert await refused(raw(marker)) == [Error.INVALID_RECORD]
                assert await refused(raw(data(1, attributes=CONTROL))) == [Error.INVALID_RECORD]
                # an idempotent producer may name a transactional id
                assert await refused(raw(data(1, attributes=0))) == [0]
                assert here.checks.empty()

    run(test)


@pytest.mark.parametrize(("version", "epoch", "error"), [(11, 0, Error.INVALID_TXN_STATE), (12, 1, Error.INVALID_PRODUCER_EPOCH)])
def test_an_end_that_comes_first_makes_the_answer_void(tmp_path: Path, engine: str, version: int, epoch: int, error: Error) -> None:
    """The ABA problem of KIP-890: the transaction that was asked about is over when the answer comes. From version 12 on an end has an
    epoch of its own, which tells."""

    async def test() -> None:
        async with running(tmp_path, engine) as here:
            with Peer(here.bootstrap) as peer:
                answer = asyncio.ensure_future(call(peer, "Produce", version, produce()))
                check = await here.checks.get()
                await here.mark(0, 1, epoch, commit=False, version=1 + epoch)
                here.plane.txn_checked(check.token, [Error.NONE])
                assert partition_of(await answer)["error_code"] == error

    run(test)


def test_a_stop_leaves_no_question_open(tmp_path: Path, engine: str) -> None:
    async def test() -> None:
        async with running(tmp_path, engine) as here:
            with Peer(here.bootstrap) as peer:
                peer.ask("Produce", 12, produce())
                check = await here.checks.get()
                assert await here.plane.drain(50) == 0
                _, response = await asyncio.to_thread(peer.answer)
                assert partition_of(response)["error_code"] == Error.NOT_ENOUGH_REPLICAS
                here.plane.txn_checked(check.token, [Error.NONE])  # too late, and no harm

    run(test)


async def some_history(here: Running, peer: Peer) -> None:
    """Offsets: 0 of producer 1, aborted at 2; 1 of producer 2, committed at 3; 4 plain; 5 of producer 3, open; 6 plain."""
    await here.begin(peer, 1)
    await here.begin(peer, 2)
    await here.mark(0, 1, 0, commit=False)
    await here.mark(0, 2, 0, commit=True)
    await here.plane.append(TOPIC_ID, 0, data(-1, -1, -1, attributes=0))
    await here.begin(peer, 3)
    await here.plane.append(TOPIC_ID, 0, data(-1, -1, -1, attributes=0))


@pytest.mark.parametrize("version", range(4, 19))
def test_fetch_of_committed_records(tmp_path: Path, engine: str, version: int) -> None:
    async def test() -> None:
        async with running(tmp_path, engine) as here:
            with Peer(here.bootstrap) as peer:
                await some_history(here, peer)
                for isolation in (0, 1):
                    message = fetch(TOPIC) | {"isolation_level": isolation}
                    if version >= 13:
                        message["topics"] = [{"topic_id": TOPIC_ID, "partitions": message["topics"][0]["partitions"]}]
                    if version < 7:
                        del message["session_epoch"]
                    found = partition_of(await call(peer, "Fetch", version, message))
                    assert (found["error_code"], found["high_watermark"], found["last_stable_offset"]) == (0, 7, 5)
                    offsets = [batch.base_offset for batch in iter_batches(found["records"])]
                    if isolation:
                        assert offsets == [0, 1, 2, 3, 4]
                        assert found["aborted_transactions"] == [{"producer_id": 1, "first_offset": 0}]
                    else:
                        assert offsets == [0, 1, 2, 3, 4, 5, 6]
                        assert found["aborted_transactions"] is None

    run(test)


@pytest.mark.parametrize("version", range(2, 12))
def test_offsets_for_readers_of_committed_records(tmp_path: Path, version: int) -> None:
    async def test() -> None:
        async with running(tmp_path, "auto") as here:
            with Peer(here.bootstrap) as peer:
                await some_history(here, peer)

                async def offset(isolation: int, timestamp: int) -> int:
                    part = {"partition_index": 0, "timestamp": timestamp}
                    message = {"replica_id": -1, "isolation_level": isolation, "topics": [{"name": TOPIC, "partitions": [part]}]}
                    response = await call(peer, "ListOffsets", version, message)
                    (found,) = response["topics"][0]["partitions"]
                    assert found["error_code"] == 0
                    return int(found["offset"])

                assert [await offset(isolation, -1) for isolation in (0, 1)] == [7, 5]
                assert [await offset(isolation, -2) for isolation in (0, 1)] == [0, 0]
                assert [await offset(isolation, NOW) for isolation in (0, 1)] == [0, 0]

    run(test)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_commit_wakes_those_who_wait_for_committed_records(tmp_path: Path, engine: str, shards: int) -> None:
    async def test() -> None:
        async with running(tmp_path, engine, partitions=2, shards=shards) as here:
            with Peer(here.bootstrap) as peer, Peer(here.bootstrap) as reader:
                await here.begin(peer, 1, partitions=(0, 1))
                asked = fetch(TOPIC, partitions=2, wait_ms=60_000) | {"isolation_level": 1}
                waiting = asyncio.ensure_future(call(reader, "Fetch", 11, asked))
                # what is written in the meantime is not for it
                await here.plane.append(TOPIC_ID, 1, data(-1, -1, -1, attributes=0))
                await asyncio.sleep(0.2)
                assert not waiting.done()
                await here.mark(1, 1, 0, commit=True)
                found = partition_of(await waiting, 1)
                assert [batch.base_offset for batch in iter_batches(found["records"])] == [0, 1, 2]

    run(test)


def test_what_is_known_of_producers(tmp_path: Path, engine: str) -> None:
    async def test() -> None:
        async with running(tmp_path, engine) as here:
            with Peer(here.bootstrap) as peer:
                await here.begin(peer, 1)
                await here.begin(peer, 2)
                await here.mark(0, 2, 1, commit=True, version=2)
                producers = {p.producer_id: p for p in await here.plane.describe_producers(TOPIC_ID, 0)}
                assert (producers[1].last_sequence, producers[1].coordinator_epoch, producers[1].txn_start_offset) == (0, -1, 0)
                assert (producers[2].producer_epoch, producers[2].last_sequence) == (1, -1)
                assert (producers[2].coordinator_epoch, producers[2].txn_start_offset) == (0, -1)

    run(test)
