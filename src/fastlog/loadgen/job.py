"""A load as it is described (`Job`), prepared for the compiled loop (`Plan`), and run."""

from __future__ import annotations

import os
import resource
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from fastlog.loadgen import contents, wire

RESERVED_DESCRIPTORS = 64


@dataclass(frozen=True)
class Job:
    """What to send and read. Times in seconds, sizes in bytes."""

    address: str = "127.0.0.1:9092"
    topic: str = "bench"
    partitions: int = 1
    configs: dict[str, str] = field(default_factory=dict)
    create: bool = True
    connections: int = 1  # that produce; 0: read only
    window: int = 4  # requests in flight on each
    batches_per_request: int = 1  # each for another partition
    records: int = 64  # in a batch
    record_bytes: int = 1024  # of a value
    fillings: int = 16  # different contents that take turns
    compression: str = "none"  # or gzip, snappy, lz4, zstd; half of each value is new then, and consumers don't know when it was due
    acks: int = 1
    idempotent: bool = True
    rate: float = 0  # batches a second over all connections, sent by the clock (open loop); 0: as fast as answers come (closed loop)
    consumers: int = 0  # connections that fetch, partitions shared among them
    groups: int = 1  # independent sets of such connections
    fetch_bytes: int = 10 << 20
    fetch_wait_ms: int = 500
    check_contents: bool = True
    rewind: bool = False  # read only: start again at the end
    seconds: float = 10
    settle_seconds: float = 0  # at the start, not in the latencies
    bytes_max: int = 0  # of record values acknowledged; then it ends early
    drain_seconds: float = 15
    interval_seconds: float = 0.5  # of the series
    spin: bool = False
    core: int | None = None
    seed: int = 1
    produce_version: int = 12
    fetch_version: int = 12

    @property
    def batch_value_bytes(self) -> int:
        return self.records * self.record_bytes


