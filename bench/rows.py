"""The rows of the comparison: which load, what is looked at, and what fastlog is to reach against Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["throughput", "latency", "idle", "start"]
ALL, ONE = -1, 1
E2E_BATCHES_PER_S = 10e6 / (64 * 1024)


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


def throughput(name: str, title: str, target: float | None, **job: Any) -> Row:
    stable = job.pop("stable", False)
    targets = [Target("MB_per_s", target)] if target else []
    if job["acks"] == ONE:
        targets.append(Target("cpu_s_per_GB", 0.5, at_least=False))
    return Row(name, title, "throughput", job, stable, "MB_per_s", "MB/s", tuple(targets), sustained=True)


def end_to_end(name: str, title: str, *, acks: int, stable: bool) -> Row:
    job = {"acks": acks, "rate": E2E_BATCHES_PER_S, "window": 1024, "consumers": 1, "spin": True}
    targets = (Target("end_to_end_p99_us", 0.5, at_least=False),)
    return Row(name, title, "latency", job, stable, "end_to_end_p99_us", "us p99", targets)


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
    throughput("acks1-1", "64 KiB batches, acks=1, 1 partition", 1.5, acks=ONE, partitions=1, connections=1, window=4),
    throughput("acks1-16", "64 KiB batches, acks=1, 16 partitions", 1.5, acks=ONE, partitions=16, connections=4, window=4),
    throughput("stable-1", "64 KiB batches, stable storage before the ack, 1 partition", 3, acks=ALL, stable=True, partitions=1, window=16),
    throughput(
        "stable-16",
        "64 KiB batches, stable storage before the ack, 16 partitions",
        3,
        acks=ALL,
        stable=True,
        partitions=16,
        connections=16,
        window=4,
    ),
    throughput("default-1", "64 KiB batches, the clients' default acks=all, 1 partition", None, acks=ALL, partitions=1, window=16),
    throughput(
        "default-16",
        "64 KiB batches, the clients' default acks=all, 16 partitions",
        None,
        acks=ALL,
        partitions=16,
        connections=16,
        window=4,
    ),
    Row(
        "single",
        "one 100-byte record per batch, acks=1, 64 in flight",
        "throughput",
        {"acks": ONE, "records": 1, "record_bytes": 100, "window": 64},
        metric="batches_per_s",
        unit="batches/s",
        targets=(Target("batches_per_s", 6),),
    ),
    end_to_end("e2e", "end to end at 10 MB/s, acks=1", acks=ONE, stable=False),
    end_to_end("e2e-stable", "end to end at 10 MB/s, stable storage before the ack", acks=ALL, stable=True),
)
GROUPS = {
    "acks1": ("acks1-1", "acks1-16"),
    "stable": ("stable-1", "stable-16"),
    "default": ("default-1", "default-16"),
    "latency": ("e2e", "e2e-stable"),
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
