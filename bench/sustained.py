"""What a broker does once its memory and the space prepared ahead are used up, apart from the burst before that.

Runs of 30 s at over a GB/s don't fit most disks, so the topics of these rows keep only their last few segments (retention.bytes), for all
brokers alike, and what is older is deleted while the load goes on: that is how brokers are run, and its cost is in the figures.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.rows import Row

MIB = 1 << 20
SEGMENT_MOST, SEGMENT_LEAST = 512 * MIB, 32 * MIB
KEPT_SEGMENTS = 2
DELETE_LAG_BYTES = 6 << 30  # written between two looks for what to delete, and until files are gone
RUNWAY_BYTES = 64 * MIB  # per partition: the most that fastlog prepares ahead
RECYCLED_BYTES = 4 << 30  # removed segments that fastlog keeps to use again (fastlog.segment.recycle.bytes)
TIMES = 4  # so many times what can be held must be written for a run to count as sustained


def segment_bytes(row: Row) -> int:
    return max(SEGMENT_LEAST, min(SEGMENT_MOST, (2 << 30) // partitions(row)))


def partitions(row: Row) -> int:
    return int(row.job.get("partitions", 1))


def kept(row: Row) -> dict[str, str]:
    """The topic's settings."""
    return {"segment.bytes": str(segment_bytes(row)), "retention.bytes": str(KEPT_SEGMENTS * segment_bytes(row))}


def room(row: Row) -> int:
    """Bytes on disk that a run may take."""
    return (KEPT_SEGMENTS + 1) * segment_bytes(row) * partitions(row) + runway(row) + RECYCLED_BYTES + DELETE_LAG_BYTES


def runway(row: Row) -> int:
    """The most that fastlog may have prepared ahead, in bytes."""
    return partitions(row) * min(RUNWAY_BYTES, segment_bytes(row))


def apart(sample: dict[str, Any], batch_bytes: int, held: int) -> dict[str, Any]:
    """Burst and sustained rates. `held`: bytes that a broker can take without the disk having taken them.

    The sustained part begins when `held` bytes were acknowledged, or after a third of the run when that comes first: a broker that is
    slower never fills what it has. MB_per_s becomes the sustained rate, which targets are about, when the run was long enough and wrote
    enough.
    """
    series = [(at, acked * batch_bytes) for at, acked, *_ in sample["series"] if at <= sample["seconds"]]
    found: dict[str, Any] = {"whole_MB_per_s": sample["MB_per_s"], "burst_MB_per_s": None, "sustained": False}
    if len(series) < 3:
        return found
    turn = next((i for i, (at, acked) in enumerate(series) if acked >= held or at >= sample["seconds"] / 3), len(series) - 1)
    turn = min(max(turn, 1), len(series) - 2)
    found["burst_MB_per_s"] = round(rate(series[0], series[turn]), 1)
    found["sustained_from_s"] = round(series[turn][0], 1)
    later = [rate(a, b) for a, b in pairwise(series[turn:]) if b[0] > a[0]]
    found["worst_second_MB_per_s"] = round(min(sum(pair) / 2 for pair in pairwise(later)), 1) if len(later) > 1 else None
    enough = sample["acked_bytes"] >= TIMES * held or series[turn][1] < held
    if sample["seconds"] >= 29.9 and enough:
        found |= {"sustained": True, "MB_per_s": round(rate(series[turn], series[-1]), 1)}
    return found


def rate(a: tuple[float, float], b: tuple[float, float]) -> float:
    """MB/s between two points of (seconds, bytes)."""
    return (b[1] - a[1]) / 1e6 / max(b[0] - a[0], 1e-9)
