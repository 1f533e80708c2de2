"""Samples to a table: medians, ratios per pair, targets."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.rows import Row

Samples = list[dict[str, Any]]
COLUMNS = ("row", "Kafka", "fastlog", "ratio (pairs)", "CPU Kafka", "CPU fastlog", "CPU ratio", "device bytes/byte K / f", "target", "")


def values(samples: Samples, row: str, broker: str, metric: str) -> dict[int, float]:
    """The metric by pair, of sound samples."""
    wanted = (s for s in samples if s["row"] == row and s["broker"] == broker and s.get("sound"))
    return {s["pair"]: s[metric] for s in wanted if s.get(metric) is not None}


def ratios(samples: Samples, row: str, metric: str) -> list[float]:
    """fastlog / Kafka, pair by pair."""
    ours, theirs = values(samples, row, "fastlog", metric), values(samples, row, "kafka", metric)
    return [ours[pair] / theirs[pair] for pair in sorted(ours.keys() & theirs.keys()) if theirs[pair]]


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def middle(found: dict[int, float]) -> float | None:
    return median(found.values()) if found else None


def ratio_cell(found: list[float]) -> str:
    if not found:
        return "-"
    spread = f" ({min(found):.2f}-{max(found):.2f})" if len(found) > 1 else ""
    return f"{median(found):.2f}x{spread}"


def verdict(samples: Samples, row: Row) -> tuple[str, str]:
    """The targets and whether each was met."""
    said = []
    for target in row.targets:
        if target.absolute:
            value = middle(values(samples, row.name, "fastlog", target.metric))
        else:
            found = ratios(samples, row.name, target.metric)
            value = median(found) if found else None
        said.append("not measured" if value is None else "met" if target.met(value) else f"MISSED ({number(value)})")
    return "; ".join(str(target) for target in row.targets), "; ".join(said)


def table(samples: Samples, rows: list[Row]) -> str:
    """The main table, in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        small = row.metric == "batches_per_s"
        cpu = "cpu_us_per_batch" if small else "cpu_s_per_GB"
        unit = " us" if small else " s/GB"

        def cell(broker: str, metric: str, unit: str, row: Row = row) -> str:
            value = middle(values(samples, row.name, broker, metric))
            return "-" if value is None else number(value) + unit

        written = [cell(broker, "device_bytes_per_byte", "") for broker in ("kafka", "fastlog")]
        target, met = verdict(samples, row)
        unsound = sum(1 for s in samples if s["row"] == row.name and not s.get("sound"))
        burst = any(s["row"] == row.name and s.get("sustained") is False for s in samples)
        notes = [met] if met else []
        notes += [f"{unsound} unsound runs"] if unsound else []
        notes += ["burst"] if burst else []
        cells = [
            row.title,
            cell("kafka", row.metric, f" {row.unit}"),
            cell("fastlog", row.metric, f" {row.unit}"),
            ratio_cell(ratios(samples, row.name, row.metric)),
            cell("kafka", cpu, unit),
            cell("fastlog", cpu, unit),
            ratio_cell(ratios(samples, row.name, cpu)),
            " / ".join(written),
            target,
            "; ".join(notes),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latency_table(samples: Samples, rows: list[Row]) -> str:
    """Acknowledgement and end-to-end percentiles, medians over the runs, in Markdown; microseconds."""
    points = ("p50_us", "p90_us", "p99_us", "p99.9_us", "max_us")
    names = " | ".join(point.removesuffix("_us") for point in points)
    lines = [f"| row | broker | what | {names} |", "|---|---|---|" + "--:|" * len(points)]
    for row in rows:
        for broker in ("kafka", "fastlog"):
            for what in ("ack", "end_to_end"):
                found = [s[what] for s in samples if s["row"] == row.name and s["broker"] == broker and s.get("sound") and what in s]
                found = [each for each in found if each["count"]]
                if found:
                    cells = [number(median(each[point] for each in found)) for point in points]
                    lines.append(f"| {row.name} | {broker} | {what.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory_table(samples: Samples, rows: list[Row]) -> str:
    lines = ["| row | broker | resident MB | of it shared (arena) | idle CPU % | switches per batch |", "|---|---|--:|--:|--:|--:|"]
    for row in rows:
        for broker in ("kafka", "fastlog"):
            found = [s for s in samples if s["row"] == row.name and s["broker"] == broker and "memory_MB" in s]
            if found:
                resident = median(s["memory_MB"]["all"] for s in found)
                shared = median(s["memory_MB"]["shared"] for s in found)
                rest = [[s[key] for s in found if key in s] for key in ("idle_cpu_percent", "switches_per_batch")]
                cells = [number(resident), number(shared), *(number(median(each)) if each else "-" for each in rest)]
                lines.append(f"| {row.name} | {broker} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def limits_table(limits: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| limit | MB/s | p50 us | p99 us | CPU s/GB |", "|---|--:|--:|--:|--:|"]
    for found in limits.values():
        for name, each in found.items():
            cells = [number(each.get(key)) for key in ("MB_per_s", "p50_us", "p99_us", "cpu_s_per_GB")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(document: dict[str, Any], rows: list[Row]) -> str:
    """The whole report from what the JSON file holds."""
    samples: Samples = document["samples"]
    about = "\n".join(f"- {key}: {value}" for key, value in {**document["machine"], **document["versions"], **document["settings"]}.items())
    method = (
        f"{document['options']['repeats']} pairs a row, {document['options']['seconds']:g} s a run, order AB BA; medians;"
        " ratios are fastlog / Kafka within a pair. CPU:"
        " user and kernel time of the whole broker process. MB are 10^6 bytes of record values."
        " 'burst': shorter than 30 s, or fewer bytes than memory and prepared space could hold."
    )
    parts = ["# fastlog beside Apache Kafka", document["made"], method, table(samples, rows)]
    parts += ["## Latency (us)", latency_table(samples, rows), "## Memory", memory_table(samples, rows)]
    if document["limits"]:
        parts += ["## This machine's limits, same run", limits_table(document["limits"])]
    parts += ["## Machine, versions, settings", about]
    return "\n\n".join(parts) + "\n"
