"""Samples to a table: medians with their range, ratios within a round, targets."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.clients.rows import Contender, Row

Samples = list[dict[str, Any]]


def of(samples: Samples, row: Row, contender: Contender, metric: str) -> dict[int, float]:
    """The metric by round."""
    found = (s for s in samples if s["row"] == row.name and s["contender"] == contender.name)
    return {s["round"]: s[metric] for s in found if metric in s}


def rates(samples: Samples, row: Row, contender: Contender) -> dict[int, float]:
    """Records a second, by round."""
    seconds, records = of(samples, row, contender, "seconds"), of(samples, row, contender, "records")
    return {n: records[n] / seconds[n] for n in seconds if n in records}


def ratio(samples: Samples, row: Row, contender: Contender) -> float | None:
    """How many times the row's first contender: the median over rounds."""
    ours, first = rates(samples, row, contender), rates(samples, row, row.contenders[0])
    found = [ours[n] / first[n] for n in ours.keys() & first.keys()]
    return median(found) if found else None


def _verdict(reached: float, target: float) -> str:
    return f"{target:g}, {'met' if reached >= target else 'missed'}"


def _line(samples: Samples, row: Row, contender: Contender) -> str:
    found = sorted(rates(samples, row, contender).values())
    cpu, records = of(samples, row, contender, "cpu_seconds"), of(samples, row, contender, "records")
    memory = of(samples, row, contender, "memory_bytes")
    times = ratio(samples, row, contender)
    return (
        f"| {row.title} | {contender.name} | {median(found) / 1000:,.0f} ({found[0] / 1000:,.0f}-{found[-1] / 1000:,.0f})"
        f" | {'' if times is None or contender is row.contenders[0] else f'{times:.1f}'}"
        f" | {_verdict(times, contender.target) if contender.target and times is not None else ''}"
        f" | {median(cpu[n] / records[n] * 1e6 for n in cpu):.2f} | {median(memory.values()) / 1e6:.0f} |"
    )


def markdown(samples: Samples, rows: list[Row]) -> str:
    """Two tables: what is done with records, and imports."""
    lines = [
        "| work, 100-byte values | client and call | 1,000/s, median (range) | times the first | target | CPU s per million | more MB |",
        "|---|---|---|---|---|---|---|",
    ]
    imports = ["| import of | ms, median (range) | target |", "|---|---|---|"]
    for row in rows:
        for contender in row.contenders:
            seconds = sorted(of(samples, row, contender, "seconds").values())
            if not seconds:
                continue
            if row.kind == "import":
                middle = median(seconds) * 1000
                aim = f"{contender.target:g}, {'met' if middle <= contender.target else 'missed'}" if contender.target else ""
                imports.append(f"| {contender.name} | {middle:.0f} ({seconds[0] * 1000:.0f}-{seconds[-1] * 1000:.0f}) | {aim} |")
            else:
                lines.append(_line(samples, row, contender))
    return "\n".join(lines + (["", *imports] if len(imports) > 2 else [])) + "\n"
