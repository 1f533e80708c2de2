"""Samples to a table: medians, ratios per pair, targets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.statistics import Limits, Samples, interval, middle, ratios, share_of_limit, target_value, values

if TYPE_CHECKING:
    from bench.rows import Row, Target

REASONS = Path(__file__).with_name("reasons.toml")
PEERS = ("valkey", "nats")
BROKERS = ("kafka", "fastlog", *PEERS)
COLUMNS = (
    "row", "Kafka", "fastlog", "ratio (95 %)", "CPU Kafka", "CPU fastlog", "CPU ratio", "share of limit K / f", "device bytes/byte K / f",
    "target", "",
)  # fmt: skip


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio_cell(found: list[float]) -> str:
    """The median, and between which bounds it is at 95 %."""
    if not found:
        return "-"
    if len(found) == 1:
        return f"{found[0]:.2f}x"
    low, high = interval(found)
    return f"{median(found):.2f}x ({low:.2f}-{high:.2f})"


def reading(target: Target, value: float) -> str:
    return f"{number(value)}{'' if target.absolute else 'x'}"


def reasons() -> dict[str, str]:
    """By row: why it misses a target, and what was tried."""
    found: dict[str, str] = tomllib.loads(REASONS.read_text())["missed"]
    return found


def verdict(samples: Samples, row: Row) -> tuple[str, str]:
    """The targets and whether each was met."""
    said = []
    for target in row.targets:
        value = target_value(samples, row.name, target)
        said.append("not measured" if value is None else "met" if target.met(value) else f"MISSED ({reading(target, value)})")
    return "; ".join(str(target) for target in row.targets), "; ".join(said)


def targets_table(samples: Samples, rows: list[Row]) -> str:
    """Each target with what was measured, in Markdown: our median, Kafka's, and what the target looks at."""
    lines = ["| work | Kafka | fastlog | target | measured | |", "|---|--:|--:|---|--:|---|"]
    for row in rows:
        for target in row.targets:
            value = target_value(samples, row.name, target)
            if value is not None:
                found = [middle(values(samples, row.name, broker, target.metric)) for broker in ("kafka", "fastlog")]
                cells = [row.title, *map(number, found), str(target), reading(target, value), "met" if target.met(value) else "**missed**"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def missed_table(samples: Samples, rows: list[Row]) -> str:
    """The missed targets with their reasons, in Markdown; "" when there is none."""
    why = reasons()
    lines = ["| row | missed | measured | why, and what was tried |", "|---|---|--:|---|"]
    for row in rows:
        for target in row.targets:
            value = target_value(samples, row.name, target)
            if value is not None and not target.met(value):
                lines.append(f"| {row.name} | {target} | {reading(target, value)} | {why.get(row.name, 'not explained yet')} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def table(samples: Samples, rows: list[Row], limits: Limits) -> str:
    """The main table, in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        small = row.metric == "batches_per_s"
        cpu = "cpu_us_per_batch" if small else "cpu_s_per_GB"
        unit = " us" if small else " s/GB"

        def cell(broker: str, metric: str, unit: str, row: Row = row) -> str:
            value = middle(values(samples, row.name, broker, metric))
            return "-" if value is None else number(value) + unit

        shares = [share_of_limit(samples, row, broker, limits) for broker in ("kafka", "fastlog")]
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
            " / ".join("-" if share is None else f"{share:.0%}" for share in shares),
            " / ".join(written),
            target,
            "; ".join(notes),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def peers_table(samples: Samples, rows: list[Row]) -> str:
    """Brokers with protocols of their own, where any was measured, in Markdown; "" when none was."""
    names = [name for name in PEERS if any(s["broker"] == name for s in samples)]
    if not names:
        return ""
    lines = [
        "| row | " + " | ".join(f"{name} | fastlog / {name} | CPU us per batch" for name in names) + " |",
        "|---|" + "--:|" * 3 * len(names),
    ]
    for row in rows:
        found = [(values(samples, row.name, name, row.metric), ratios(samples, row.name, row.metric, name), name) for name in names]
        if any(each for each, _, _ in found):
            cells = []
            for each, ratio, name in found:
                cpu = middle(values(samples, row.name, name, "cpu_us_per_batch"))
                cells += [f"{number(middle(each))} {row.unit}" if each else "-", ratio_cell(ratio), number(cpu)]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sustained_table(samples: Samples, rows: list[Row]) -> str:
    """What a burst makes of throughput rows, and the steady state after it, in Markdown; medians of MB/s."""
    lines = ["| row | broker | burst | until s | sustained | worst second | whole run | |", "|---|---|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        for broker in BROKERS:
            found = [s for s in samples if s["row"] == row.name and s["broker"] == broker and s.get("sound") and "burst_MB_per_s" in s]
            if found:
                lasting = [s for s in found if s["sustained"]]

                def middle_of(key: str, of: list[dict[str, Any]]) -> str:
                    known = [s[key] for s in of if s.get(key) is not None]
                    return number(median(known)) if known else "-"

                cells = [middle_of(key, found) for key in ("burst_MB_per_s", "sustained_from_s")]
                cells += [middle_of("MB_per_s", lasting), middle_of("worst_second_MB_per_s", lasting), middle_of("whole_MB_per_s", found)]
                note = "" if len(lasting) == len(found) else "burst only: too short, or too little written"
                lines.append(f"| {row.name} | {broker} | " + " | ".join(cells) + f" | {note} |")
    return "\n".join(lines)


def latency_table(samples: Samples, rows: list[Row]) -> str:
    """Acknowledgement and end-to-end percentiles, medians over the runs, in Markdown; microseconds."""
    points = ("p50_us", "p90_us", "p99_us", "p99.9_us", "max_us")
    names = " | ".join(point.removesuffix("_us") for point in points)
    lines = [f"| row | broker | what | {names} |", "|---|---|---|" + "--:|" * len(points)]
    for row in rows:
        for broker in BROKERS:
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
        for broker in BROKERS:
            found = [s for s in samples if s["row"] == row.name and s["broker"] == broker and "memory_MB" in s]
            if found:
                resident = median(s["memory_MB"]["all"] for s in found)
                shared = median(s["memory_MB"]["shared"] for s in found)
                rest = [[s[key] for s in found if key in s] for key in ("idle_cpu_percent", "switches_per_batch")]
                cells = [number(resident), number(shared), *(number(median(each)) if each else "-" for each in rest)]
                lines.append(f"| {row.name} | {broker} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def limits_table(limits: Limits) -> str:
    lines = ["| limit | MB/s | a second | p50 us | p99 us | CPU s/GB |", "|---|--:|--:|--:|--:|--:|"]
    for found in limits.values():
        for name, each in found.items():
            cells = [number(each.get(key)) for key in ("MB_per_s", "per_s", "p50_us", "p99_us", "cpu_s_per_GB")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def method(document: dict[str, Any]) -> str:
    return (
        f"{document['options']['repeats']} pairs a row, {document['options']['seconds']:g} s a run, order AB BA; medians;"
        " ratios are fastlog / Kafka within a pair, with the bootstrap's 95 % interval of their median. CPU:"
        " user and kernel time of the whole broker process. MB are 10^6 bytes of record values."
        " 'burst': shorter than 30 s, or fewer bytes than four times what memory and prepared space could hold."
        " Limit: the least of disk, loopback and checksum that bounds the row, measured in the same run."
    )


def about(document: dict[str, Any]) -> dict[str, Any]:
    """Machine, versions and settings."""
    left_out = {f"left out: {row}": why for row, why in document.get("left_out", {}).items()}
    return {**document["machine"], **document["versions"], **document["settings"], **left_out}


def markdown(document: dict[str, Any], rows: list[Row]) -> str:
    """The whole report from what the JSON file holds."""
    samples: Samples = document["samples"]
    listed = "\n".join(f"- {key}: {value}" for key, value in about(document).items())
    parts = ["# fastlog beside Apache Kafka", document["made"], method(document), table(samples, rows, document["limits"])]
    if missed := missed_table(samples, rows):
        parts += ["## Targets missed", missed]
    if peers := peers_table(samples, rows):
        parts += ["## Beside peers with protocols of their own", peers]
    parts += ["## Burst and sustained (MB/s)", sustained_table(samples, rows)]
    parts += ["## Latency (us)", latency_table(samples, rows), "## Memory", memory_table(samples, rows)]
    if document["limits"]:
        parts += ["## This machine's limits, same run", limits_table(document["limits"])]
    parts += ["## Machine, versions, settings", listed]
    return "\n\n".join(parts) + "\n"
