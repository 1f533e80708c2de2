"""What broke others: many clients, many partitions, connections that only sit there, slow readers, large messages, all at once."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.brokers import Fastlog
from bench.rows import ALL, ONE, Row, Target, batches, by_the_clock
from fastlog.loadgen import wire
from fastlog.loadgen.job import Job, raise_descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.brokers import Broker
    from bench.session import Session

CONNECTIONS = 10_000
SLOW_READERS, SLOW_BYTES_PER_S = 20, 64 << 10
SMALL_SEGMENTS = {"segment.bytes": str(64 << 20), "retention.bytes": str(128 << 20)}
SINGLE: dict[str, Any] = {"acks": ONE, "rate": 1000, "records": 1, "window": 1024, "spin": True}


def volume(name: str, title: str, *targets: Target, configs: dict[str, str] | None = None, **job: Any) -> Row:
    """Throughput of a run that ends by time or bytes."""
    return Row(name, title, "throughput", job, False, "MB_per_s", "MB/s", targets, configs=configs or {}, seconds_max=20)


def own(name: str, title: str, measure: Any, metric: str, unit: str, *targets: Target, **more: Any) -> Row:
    return Row(name, title, "own", metric=metric, unit=unit, targets=targets, measure=measure, less_is_better=unit != "MB/s", **more)


@contextlib.contextmanager
def sitting(broker: Broker, count: int) -> Iterator[None]:
    """So many connections that have asked one thing (ApiVersions 0) and then nothing."""
    raise_descriptor_limit(count)
    frame = wire.header(18, 0, 1, flexible=False)
    made: list[socket.socket] = []
    try:
        for i in range(count):
            made.append(socket.create_connection(("127.0.0.1", broker.port), timeout=30))
            made[-1].sendall(len(frame).to_bytes(4, "big") + frame)
            if i % 100 == 99:  # not more at once than the listener's queue holds
                for each in made[-100:]:
                    each.recv(65536)
        yield
    finally:
        for each in made:
            each.close()


def idle_connections(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """User memory of each of 10,000 connections, and what they do to the latency of one that works."""
    seconds = session.seconds(row) / 2
    topic = session.new_topic(broker, row)
    job = replace(session.job(row, broker, topic, seconds, 0), **SINGLE)
    alone = session.observe(broker, job)
    before = machine.memory_mb(broker.pid)["anonymous"]
    with sitting(broker, CONNECTIONS):
        each_kib = (machine.memory_mb(broker.pid)["anonymous"] - before) * 1e6 / 1024 / CONNECTIONS
        among = session.observe(broker, replace(job, create=False))
    return {
        **among,
        "KiB_per_connection": round(each_kib, 2),
        "ack_p99_alone_us": alone["ack_p99_us"],
        "ack_p50_by_alone": round(among["ack_p50_us"] / alone["ack_p50_us"], 3),
        "ack_p99_by_alone": round(among["ack_p99_us"] / alone["ack_p99_us"], 3),
    }


@contextlib.contextmanager
def slow_readers(broker: Broker, topic: str) -> Iterator[None]:
    """Connections that ask for 10 MiB of a topic and take 64 KiB a second of the answer."""
    with wire.Connection("127.0.0.1", broker.port) as control:
        found = control.wait_for_topic(topic)
    request, _ = wire.fetch_request(12, found, list(range(found.partitions)), 500, 10 << 20)
    over = threading.Event()
    watched = selectors.DefaultSelector()
    for _ in range(SLOW_READERS):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        made.connect(("127.0.0.1", broker.port))
        made.sendall(request)
        made.setblocking(False)
        watched.register(made, selectors.EVENT_READ)

    def sip() -> None:
        while not over.wait(0.1):
            for key, _ in watched.select(0):
                with contextlib.suppress(OSError):  # a broker may close who reads too slowly
                    key.fileobj.recv(SLOW_BYTES_PER_S // 10)  # type: ignore[union-attr]

    reader = threading.Thread(target=sip)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        for key in list(watched.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        watched.close()


def slow_consumers(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Latency of a 50 MB/s producer while twenty consumers take 64 KiB/s each of what they asked for."""
    topic = session.new_topic(broker, row)
    session.make_room(4 << 30)
    job = session.job(row, broker, topic, session.seconds(row), 0)
    session.generate(replace(job, rate=0, spin=False, seconds=10, bytes_max=256 << 20))
    with slow_readers(broker, topic):
        return session.observe(broker, replace(job, create=False))


