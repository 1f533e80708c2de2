"""What a row of the comparison is: which load, what is looked at, what fastlog is to reach. The rows themselves are in `bench/groups`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.brokers import Broker
    from bench.session import Session

Kind = Literal["throughput", "latency", "read", "own"]
ALL, ONE = -1, 1


@dataclass(frozen=True)
class Target:
    """A bound on a metric: on the ratio fastlog / `against` (the best of them, where that names several), or on our value (`absolute`)."""

    metric: str
    bound: float
    at_least: bool = True
    absolute: bool = False
    against: str = "kafka"
    against_row: str = ""  # the ratio to our own median in another row

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        whom = "" if self.absolute or self.against == "kafka" else f" of {self.against}"
        whom = f" of our {self.against_row}" if self.against_row else whom
        return f"{self.metric} {'>=' if self.at_least else '<='} {self.bound:g}{'' if self.absolute else 'x'}{whom}"


@dataclass(frozen=True)
class Row:
    """One line of the report.

    `kind` says who measures: the session (throughput, latency, read), or with "own" the row itself by `measure(session, row, broker)`.
    That returns the sample: a dict with `metric` (and whatever other figures targets name), and "sound": True unless something was wrong.
    It may raise what the session's own measuring raises (OSError, StartError, GeneratorError, BrokerError), and is run once per broker
    and pair.
    """

    name: str
    title: str
    kind: Kind
    job: dict[str, Any] = field(default_factory=dict)  # fields of fastlog.loadgen.job.Job
    stable: bool = False  # acknowledged only from stable storage, by both
    metric: str = ""
    unit: str = ""
    targets: tuple[Target, ...] = ()
    sustained: bool = False  # must write more than the broker can hold in memory
    stored: int = 0  # read: bytes of record values that are there before
    cold: bool = False  # read: more than the brokers keep, and the page cache dropped
    configs: dict[str, str] = field(default_factory=dict)  # of the topic, for all brokers alike
    measure: Callable[[Session, Row, Broker], dict[str, Any]] | None = None  # of kind "own"
    restarts: bool = False  # own: restarts its broker, so it comes before the loads, when nothing is warm yet
    peers: tuple[str, ...] = ()  # of bench.peers, that have a counterpart
    brokers: tuple[str, ...] = ()  # only these, whatever the run has; empty: all that speak Kafka's protocol
    less_is_better: bool = False
    seconds_max: float = 0  # of one run; 0: what the command says
    seconds: float = 0  # of one run, whatever the command says
    optional: bool = False  # only when it is named
    needs: Callable[[], str] | None = None  # says what is missing on this machine for the row, or nothing


def throughput(
    name: str, title: str, target: float | None, *more: Target, cpu: float | None = None, stable: bool = False, **job: Any
) -> Row:
    """`target`: of the ratio of sustained MB/s; `cpu`: of that of CPU seconds per GB, at most."""
    targets = [*([Target("MB_per_s", target)] if target else []), *more]
    if cpu:
        targets.append(Target("cpu_s_per_GB", cpu, at_least=False))
    return Row(name, title, "throughput", job, stable, "MB_per_s", "MB/s", tuple(targets), sustained=True)


def batches(name: str, title: str, *targets: Target, stable: bool = False, peers: tuple[str, ...] = (), **job: Any) -> Row:
    return Row(name, title, "throughput", job, stable, "batches_per_s", "batches/s", targets, peers=peers, seconds_max=15)


def by_the_clock(
    name: str,
    title: str,
    what: str,
    *targets: Target,
    stable: bool = False,
    peers: tuple[str, ...] = (),
    configs: dict[str, str] | None = None,
    **job: Any,
) -> Row:
    """An open loop; `what`: ack or end_to_end, whose p99 is shown."""
    job = {"window": 1024, "spin": True, **job}
    row = Row(name, title, "latency", job, stable, f"{what}_p99_us", "us p99", targets, peers=peers, configs=configs or {})
    return replace(row, less_is_better=True, seconds_max=20)


def choose(names: str | None) -> list[Row]:
    """Rows by name or group, comma between; those of `core` when None. Raises ValueError for an unknown one."""
    from bench.groups import GROUPS, ROWS

    wanted: set[str] = set()
    for name in (names or "core").split(","):
        wanted.update(GROUPS.get(name, (name,)))
    unknown = wanted - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there are {', '.join([row.name for row in ROWS] + list(GROUPS))}")
    return [row for row in ROWS if row.name in wanted]
