"""What the compiled loop sends, read by kio, and what it makes of answers that kio wrote; a broker of a few lines plays the other side."""

import io
import socket
import struct
import threading
import uuid
from collections.abc import Callable
from typing import Any

import kio.index
import pytest
from kafka.record.memory_records import MemoryRecords
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from fastlog.loadgen import wire
from fastlog.loadgen.job import Plan
from fastlog.native import loadengine as engine
from fastlog.native import loadtemplate as template

TOPIC = wire.Topic("some-topic", uuid.UUID(int=0x1234).bytes, 4)
NOT_LEADER = 6
LATER = 2**62  # ns; stamps of before a run are left out of its latencies

Answer = Callable[[Any], bytes | None]


def entity(name: str, version: int, kind: Any) -> Any:
    return kio.index.load_entity_schema(name, version, kind)


def read(kind: Any, data: bytes) -> tuple[Any, int]:
    return entity_reader(kind)(memoryview(data), 0)


def written(value: Any) -> bytes:
    buffer = io.BytesIO()
    entity_writer(type(value))(buffer, value)
    return buffer.getvalue()


class FakeBroker:
    """Answers every request on one end of a socket pair until the other closes; keeps what it was asked."""

    def __init__(self, name: str, version: int, answer: Answer) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.request = entity(name, version, EntityType.request)
        self.answer = answer
        self.asked: list[Any] = []
        self.problem: BaseException | None = None
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        try:
            with self.far, self.far.makefile("rb") as stream:
                while head := stream.read(4):
                    frame = stream.read(struct.unpack(">i", head)[0])
                    header, used = read(self.request.__header_schema__, frame)
                    request, size = read(self.request, frame[used:])
                    assert used + size == len(frame), "bytes left over"
                    assert header.client_id == "loadgen"
                    assert header.correlation_id == len(self.asked)
                    self.asked.append(request)
                    body = self.answer(request)
                    if body is None:
                        return
                    # In two pieces: the reader must put answers together.
                    whole = struct.pack(">iib", len(body) + 5, header.correlation_id, 0) + body
                    self.far.sendall(whole[:7])
                    self.far.sendall(whole[7:])
        except BaseException as problem:  # handed to the test
            self.problem = problem

    def close(self) -> None:
        self.near.close()
        self.thread.join()
        if self.problem:
            raise self.problem


def plan(**given: Any) -> Plan:
    values: dict[str, Any] = {
        "partitions": 1, "records": 3, "record_bytes": 100, "fillings": 4, "seed": 1, "codec": 0, "sections": [], "acks": 1, "window": 8,
        "batches_per_request": 1, "rate": 0.0, "produce_version": 12, "producers": [], "fetch_version": 12, "fetch_inbox_bytes": 1 << 20,
        "consumers": [], "copies": 0, "check_contents": True, "rewind": False, "spin": False, "seconds": 10.0, "settle_seconds": 0.0,
        "drain_seconds": 2.0, "interval_seconds": 0.1, "batches_max": 0,
    }  # fmt: skip
    values.update(given)
    size = len(template.make_batch(values["records"], values["record_bytes"]))
    prefix = wire.produce_prefix(values["produce_version"], TOPIC, values["acks"], values["batches_per_request"], size)
    return Plan(**values, batch_bytes=size, produce_prefix=prefix, produce_item=wire.produce_item(size))


class Log:
    """Answers produces, with growing offsets and errors as told."""

    def __init__(self, version: int, error: Callable[[int, int], int] = lambda _request, _partition: 0) -> None:
        self.response = entity("produce", version, EntityType.response)
        self.version, self.error = version, error
        self.count = 0
        self.ends: dict[int, int] = {}

    def __call__(self, request: Any) -> bytes:
        [topic] = request.topic_data
        made = []
        for each in topic.partition_data:
            code = self.error(self.count, each.index)
            offset = -1 if code else self.ends.get(each.index, 0)
            self.ends[each.index] = self.ends.get(each.index, 0) + 3
            nested = self.response.__annotations__["responses"].__args__[0]
            partition = nested.__annotations__["partition_responses"].__args__[0]
            made.append(
                partition(
                    index=each.index,
                    error_code=ErrorCode(code),
                    base_offset=offset,
                    record_errors=(),
                    error_message="no leader here" if code else None,
                )
            )
        self.count += 1
        name = {"topic_id": topic.topic_id} if self.version >= 13 else {"name": topic.name}
        return written(self.response(responses=(nested(**name, partition_responses=tuple(made)),)))