def mixed(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Single records by the clock, beside 30 MB/s of large batches with consumers, durable singles, and many small ones."""
    seconds = session.seconds(row)
    session.make_room(4 << 30)
    base = {"address": broker.address, "configs": {"retention.ms": "-1"}, "seconds": seconds + 2, "window": 256}
    names = [session.new_topic(broker, row) for _ in range(4)]
    large = Job(topic=names[0], partitions=16, rate=460, consumers=2, connections=2, **base)  # type: ignore[arg-type]
    durable = Job(topic=names[1], records=1, rate=300, acks=ALL, **base)  # type: ignore[arg-type]
    small = Job(topic=names[2], partitions=8, records=1, record_bytes=100, rate=3000, connections=8, **base)  # type: ignore[arg-type]
    with session.beside(large) as a, session.beside(durable) as b, session.beside(small) as c:
        time.sleep(1)
        sample = session.observe(broker, replace(session.job(row, broker, names[3], seconds, 0), **SINGLE | {"spin": False}), fill=False)
    others = {"large": a.result, "durable": b.result, "small": c.result}
    for name, result in others.items():
        sample[f"{name}_ack_p99_us"] = result["ack"].get("p99_us")
    return {**sample, "sound": sample["sound"] and all(each["sound"] for each in others.values())}


def two_cores(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """The same load on one core and on both; the generator takes what is left of its own, which is why CPU per batch is what counts."""
    options = session.options
    found: dict[str, dict[str, Any]] = {}
    for count, cores in (("one", f"{options.broker_core}"), ("two", f"{options.broker_core},{options.load_core}")):
        other = Fastlog(session.aside / f"{count}-core", cores, options.fastlog_options, options.memory_bytes)
        other.directory.parent.mkdir(parents=True, exist_ok=True)
        other.start()
        try:
            job = session.job(row, other, f"{row.name}-{count}", session.seconds(row) / 2, options.bytes_max // 2)
            session.generate(replace(job, topic=f"{row.name}-{count}-lead", seconds=options.lead_seconds))
            found[count] = session.observe(other, job)
        finally:
            other.stop()
            other.wipe()
    one, two = found["one"], found["two"]
    return {
        **two,
        "batches_per_s_one_core": one["batches_per_s"],
        "cpu_us_per_batch_one_core": one["cpu_us_per_batch"],
        "cpu_by_one_core": round(two["cpu_us_per_batch"] / one["cpu_us_per_batch"], 3),
        "batches_by_one_core": round(two["batches_per_s"] / one["batches_per_s"], 3),
        "sound": one["sound"] and two["sound"],
    }


ROWS = (
    volume(
        "clients-100",
        "50 producers and 50 consumers, 16 KiB batches, 50 partitions, acks=1",
        Target("MB_per_s", 2),
        acks=ONE,
        partitions=50,
        connections=50,
        window=2,
        records=16,
        consumers=50,
        fetch_bytes=1 << 20,
    ),
    batches(
        "small",
        "keyed records without linger: one 200-byte record per batch over 16 partitions, 8 connections, 5 in flight on each, acks=all",
        Target("batches_per_s", 3),
        acks=ALL,
        partitions=16,
        records=1,
        record_bytes=200,
        connections=8,
        window=5,
    ),
    volume("parts-1000", "64 KiB batches over 1,000 partitions, acks=1", acks=ONE, partitions=1000, connections=16, window=4),
    volume(
        "parts-5000",
        "64 KiB batches over 5,000 partitions, acks=1",
        Target("MB_per_s", 0.8, against_row="acks1-16"),
        acks=ONE,
        partitions=5000,
        connections=16,
        window=4,
    ),
    by_the_clock(
        "retention",
        "100 MB/s of 64 KiB batches while retention deletes all but 128 MiB, acks=1",
        "ack",
        Target("ack_p99_us", 1 / 2, at_least=False),
        acks=ONE,
        rate=100e6 / (64 * 1024),
        configs=SMALL_SEGMENTS,
    ),
    by_the_clock(
        "retention-durable",
        "100 MB/s of 64 KiB batches while retention deletes all but 128 MiB, acks=all",
        "ack",
        Target("ack_p99_us", 1 / 2, at_least=False),
        acks=ALL,
        rate=100e6 / (64 * 1024),
        configs=SMALL_SEGMENTS,
    ),
    volume(
        "big-10m",
        "records of 10 MB, acks=1",
        Target("MB_per_s", 2),
        configs={"max.message.bytes": str(12_000_000)},
        acks=ONE,
        records=1,
        record_bytes=10_000_000,
        fillings=2,
    ),
    own(
        "idle-10000",
        "1,000 singles a second among 10,000 connections that do nothing",
        idle_connections,
        "ack_p99_us",
        "us p99",
        Target("KiB_per_connection", 8, at_least=False, absolute=True),
        Target("ack_p99_by_alone", 1.25, at_least=False, absolute=True),
        seconds_max=20,
    ),
    own(
        "slow-consumers",
        "50 MB/s of 64 KiB batches while 20 consumers take 64 KiB a second each",
        slow_consumers,
        "ack_p99_us",
        "us p99",
        Target("ack_p99_us", 1 / 2, at_least=False),
        job={"acks": ONE, "rate": 50e6 / (64 * 1024), "window": 1024, "spin": True},
        seconds_max=15,
    ),
    own(
        "mixed",
        "1,000 singles a second beside 30 MB/s with consumers, 300 durable and 3,000 small records a second",
        mixed,
        "ack_p99_us",
        "us p99",
        Target("ack_p99_us", 1 / 2, at_least=False),
        seconds_max=15,
    ),
    Row(
        "two-cores",
        "one 100-byte record per batch over 16 partitions, a broker on two cores, the generator on one of them",
        "own",
        {"acks": ONE, "partitions": 16, "records": 1, "record_bytes": 100, "connections": 16, "window": 16},
        metric="batches_per_s",
        unit="batches/s",
        targets=(Target("cpu_by_one_core", 1.25, at_least=False, absolute=True),),
        measure=two_cores,
        brokers=("fastlog",),
        seconds_max=20,
    ),
)