@dataclass
class Plan:
    """What `fastlog.native.loadengine.run` takes: descriptors are open, requests are built."""

    partitions: int
    records: int
    record_bytes: int
    fillings: int
    seed: int
    codec: int
    sections: list[bytes]  # of compressed batches, by filling
    batch_bytes: int
    acks: int
    window: int
    batches_per_request: int
    rate: float  # requests a second
    produce_version: int
    produce_prefix: bytes
    produce_item: bytes
    producers: list[tuple[int, int, int]]  # descriptor, producer id, producer epoch
    fetch_version: int
    fetch_inbox_bytes: int
    # descriptor, request, where in it the offsets stand, partitions, where each starts, where each ends (-1: nowhere)
    consumers: list[tuple[int, bytes, list[int], list[int], list[int], list[int]]]
    copies: int
    check_contents: bool
    rewind: bool
    spin: bool
    seconds: float
    settle_seconds: float
    drain_seconds: float
    interval_seconds: float
    batches_max: int


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def raise_descriptor_limit(wanted: int) -> None:
    """Raises OSError when the hard limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + RESERVED_DESCRIPTORS:
        if hard != resource.RLIM_INFINITY and hard < wanted + RESERVED_DESCRIPTORS:
            raise OSError(f"{wanted} connections need {wanted + RESERVED_DESCRIPTORS} descriptors, the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + RESERVED_DESCRIPTORS, hard))


def connect(job: Job) -> socket.socket:
    made = socket.create_connection(split_address(job.address), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


def prepare(job: Job, control: wire.Connection, sockets: list[socket.socket]) -> Plan:
    """Makes the topic when asked, opens the connections (into `sockets`, the caller's to close) and builds the requests."""
    from fastlog.native import loadtemplate as template

    if job.create:
        control.create_topic(job.topic, job.partitions, job.configs)
    topic = control.wait_for_topic(job.topic)
    if topic.partitions != job.partitions:
        raise ValueError(f"topic {job.topic} has {topic.partitions} partitions, not {job.partitions}")
    if not 1 <= job.batches_per_request <= job.partitions:
        raise ValueError("the batches of a request go to different partitions: at least one, at most all")
    if job.compression not in contents.CODECS:
        raise ValueError(f"compression {job.compression}: there are {', '.join(contents.CODECS)}")
    if not 1 <= job.window <= 65536 or job.connections + job.consumers < 1:
        raise ValueError("a window of 1 to 65,536 requests and at least one connection are needed")
    codec = contents.CODECS[job.compression]
    sections = contents.sections(job.compression, job.records, job.record_bytes, job.fillings, job.seed) if codec else []
    batch_bytes = len(template.make_batch(job.records, job.record_bytes, codec=codec, sections=sections[:1]))
    producers = []
    for _ in range(job.connections):
        sockets.append(connect(job))
        producers.append((sockets[-1].fileno(), *(control.producer_id() if job.idempotent else (-1, -1))))
    everything = list(range(job.partitions))
    start = control.offsets(job.topic, everything, -1 if job.connections else -2)
    end = [-1] * job.partitions if job.connections else control.offsets(job.topic, everything, -1)
    consumers = []
    for _ in range(job.groups):
        for index in range(job.consumers):
            mine = everything[index :: job.consumers]
            if not mine:
                raise ValueError("more consumers than partitions")
            sockets.append(connect(job))
            request, offset_at = wire.fetch_request(job.fetch_version, topic, mine, job.fetch_wait_ms, job.fetch_bytes)
            consumers.append((sockets[-1].fileno(), request, offset_at, mine, [start[p] for p in mine], [end[p] for p in mine]))
    return Plan(
        partitions=job.partitions,
        records=job.records,
        record_bytes=job.record_bytes,
        fillings=job.fillings,
        seed=job.seed,
        codec=codec,
        sections=sections,
        batch_bytes=batch_bytes,
        acks=job.acks,
        window=job.window,
        batches_per_request=job.batches_per_request,
        rate=job.rate / job.batches_per_request,
        produce_version=job.produce_version,
        produce_prefix=wire.produce_prefix(job.produce_version, topic, job.acks, job.batches_per_request, batch_bytes),
        produce_item=wire.produce_item(batch_bytes),
        producers=producers,
        fetch_version=job.fetch_version,
        # A first batch larger than the limit comes all the same.
        fetch_inbox_bytes=job.fetch_bytes + batch_bytes + 65536 + 128 * job.partitions,
        consumers=consumers,
        copies=job.groups if job.consumers else 0,
        check_contents=job.check_contents,
        rewind=job.rewind,
        spin=job.spin,
        seconds=job.seconds,
        settle_seconds=job.settle_seconds,
        drain_seconds=job.drain_seconds,
        interval_seconds=job.interval_seconds,
        batches_max=-(-job.bytes_max // job.batch_value_bytes),
    )


def run(job: Job) -> dict[str, Any]:
    """Runs the job and returns its counters and rates.

    "trouble" is empty and "sound" true when all that was sent was acknowledged and all that was read was what had been sent.
    Raises OSError (no broker), BrokerError, ValueError (a job that contradicts itself).
    """
    from fastlog.native import loadengine as engine

    raise_descriptor_limit(job.connections + job.consumers * job.groups)
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    sockets: list[socket.socket] = []
    try:
        with wire.Connection(*split_address(job.address)) as control:
            plan = prepare(job, control, sockets)
        before = time.process_time()
        result: dict[str, Any] = engine.run(plan)
        # Near 1, and not for spinning: the generator is what limits the run, not the broker.
        result["generator_cpu_share"] = round((time.process_time() - before) / result["seconds_with_drain"], 3)
    finally:
        for each in sockets:
            each.close()
    seconds = result["seconds"]
    acked, read = result["batches_acked_in_time"], result["batches_read_in_time"]
    result["MB_per_s"] = round(acked * job.batch_value_bytes / 1e6 / seconds, 3)
    result["batches_per_s"] = round(acked / seconds, 1)
    result["records_per_s"] = round(acked * job.records / seconds, 1)
    result["read_MB_per_s"] = round(read * job.batch_value_bytes / 1e6 / seconds, 3)
    result["acked_bytes"] = result["batches_acked"] * job.batch_value_bytes
    wrong = ("incomplete", "batches_failed", "disorder", "gaps", "bad_crc", "foreign", "produce_errors", "fetch_errors")
    result["sound"] = not result["trouble"] and not any(result[name] for name in wrong)
    return result