@pytest.mark.parametrize("version", [9, 10, 11, 12, 13])
@pytest.mark.parametrize(
    ("records", "record_bytes", "partitions", "batches"), [(3, 100, 1, 1), (3, 100, 4, 3), (64, 1024, 1, 1), (5, 3000, 4, 4)]
)
def test_produce_requests(version: int, records: int, record_bytes: int, partitions: int, batches: int) -> None:
    broker = FakeBroker("produce", version, Log(version))
    try:
        result = engine.run(
            plan(
                records=records,
                record_bytes=record_bytes,
                partitions=partitions,
                batches_per_request=batches,
                produce_version=version,
                producers=[(broker.near.fileno(), 4711, 2)],
                batches_max=60,
            )
        )
    finally:
        broker.close()
    assert result["trouble"] == ""
    assert not result["incomplete"]
    assert result["disorder"] == 0
    assert result["batches_acked"] == len(broker.asked) * batches >= 60
    assert result["requests"] == result["requests_answered"] == result["ack"]["count"] == len(broker.asked)
    assert result["produce_errors"] == {}
    sequences = dict.fromkeys(range(partitions), 0)
    turn = 0
    for request in broker.asked:
        assert (request.transactional_id, request.acks) == (None, 1)
        [topic] = request.topic_data
        assert topic.topic_id == uuid.UUID(bytes=TOPIC.id) if version >= 13 else topic.name == TOPIC.name
        assert len(topic.partition_data) == batches
        for each in topic.partition_data:
            assert each.index == turn % partitions
            turn += 1
            memory = MemoryRecords(bytes(each.records))
            batch = memory.next_batch()
            assert batch is not None
            assert not memory.has_next()
            assert batch.validate_crc()
            assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4711, 2, sequences[each.index])
            assert len(list(batch)) == records
            sequences[each.index] += records


def test_errors_are_counted_by_code() -> None:
    broker = FakeBroker("produce", 12, Log(12, lambda request, partition: NOT_LEADER if request % 10 == 3 and partition == 1 else 0))
    try:
        result = engine.run(plan(partitions=2, batches_per_request=2, producers=[(broker.near.fileno(), -1, -1)], batches_max=100))
    finally:
        broker.close()
    failed = sum(1 for i in range(len(broker.asked)) if i % 10 == 3)
    assert result["trouble"] == ""
    assert result["produce_errors"] == {NOT_LEADER: failed}
    assert result["batches_failed"] == failed
    assert result["batches_acked"] == 2 * len(broker.asked) - failed


def test_open_loop_keeps_the_rate_and_counts_waiting() -> None:
    """A broker that stalls once makes all that was due meanwhile late: the time at which it was to be sent counts."""
    stalled = threading.Event()
    log = Log(12)

    def answer(request: Any) -> bytes:
        if log.count == 100 and not stalled.is_set():
            stalled.wait(0.2)
            stalled.set()
        return log(request)

    broker = FakeBroker("produce", 12, answer)
    try:
        result = engine.run(plan(producers=[(broker.near.fileno(), -1, -1)], rate=500.0, seconds=1.0, window=2))
    finally:
        broker.close()
    assert result["trouble"] == ""
    assert result["requests"] == pytest.approx(501, abs=1)
    late = sum(count for at, count in result["ack"]["buckets"] if at > 20e6)
    assert late >= 80, "about 90 requests were due between 20 ms after the stall's start and its end"


def test_a_broker_that_closes() -> None:
    log = Log(12)
    broker = FakeBroker("produce", 12, lambda request: None if log.count == 5 else log(request))
    try:
        result = engine.run(plan(producers=[(broker.near.fileno(), -1, -1)]))
    finally:
        broker.near.close()
        broker.thread.join()
    assert result["trouble"] == "the broker closed a connection (connection 0)"


def test_a_broker_that_answers_nonsense() -> None:
    broker = FakeBroker("produce", 12, lambda _request: b"\1\0\0\0\0\0")
    try:
        result = engine.run(plan(producers=[(broker.near.fileno(), -1, -1)], window=1))
    finally:
        broker.close()
    assert "could not be read" in result["trouble"]


