"""Catching up: a consumer far behind reads from the disk while a producer goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import machine
from bench.rows import ALL, Row, Target
from fastlog.loadgen.job import Job

if TYPE_CHECKING:
    from bench.brokers import Broker
    from bench.session import Session

PRODUCE_SECONDS = 2.0  # less than the fastest read takes


def measure(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Reads a topic that is on the disk only, once; single records go to another topic by the clock while that lasts."""
    broker.check()
    topic, other = session.new_topic(broker, row), session.new_topic(broker, row)
    session.make_room(int(row.stored * 1.1))
    session.generate(Job(address=broker.address, topic=topic, configs={"retention.ms": "-1"}, window=8, seconds=300, bytes_max=row.stored))
    reading = Job(
        address=broker.address,
        topic=topic,
        create=False,
        connections=0,
        consumers=1,
        fetch_bytes=10 << 20,
        check_contents=False,
        seconds=120,
    )
    producing = Job(address=broker.address, topic=other, seconds=PRODUCE_SECONDS, settle_seconds=0.5, **row.job)
    session.generate(producing)
    machine.wait_for_quiet_disk(session.device)
    alone = session.generate(producing)
    machine.wait_for_quiet_disk(session.device)
    machine.drop_page_cache()
    before = machine.cpu_seconds(broker.pid)
    with session.beside(reading) as reader, session.beside(producing) as producer:
        pass
    return {
        "read_MB_per_s": reader.result["read_MB_per_s"],
        "read_seconds": reader.result["seconds"],
        "cpu_s": machine.cpu_seconds(broker.pid) - before,
        "alone_p99_us": alone["ack"]["p99_us"],
        "beside_p50_us": producer.result["ack"]["p50_us"],
        "beside_p99_us": producer.result["ack"]["p99_us"],
        "sound": reader.result["sound"]
        and producer.result["sound"]
        and reader.result["bytes_read"] >= row.stored
        and reader.result["seconds"] > PRODUCE_SECONDS,
    }


ROWS = (
    Row(
        "catch-up",
        "a producer's p99 while a consumer catches up from the disk, 1,000 records of 1 KiB a second, acks=all",
        "own",
        job={"acks": ALL, "rate": 1000, "window": 1024, "records": 1, "record_bytes": 1024},
        metric="beside_p99_us",
        unit="us p99",
        targets=(Target("beside_p99_us", 1 / 3, at_least=False), Target("read_MB_per_s", 1.5)),
        stored=6 << 30,
        measure=measure,
        less_is_better=True,
    ),
)
