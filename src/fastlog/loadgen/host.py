"""What a broker does on this host beside what the host can do: the loads of `fastlog bench`, and which limit bounds each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlog.loadgen.job import Job, run
from fastlog.loadgen.limits import best
from fastlog.loadgen.machine import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlog.loadgen.limits import Figures

ALL, ONE = -1, 1
STORED = 256 << 20  # bytes that are read over and over
ECHO = "echo of 1 KiB, 1000 a second"
DURABLE = "durable write 4 KiB, 1 in flight"


@dataclass(frozen=True)
class Load:
    """`metric`: of the result; `bound`: what the host allows of it, from the limits by kind (disk, loopback); None: nothing to compare."""

    name: str
    title: str
    metric: str
    job: dict[str, Any] = field(default_factory=dict)
    bound: Callable[[dict[str, Figures]], tuple[str, float]] | None = None
    less_is_better: bool = False
    reads: bool = False


def _received(limits: dict[str, Figures]) -> tuple[str, float]:
    return "receive 64 KiB and CRC-32C", limits["loopback"]["receive 64 KiB and CRC-32C"]["MB_per_s"]


def _written(limits: dict[str, Figures]) -> tuple[str, float]:
    return min(best(limits["disk"], "write"), _received(limits), key=lambda bound: bound[1])


def _stored(limits: dict[str, Figures]) -> tuple[str, float]:
    return min(best(limits["disk"], "durable write"), _received(limits), key=lambda bound: bound[1])


def _echo(limits: dict[str, Figures]) -> tuple[str, float]:
    return ECHO, limits["loopback"][ECHO]["p50_us"]


def _echo_and_durable(limits: dict[str, Figures]) -> tuple[str, float]:
    return f"echo and {DURABLE}", limits["loopback"][ECHO]["p50_us"] + limits["disk"][DURABLE]["p50_us"]


def _sent(limits: dict[str, Figures]) -> tuple[str, float]:
    return "receive 1 MiB", limits["loopback"]["receive 1 MiB"]["MB_per_s"]


SINGLE: dict[str, Any] = {"records": 1, "window": 1024, "rate": 1000.0, "spin": True}
STREAM: dict[str, Any] = {"window": 1024, "rate": 10e6 / 65536, "consumers": 1, "spin": True}
READING: dict[str, Any] = {"connections": 0, "consumers": 1, "fetch_bytes": 1 << 20, "rewind": True, "check_contents": False}
LOADS = (
    Load("volatile", "64 KiB batches, acks=1", "MB_per_s", {"acks": ONE, "window": 4}, _written),
    Load("stable", "64 KiB batches, acks=all, 16 partitions", "MB_per_s", {"acks": ALL, "partitions": 16, "connections": 8}, _stored),
    Load(
        "single", "one 100-byte record per batch, acks=1", "batches_per_s", {"acks": ONE, "records": 1, "record_bytes": 100, "window": 64}
    ),
    Load("stable-single", "one 1 KiB record per batch, acks=all", "batches_per_s", {"acks": ALL, "records": 1, "window": 128}),
    Load("ack", "1,000 records a second, acks=1: acknowledged", "ack_p50_us", {"acks": ONE, **SINGLE}, _echo, True),
    Load("ack-stable", "1,000 records a second, acks=all: acknowledged", "ack_p50_us", {"acks": ALL, **SINGLE}, _echo_and_durable, True),
    Load("end-to-end", "10 MB/s, acks=all: read by a consumer", "end_to_end_p50_us", {"acks": ALL, **STREAM}, None, True),
    Load("read", "reading what is in memory, fetches of 1 MiB", "read_MB_per_s", READING, _sent, reads=True),
)


def measure(load: Load, address: str, pid: int, *, core: int, seconds: float, bytes_max: int) -> dict[str, Any]:
    """Runs one load against a broker; the generator's result with the metric's latencies and the broker's CPU beside.

    The topic is made for it, and deleted. Raises OSError, BrokerError, ValueError.
    """
    from fastlog.loadgen import wire
    from fastlog.loadgen.job import split_address

    topic = f"bench-{load.name}-{time.time_ns()}"
    job = Job(
        address=address, topic=topic, seconds=seconds, bytes_max=bytes_max, core=core, settle_seconds=min(1.0, seconds / 4), **load.job
    )
    try:
        if load.reads:
            run(Job(address=address, topic=topic, window=8, seconds=60, bytes_max=STORED, core=core))
        before, begun = cpu_seconds(pid), time.monotonic()
        result = run(job)
        result["broker_cpu_share"] = round((cpu_seconds(pid) - before) / (time.monotonic() - begun), 3)
    finally:
        with wire.Connection(*split_address(address)) as control:
            control.delete_topic(topic)
    for what in ("ack", "end_to_end"):
        for point in ("p50_us", "p99_us"):
            result[f"{what}_{point}"] = result[what].get(point)
    gigabytes = (result["acked_bytes"] or result["bytes_read"]) / 1e9
    result["broker_cpu_s_per_GB"] = round((cpu_seconds(pid) - before) / gigabytes, 3) if gigabytes else None
    return result


def share(load: Load, result: dict[str, Any], limits: dict[str, Figures]) -> tuple[str, float, float] | None:
    """The limit's name, the limit, and what share of it was reached (of a time: how many times as long it took)."""
    if load.bound is None or result.get(load.metric) is None:
        return None
    name, value = load.bound(limits)
    return name, value, result[load.metric] / value