def stored(partition: int, base: int, sequence: int) -> bytes:
    """A batch as a broker keeps it: base offset and leader epoch set."""
    made = bytearray(
        template.make_batch(3, 100, filling=sequence % 4, fillings=4, sequence=sequence, producer_id=1, producer_epoch=0, due_ns=LATER)
    )
    struct.pack_into(">q", made, 0, base)
    struct.pack_into(">i", made, 12, 5)
    return bytes(made)


class Store:
    """Answers fetches from batches in memory, two a time, the second cut in its middle."""

    def __init__(self, version: int, batches: dict[int, list[bytes]]) -> None:
        self.response = entity("fetch", version, EntityType.response)
        self.version, self.batches = version, batches

    def __call__(self, request: Any) -> bytes:
        [topic] = request.topics
        nested = self.response.__annotations__["responses"].__args__[0]
        partition = nested.__annotations__["partitions"].__args__[0]
        made = []
        for each in topic.partitions:
            left = [b for b in self.batches[each.partition] if struct.unpack_from(">q", b)[0] + 3 > each.fetch_offset]
            data = b"".join(left[:1]) + b"".join(left[1:2])[:150]
            made.append(
                partition(
                    partition_index=each.partition, error_code=ErrorCode(0), high_watermark=99, aborted_transactions=None, records=data
                )
            )
        name = {"topic_id": topic.topic_id} if self.version >= 13 else {"topic": topic.topic}
        body = self.response(throttle_time=entity_timedelta(), error_code=ErrorCode(0), responses=(nested(**name, partitions=tuple(made)),))
        return written(body)


def entity_timedelta() -> Any:
    from datetime import timedelta

    from kio.static.primitive import i32Timedelta

    return i32Timedelta.parse(timedelta(0))


def fetch(version: int, batches: dict[int, list[bytes]], **given: Any) -> tuple[dict[str, Any], FakeBroker]:
    broker = FakeBroker("fetch", version, Store(version, batches))
    ids = sorted(batches)
    request, offset_at = wire.fetch_request(version, TOPIC, ids, 10, 1 << 16)
    until = [struct.unpack_from(">q", batches[i][-1])[0] + 3 for i in ids]
    try:
        result = engine.run(
            plan(
                partitions=4,
                fetch_version=version,
                consumers=[(broker.near.fileno(), request, offset_at, ids, [0] * len(ids), until)],
                copies=1,
                seconds=3.0,
                **given,
            )
        )
    finally:
        broker.close()
    return result, broker


@pytest.mark.parametrize("version", [12, 13, 14, 15, 16, 17, 18])
def test_fetch(version: int) -> None:
    batches = {i: [stored(i, 3 * n, 3 * n) for n in range(5)] for i in (1, 3)}
    result, broker = fetch(version, batches)
    assert result["trouble"] == ""
    assert (result["batches_read"], result["records_read"]) == (10, 30)
    assert (result["gaps"], result["bad_crc"], result["foreign"], result["fetch_errors"]) == (0, 0, 0, {})
    assert result["end_to_end"]["count"] == 10
    for request in broker.asked:
        assert (request.min_bytes, request.session_id, request.session_epoch, request.rack_id) == (1, 0, -1, "")
        assert [each.partition for each in request.topics[0].partitions] == [1, 3]
    assert [each.fetch_offset for each in broker.asked[1].topics[0].partitions] == [3, 3]


def test_what_a_broker_lost_or_damaged_is_seen() -> None:
    lost = {0: [stored(0, 0, 0), stored(0, 6, 6)]}
    assert fetch(12, lost)[0]["gaps"] == 1
    damaged = bytearray(stored(0, 3, 3))
    damaged[200] ^= 1
    assert fetch(12, {0: [stored(0, 0, 0), bytes(damaged)]})[0]["bad_crc"] == 1
    # Sound, and from a template, but not what its stamp says was sent.
    swapped = bytearray(
        template.make_batch(3, 100, filling=0, fillings=4, seed=9, producer_id=1, producer_epoch=0, sequence=3, due_ns=LATER)
    )
    struct.pack_into(">q", swapped, 0, 3)
    assert fetch(12, {0: [stored(0, 0, 0), bytes(swapped)]})[0]["foreign"] == 1
