"""From samples to figures: medians, ratios within pairs, how sure they are, and what share of the machine's limit they reach."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from fastlog.loadgen.limits import best

if TYPE_CHECKING:
    from bench.rows import Row, Target

Samples = Sequence[dict[str, Any]]
Limits = dict[str, dict[str, dict[str, float]]]
RESAMPLES = 2000
SURE = 0.95


def values(samples: Samples, row: str, broker: str, metric: str) -> dict[int, float]:
    """The metric by pair, of sound samples."""
    wanted = (s for s in samples if s["row"] == row and s["broker"] == broker and s.get("sound"))
    return {s["pair"]: s[metric] for s in wanted if s.get(metric) is not None}


def ratios(samples: Samples, row: str, metric: str, broker: str = "kafka") -> list[float]:
    """fastlog / the other broker, pair by pair."""
    ours, theirs = values(samples, row, "fastlog", metric), values(samples, row, broker, metric)
    return [ours[pair] / theirs[pair] for pair in sorted(ours.keys() & theirs.keys()) if theirs[pair]]


def target_value(samples: Samples, row: str, target: Target) -> float | None:
    """What a target looks at: our median, or the median ratio to whom it names; of several, that to the one which leaves us the least."""
    if target.absolute:
        return middle(values(samples, row, "fastlog", target.metric))
    if target.against_row:
        ours = middle(values(samples, row, "fastlog", target.metric))
        other = middle(values(samples, target.against_row, "fastlog", target.metric))
        return ours / other if ours is not None and other else None
    found = [ratios(samples, row, target.metric, broker) for broker in target.against.split(",")]
    medians = [median(each) for each in found if each]
    if not medians:
        return None
    return min(medians) if target.at_least else max(medians)


def middle(found: dict[int, float]) -> float | None:
    return median(found.values()) if found else None


def interval(found: list[float]) -> tuple[float, float]:
    """Bounds of the median at 95 %, by the bootstrap (percentile method; Efron 1979); the same for the same figures.

    Of few pairs it is hardly narrower than their range. Raises ValueError for none.
    """
    if not found:
        raise ValueError("no figures")
    chance = random.Random(1)
    medians = sorted(median(chance.choices(found, k=len(found))) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - SURE) / 2)
    return medians[cut], medians[-1 - cut]


def limit_of(row: Row, limits: Limits, samples: Samples = ()) -> tuple[str, float] | None:
    """What bounds a row's MB/s on this machine, as measured in the same run: the least of disk, network, and one core's receiving.

    A durable row is held against what the disk can do with the bytes that we gave it: the best durable write by device bytes per byte.
    Compressed batches have none: their MB are not what disk and network carry.
    """
    if row.job.get("compression", "none") != "none":
        return None
    if row.metric not in ("MB_per_s", "read_MB_per_s") or not {"disk", "loopback"} <= limits.keys():
        return None
    disk, net = limits["disk"], limits["loopback"]
    if row.kind == "read":
        bounds = [("receive 1 MiB", net["receive 1 MiB"]["MB_per_s"])]
        if row.cold:
            bounds.append(best(disk, "read"))
    else:
        bounds = [("receive 64 KiB and CRC-32C", net["receive 64 KiB and CRC-32C"]["MB_per_s"])]
        name, most = best(disk, "durable write" if row.stable else "write")
        each = middle(values(samples, row.name, "fastlog", "device_bytes_per_byte"))
        bounds.append((name, most / max(each or 1.0, 1.0) if row.stable else most))
    return min(bounds, key=lambda bound: bound[1])


def share_of_limit(samples: Samples, row: Row, broker: str, limits: Limits) -> float | None:
    """The median as a share of `limit_of`; None where there is no such bound or no sample."""
    bound = limit_of(row, limits, samples)
    value = middle(values(samples, row.name, broker, row.metric))
    return value / bound[1] if bound and value is not None else None


def beside_echo(sample: dict[str, Any], limits: Limits) -> dict[str, float]:
    """What a row of single records by the clock takes beyond a bare echo at the same rate, and beyond echo and durable write together."""
    echo = limits.get("loopback", {}).get("echo of 1 KiB, 1000 a second")
    durable = limits.get("disk", {}).get("durable write 4 KiB, 1 in flight")
    if not echo or not durable or not sample.get("ack_p50_us"):
        return {}
    return {
        "ack_p50_over_echo_us": round(sample["ack_p50_us"] - echo["p50_us"], 1),
        "ack_p99_by_echo": round(sample["ack_p99_us"] / echo["p99_us"], 3),
        "ack_p50_over_echo_and_dsync_us": round(sample["ack_p50_us"] - echo["p50_us"] - durable["p50_us"], 1),
    }
