"""Starting again: after kill -9 under load until all partitions serve, and with many partitions and much data."""

from __future__ import annotations

import contextlib
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.brokers import Fastlog, StartError
from bench.rows import ONE, Row, Target
from fastlog.loadgen import wire

if TYPE_CHECKING:
    from pathlib import Path

    from bench.brokers import Broker
    from bench.session import Session

VERSION = 12  # of Produce: topics by name
PARTITIONS = 1000
LOAD_SECONDS = 15.0
DEADLINE_S = 300.0
STARTS_MAX = 3  # of one broker: one that ends by itself while it recovers is started again
BATCH_BYTES = 64 << 10
RATE_BYTES = 100e6  # a second: what both keep up with, so that both have as much to recover
MANY, SPARSE_BYTES = 5000, 500_000_000_000
ROLLED_OFFSETS, ACTIVE_BATCHES = 1_000_000, 16


def produce_to_all(topic: wire.Topic, partitions: list[int], batch: bytes) -> bytes:
    """A request, from its header on, with one batch for each of these partitions, acks=1."""
    item = wire.produce_item(len(batch))[4:]
    body = b"".join(struct.pack(">i", partition) + item + batch + b"\0" for partition in partitions)
    return wire.produce_prefix(VERSION, topic, ONE, len(partitions), len(batch))[4:] + body + b"\0\0"


def accepted(answer: wire.Fields) -> set[int]:
    """The partitions that took their batch. Raises ValueError."""
    answer.tags()
    taken: set[int] = set()
    for _ in range(answer.uvarint() - 1):
        answer.compact_text()
        for _ in range(answer.uvarint() - 1):
            partition, code = answer.number(4), answer.number(2)
            if code == 0:
                taken.add(partition)
            answer.take(24)  # base offset, append time, log start
            for _ in range(answer.uvarint() - 1):
                answer.number(4)
                answer.compact_text()
                answer.tags()
            answer.compact_text()
            answer.tags()
        answer.tags()
    return taken


def wait_for_all(broker: Broker, topic: wire.Topic, begun: float) -> float:
    """Seconds from `begun` (monotonic) until each partition took a record. Raises StartError."""
    from fastlog.native import loadtemplate as template

    batch = template.make_batch(1, 100)
    left = set(range(topic.partitions))
    while True:
        with contextlib.suppress(OSError), wire.Connection("127.0.0.1", broker.port, timeout=60) as control:
            while True:
                left -= accepted(control.send_frame(produce_to_all(topic, sorted(left), batch)))
                if not left:
                    return time.monotonic() - begun
                _not_too_late(broker, begun, len(left))
        _not_too_late(broker, begun, len(left))


def wait_for_ends(broker: Broker, topic: wire.Topic, begun: float) -> tuple[float, list[int]]:
    """Seconds until clients are let in and each partition tells its end, and the ends. Raises StartError."""
    while True:
        with contextlib.suppress(OSError, wire.BrokerError), wire.Connection("127.0.0.1", broker.port, timeout=60) as control:
            ends = control.offsets(topic.name, range(topic.partitions), -1)
            return time.monotonic() - begun, ends
        _not_too_late(broker, begun, topic.partitions)


def _not_too_late(broker: Broker, begun: float, left: int) -> None:
    broker.check()
    if time.monotonic() - begun > DEADLINE_S:
        raise StartError(f"{left} partitions of {broker.name} do not serve after {DEADLINE_S:.0f} s:\n{broker.tail()}")
    time.sleep(0.002)


def ended(broker: Broker) -> bool:
    return broker.process is None or broker.process.poll() is not None


