"""The rows of the comparison: which load, what is looked at, and what fastlog is to reach against Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["throughput", "latency", "read", "idle", "start"]
ALL, ONE = -1, 1
E2E_BATCHES_PER_S = 10e6 / (64 * 1024)
SPREAD: dict[str, Any] = {"acks": ALL, "connections": 16, "window": 4}  # over many partitions


@dataclass(frozen=True)
class Target:
    """A bound on a metric: on the ratio fastlog / Kafka, or on fastlog's own value when `absolute`."""

    metric: str
    bound: float
    at_least: bool = True
    absolute: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.at_least else '<='} {self.bound:g}{'' if self.absolute else 'x'}"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    kind: Kind
    job: dict[str, Any] = field(default_factory=dict)  # fields of bench.loadgen.job.Job
    stable: bool = False  # acknowledged only from stable storage, by both
    metric: str = ""
    unit: str = ""
    targets: tuple[Target, ...] = ()
    sustained: bool = False  # must write more than the broker can hold in memory
    stored: int = 0  # read: bytes of record values that are there before
    cold: bool = False  # read: more than the brokers keep, and the page cache dropped


def throughput(name: str, title: str, target: float | None, *, cpu: float | None = None, stable: bool = False, **job: Any) -> Row:
    """`target`: of the ratio of MB/s; `cpu`: of that of CPU seconds per GB, at most."""
    targets = [Target("MB_per_s", target)] if target else []
    if cpu:
        targets.append(Target("cpu_s_per_GB", cpu, at_least=False))
    return Row(name, title, "throughput", job, stable, "MB_per_s", "MB/s", tuple(targets), sustained=True)


def batches(name: str, title: str, target: float, *, stable: bool = False, cpu_us: float | None = None, **job: Any) -> Row:
    targets = [Target("batches_per_s", target)]
    if cpu_us:
        targets.append(Target("cpu_us_per_batch", cpu_us, at_least=False, absolute=True))
    return Row(name, title, "throughput", job, stable, "batches_per_s", "batches/s", tuple(targets))


def end_to_end(name: str, title: str, p50: float, p99: float, *, acks: int, stable: bool) -> Row:
    job = {"acks": acks, "rate": E2E_BATCHES_PER_S, "window": 1024, "consumers": 1, "spin": True}
    targets = (Target("end_to_end_p50_us", p50, at_least=False), Target("end_to_end_p99_us", p99, at_least=False))
    return Row(name, title, "latency", job, stable, "end_to_end_p99_us", "us p99", targets)


def acknowledged(name: str, title: str, *, acks: int, stable: bool) -> Row:
    """Single records of 1 KiB by the clock; what is looked at is the time until the acknowledgement, from when it was due to be sent."""
    job = {"acks": acks, "rate": 1000, "window": 1024, "records": 1, "record_bytes": 1024, "spin": True}
    targets = (Target("ack_p50_us", 0.7, at_least=False), Target("ack_p99_us", 0.5, at_least=False))
    return Row(name, title, "latency", job, stable, "ack_p99_us", "us p99", targets)


def reading(name: str, title: str, target: float, *, fetch_bytes: int, stored: int, cold: bool = False) -> Row:
    job = {"acks": ALL, "connections": 0, "consumers": 1, "fetch_bytes": fetch_bytes, "rewind": not cold, "check_contents": cold}
    targets = [Target("read_MB_per_s", target)]
    if not cold:
        targets.append(Target("cpu_s_per_GB", 2 / 3, at_least=False))
    return Row(name, title, "read", job, metric="read_MB_per_s", unit="MB/s", targets=tuple(targets), stored=stored, cold=cold)


