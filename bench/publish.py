"""`bench/run --publish REPORT.json`: a report goes into the repository, and what README and docs quote is made from it.

The report's pages and raw samples go to bench/reports/DATE-MACHINE, docs/benchmarks.md gets the targets with what was measured, and
README's table the figures of a few rows. A test holds README and docs against the newest report, so no other figure can be quoted.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

from bench import groups, html, report
from bench.brokers import ROOT
from bench.statistics import middle, ratios, values

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rows import Row

PLAIN_BYTES_MAX = 1_000_000  # of raw samples; more are compressed
BEGIN, END = "<!-- bench/run --publish makes this -->", "<!-- up to here -->"
QUOTED = ("acks1-1", "stable-1", "single", "ack", "e2e", "read-1m", "idle", "start")


def read(source: Path) -> dict[str, Any]:
    """The raw samples of a report, compressed or not."""
    data = source.read_bytes()
    found: dict[str, Any] = json.loads(gzip.decompress(data) if source.suffix == ".gz" else data)
    return found


def rows_of(document: dict[str, Any]) -> list[Row]:
    measured = {sample["row"] for sample in document["samples"]}
    return [row for row in groups.ROWS if row.name in measured]


def newest(root: Path = ROOT) -> Path | None:
    """Raw samples of the newest report in the repository."""
    found = sorted((root / "bench/reports").glob("*/report.json*"), key=lambda path: path.parent.name)
    return found[-1] if found else None


def name_of(document: dict[str, Any]) -> str:
    """Date and machine, such as 2026-11-24-2-cores-24GB; names sort by time."""
    cores = re.match(r"\d+", str(document["machine"]["cpu"]))
    return f"{document['made'][:10]}-{cores[0] if cores else 'some'}-cores-{document['machine']['memory_gb']:.0f}GB"


def where(document: dict[str, Any]) -> str:
    """Machine, brokers and method, in a sentence or two."""
    machine, options = document["machine"], document["options"]
    pairs = "one pair" if options["repeats"] == 1 else f"medians of {options['repeats']} pairs"
    kafka, fastlog = (document["versions"].get(name, name) for name in ("kafka", "fastlog"))
    return (
        f"{kafka} and {fastlog} side by side on {machine['cpu']}, {machine['memory_gb']:.0f} GB,"
        f" Linux {machine['kernel']}: each broker alone on one core, load from another, in turns; {pairs} a row, runs of"
        f" {options['seconds']:.0f} s where a row is about what is sustained, {options['memory_bytes'] >> 20} MiB of memory for fastlog."
    )


def quotes(document: dict[str, Any], place: str) -> str:
    """README's part."""
    samples = document["samples"]
    lines = ["| work | Kafka | fastlog | ratio | CPU, Kafka / fastlog |", "|---|---|---|---|---|"]
    for row in rows_of(document):
        found = [middle(values(samples, row.name, broker, row.metric)) for broker in ("kafka", "fastlog")]
        ratio = ratios(samples, row.name, row.metric)
        if row.name in QUOTED and ratio:
            cpu, unit = ("cpu_us_per_batch", "us each") if row.metric == "batches_per_s" else ("cpu_s_per_GB", "s per GB")
            costs = [middle(values(samples, row.name, broker, cpu)) for broker in ("kafka", "fastlog")]
            cost = f"{report.number(costs[0])} / {report.number(costs[1])} {unit}" if None not in costs and row.kind != "latency" else ""
            cells = [row.title, *(f"{report.number(value)} {row.unit}" for value in found), report.ratio_cell(ratio), cost]
            lines.append("| " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    more = f"[docs/benchmarks.md](docs/benchmarks.md) has every row with its target, [the report]({place}/report.md) all that was measured."
    return f"{BEGIN}\n{where(document)}\n\n{table}\n\n{more}\n{END}"


def page(document: dict[str, Any], place: str) -> str:
    """docs/benchmarks.md."""
    samples, rows = document["samples"], rows_of(document)
    more = (
        f"The whole report, with settings, limits of the machine and plots: [{place}](../{place}/report.md) (report.html beside it)."
        " `bench/run` repeats it ([bench/README.md](../bench/README.md)). Ratios (x) are fastlog / Kafka within a pair."
    )
    parts = [
        "# Measured",
        where(document),
        more,
        "## Targets",
        report.targets_table(samples, rows),
    ]
    if missed := report.missed_table(samples, rows):
        parts += ["## Missed", missed]
    if document.get("left_out"):
        parts += ["## Left out", "\n".join(f"- {row}: {why}" for row, why in document["left_out"].items())]
    return "\n\n".join(parts) + "\n"


def with_quotes(readme: str, made: str) -> str:
    """Raises ValueError when README has no place for it."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README has no {BEGIN} and {END}")
    return before + made + after


def publish(source: Path, root: Path = ROOT) -> Path:
    """Returns the report's directory. Raises ValueError."""
    document = read(source)
    place = f"bench/reports/{name_of(document)}"
    raw = json.dumps(document).encode()
    rows = rows_of(document)
    readme = with_quotes((root / "README.md").read_text(), quotes(document, place))
    target = root / place
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("report.*"):
        old.unlink()
    if len(raw) > PLAIN_BYTES_MAX:
        (target / "report.json.gz").write_bytes(gzip.compress(raw, mtime=0))
    else:
        (target / "report.json").write_bytes(raw)
    (target / "report.md").write_text(report.markdown(document, rows))
    (target / "report.html").write_text(html.page(document, rows))
    (root / "README.md").write_text(readme)
    (root / "docs/benchmarks.md").write_text(page(document, place))
    return target