def recover(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Kills a broker under load, and starts it again at once."""
    broker.check()
    topic = wire.Topic(session.new_topic(broker, row), b"", row.job["partitions"])
    session.make_room(int(2 * RATE_BYTES * LOAD_SECONDS))
    job = session.job(row, broker, topic.name, 2 * LOAD_SECONDS, 0)
    broker.make_topic(topic.name, job.partitions, job.configs)
    machine.wait_for_quiet_disk(session.device, session.options.quiet_seconds)
    with session.beside(replace(job, drain_seconds=0.1)) as load:  # ends when the broker is gone
        time.sleep(LOAD_SECONDS)
        broker.check()
        assert broker.process is not None
        broker.process.kill()
        broker.process.wait()
    begun = latest = broker.launch()
    starts = 1
    while True:
        try:
            seconds = wait_for_all(broker, topic, begun)
            break
        except StartError:
            if not ended(broker) or starts == STARTS_MAX:
                raise
            latest = broker.launch()  # as a supervisor would
            starts += 1
    with wire.Connection("127.0.0.1", broker.port) as control:
        ends = control.offsets(topic.name, range(job.partitions), -1)
    broker.delete_topic(topic.name)
    session.topics.remove((broker, topic.name))
    records = sum(ends) - job.partitions
    return {
        "recovered_s": round(seconds, 3),
        "starts": starts,
        "last_start_s": round(seconds - (latest - begun), 3),
        "recovered_GB": round(records * job.record_bytes / 1e9, 3),
        "acked_GB": round(load.result["acked_bytes"] / 1e9, 3),
        "sound": load.result["acked_bytes"] > 0 and records * job.record_bytes >= load.result["acked_bytes"],
    }


def fill(partition: Path, rolled_bytes: int) -> None:
    """Gives a partition two segments: a rolled one that is a hole up to its last batch, where its index leads, and an active one."""
    from fastlog._core import crc32c
    from fastlog.protocol.records import Record, build_batch

    def batch(offset: int) -> bytes:
        return build_batch([Record(0, 1000, None, b"x" * 900)], timestamp_ms=1000, base_offset=offset, leader_epoch=0)

    for old in partition.glob("*.snapshot"):
        old.unlink()
    base, last = partition / f"{0:020}", batch(ROLLED_OFFSETS - 1)
    at = rolled_bytes - len(last)
    with base.with_suffix(".log").open("wb") as file:
        file.truncate(rolled_bytes)
        file.seek(at)
        file.write(last)
    base.with_suffix(".index").write_bytes(struct.pack(">II", ROLLED_OFFSETS - 1, at))
    base.with_suffix(".timeindex").write_bytes(struct.pack(">qI", 1000, ROLLED_OFFSETS - 1))
    nobody = struct.pack(">i", 0)
    (partition / f"{ROLLED_OFFSETS:020}.snapshot").write_bytes(struct.pack(">hI", 1, crc32c(nobody)) + nobody)
    (partition / f"{ROLLED_OFFSETS:020}.log").write_bytes(b"".join(batch(ROLLED_OFFSETS + i) for i in range(ACTIVE_BATCHES)))


def start_with_much(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Starts on 5,000 partitions with 500 GB (sparse), after a clean stop and after kill -9: until all answer, and until each took a record
    (which makes room in each, all in one request)."""
    options = session.options
    session.aside.mkdir(parents=True, exist_ok=True)
    other = Fastlog(session.aside, options.broker_core, options.fastlog_options, options.memory_bytes)
    try:
        other.start()
        other.make_topic(row.name, MANY, {"retention.ms": "-1"})
        other.stop()
        for index in range(MANY):
            fill(other.directory / f"{row.name}-{index}", SPARSE_BYTES // MANY)
        machine.wait_for_quiet_disk(session.device, options.quiet_seconds)
        topic = wire.Topic(row.name, b"", MANY)
        clean_s, _ = wait_for_ends(other, topic, begun := other.launch())
        clean_all_s = wait_for_all(other, topic, begun)
        assert other.process is not None
        other.process.kill()
        other.process.wait()
        killed_s, ends = wait_for_ends(other, topic, begun := other.launch())
        killed_all_s = wait_for_all(other, topic, begun)
        other.stop()
    finally:
        other.stop()
        other.wipe()
    return {
        "killed_s": round(killed_s, 3),
        "killed_all_s": round(killed_all_s, 3),
        "clean_s": round(clean_s, 3),
        "clean_all_s": round(clean_all_s, 3),
        "sound": set(ends) == {ROLLED_OFFSETS + ACTIVE_BATCHES + 1},
    }


ROWS = (
    Row(
        "recovery",
        "kill -9 while 100 MB/s of 64 KiB batches go to 1,000 partitions, acks=1: from the start until each takes a record again",
        "own",
        {"acks": ONE, "partitions": PARTITIONS, "connections": 16, "window": 4, "rate": RATE_BYTES / BATCH_BYTES},
        metric="recovered_s",
        unit="s",
        targets=(Target("recovered_s", 1 / 5, at_least=False),),
        measure=recover,
        restarts=True,
        less_is_better=True,
    ),
    Row(
        "start-5000",
        "start after kill -9 with 5,000 partitions and 500 GB (sparse files) until clients are let in and each partition answers",
        "own",
        metric="killed_s",
        unit="s",
        targets=(Target("killed_s", 5, at_least=False, absolute=True), Target("clean_s", 5, at_least=False, absolute=True)),
        measure=start_with_much,
        restarts=True,
        brokers=("fastlog",),
        less_is_better=True,
    ),
)