ROWS = (
    Row(
        "idle",
        "resident memory idle, shared memory (arena) apart",
        "idle",
        metric="resident_MB",
        unit="MB",
        targets=(Target("resident_MB", 80, at_least=False, absolute=True),),
    ),
    Row(
        "start",
        "start until the first produce is acknowledged",
        "start",
        metric="start_s",
        unit="s",
        targets=(Target("start_s", 0.7, at_least=False, absolute=True),),
    ),
    throughput("acks1-1", "64 KiB batches, acks=1, 1 partition", 2.5, cpu=0.25, acks=ONE, partitions=1, connections=1, window=4),
    throughput("acks1-16", "64 KiB batches, acks=1, 16 partitions", 3, cpu=0.25, acks=ONE, partitions=16, connections=4, window=4),
    throughput("acks1-900k", "900 KiB batches, acks=1, 1 partition", 2, acks=ONE, partitions=1, connections=1, window=4, records=900),
    throughput("stable-1", "64 KiB batches, stable storage before the ack, 1 partition", 6, stable=True, acks=ALL, window=16),
    throughput("stable-16", "64 KiB batches, stable storage before the ack, 16 partitions", 3, stable=True, **SPREAD, partitions=16),
    throughput("stable-100", "64 KiB batches, stable storage before the ack, 100 partitions", 3, stable=True, **SPREAD, partitions=100),
    throughput("default-1", "64 KiB batches, the clients' default acks=all, 1 partition", 1.3, acks=ALL, partitions=1, window=16),
    throughput("default-16", "64 KiB batches, the clients' default acks=all, 16 partitions", 1.3, **SPREAD, partitions=16),
    batches(
        "single", "one 100-byte record per batch, acks=1, 64 in flight", 15, cpu_us=3, acks=ONE, records=1, record_bytes=100, window=64
    ),
    batches(
        "many-1000",
        "1,000 partitions, one 100-byte record per batch, 100 batches per request, acks=1",
        6,
        acks=ONE,
        partitions=1000,
        records=1,
        record_bytes=100,
        batches_per_request=100,
    ),
    batches(
        "stable-single",
        "one 1 KiB record per batch, stable storage before the ack, 128 in flight",
        40,
        stable=True,
        acks=ALL,
        records=1,
        window=128,
    ),
    batches(
        "stable-4k-100",
        "100 partitions, 4 KiB batches, stable storage before the ack, 64 in flight",
        10,
        stable=True,
        acks=ALL,
        partitions=100,
        records=4,
        record_bytes=1000,
        connections=4,
        window=16,
    ),
    acknowledged("ack", "1,000 single records of 1 KiB a second, acks=1, until acknowledged", acks=ONE, stable=False),
    acknowledged("ack-stable", "1,000 single records of 1 KiB a second, stable storage before the ack", acks=ALL, stable=True),
    end_to_end("e2e", "end to end at 10 MB/s, acks=1", 1 / 3, 1 / 6, acks=ONE, stable=False),
    end_to_end("e2e-stable", "end to end at 10 MB/s, stable storage before the ack", 1 / 2, 1 / 5, acks=ALL, stable=True),
    reading("read-10m", "reading what is in memory, fetches of 10 MiB", 1.3, fetch_bytes=10 << 20, stored=256 << 20),
    reading("read-1m", "reading what is in memory, fetches of 1 MiB", 2, fetch_bytes=1 << 20, stored=256 << 20),
    reading("read-64k", "reading what is in memory, fetches of 64 KiB", 3, fetch_bytes=64 << 10, stored=256 << 20),
    reading("read-cold", "catching up from disk, fetches of 10 MiB", 1.5, fetch_bytes=10 << 20, stored=6 << 30, cold=True),
)
GROUPS = {
    "acks1": ("acks1-1", "acks1-16", "acks1-900k"),
    "stable": ("stable-1", "stable-16", "stable-100", "stable-single", "stable-4k-100"),
    "default": ("default-1", "default-16"),
    "small": ("single", "many-1000", "stable-single", "stable-4k-100"),
    "latency": ("ack", "ack-stable", "e2e", "e2e-stable"),
    "read": ("read-10m", "read-1m", "read-64k", "read-cold"),
}


def choose(names: str | None) -> list[Row]:
    """Rows by name or group, comma between; all when None. Raises ValueError for an unknown one."""
    if not names:
        return list(ROWS)
    wanted: set[str] = set()
    for name in names.split(","):
        wanted.update(GROUPS.get(name, (name,)))
    unknown = wanted - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there are {', '.join([row.name for row in ROWS] + list(GROUPS))}")
    return [row for row in ROWS if row.name in wanted]
