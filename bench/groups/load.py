"""Latency over load: the same work at one rate after the other, until a broker no longer keeps up; and over an hour."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.rows import ALL, ONE, Row, Target, by_the_clock

if TYPE_CHECKING:
    from bench.brokers import Broker
    from bench.session import Session

MB_PER_S = (5, 20, 50, 100, 200, 400, 800)
PER_S = (1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 400_000)
STEP_SECONDS = (2.0, 6.0)  # of one rate: at least, at most
KEPT_UP = 0.97  # of what was to be sent, acknowledged in time
BOUND_US = 10_000.0


def curve(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """One run for each rate. "curve": [rate, p50, p99, p99.9 in us]; the metric is the highest rate with a p99 within 10 ms."""
    batch = row.job["records"] * row.job["record_bytes"]
    large = row.metric == "MB_per_s_within_10ms"
    seconds = min(max(session.seconds(row) / len(MB_PER_S), STEP_SECONDS[0]), STEP_SECONDS[1])
    points: list[list[float]] = []
    best = 0.0
    sample: dict[str, Any] = {}
    for rate in MB_PER_S if large else PER_S:
        per_second = rate * 1e6 / batch if large else float(rate)
        session.make_room(int(per_second * batch * seconds * 1.2) + (1 << 30))
        job = session.job(row, broker, session.new_topic(broker, row), seconds, 0)
        sample = session.observe(broker, replace(job, rate=per_second, settle_seconds=seconds / 4), fill=rate == MB_PER_S[0])
        if not sample["sound"] or sample["batches_per_s"] < KEPT_UP * per_second:
            break
        ack = sample["ack"]
        points.append([rate, ack["p50_us"], ack["p99_us"], ack["p99.9_us"]])
        if ack["p99_us"] <= BOUND_US:
            best = float(rate)
    # The last run may have been one too many for this broker: that is a finding, and its missing answers are no fault.
    return {"curve": points, row.metric: best, "sound": bool(points), "trouble": sample["trouble"], "stopped_at": rate}


def over(name: str, title: str, metric: str, unit: str, *, stable: bool = False, **job: Any) -> Row:
    job = {"window": 4096, "spin": True, "records": 64, "record_bytes": 1024, "drain_seconds": 3, **job}
    target = Target(metric, 1, absolute=False)
    return Row(name, title, "own", job, stable, metric, unit, (target,), measure=curve, seconds_max=42)


ROWS = (
    over("curve", "latency over load, 64 KiB batches, acks=1: most with a p99 within 10 ms", "MB_per_s_within_10ms", "MB/s", acks=ONE),
    over(
        "curve-stable",
        "latency over load, 64 KiB batches, stable storage before the ack: most with a p99 within 10 ms",
        "MB_per_s_within_10ms",
        "MB/s",
        stable=True,
        acks=ALL,
    ),
    over(
        "curve-single",
        "latency over load, one 100-byte record per batch, acks=1: most with a p99 within 10 ms",
        "per_s_within_10ms",
        "batches/s",
        acks=ONE,
        records=1,
        record_bytes=100,
    ),
    replace(
        by_the_clock(
            "long",
            "an hour of 20 MB/s, the clients' default acks=all, one consumer, retention deleting",
            "end_to_end",
            Target("end_to_end_p99_us", 1 / 2, at_least=False),
            acks=ALL,
            rate=20e6 / (64 * 1024),
            consumers=1,
            partitions=4,
            configs={"segment.bytes": str(128 << 20), "retention.bytes": str(256 << 20)},
        ),
        seconds=3600,
        optional=True,
    ),
)
