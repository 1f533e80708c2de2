"""The report as one page that needs nothing else: tables of the Markdown report, and plots drawn as SVG."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import report
from bench.statistics import limit_of, middle, ratios, values

if TYPE_CHECKING:
    from bench.rows import Row
    from bench.statistics import Limits, Samples

COLOURS = {"kafka": "#8a8f98", "fastlog": "#d1495b", "valkey": "#3a7ca5", "nats": "#5b8c5a"}
INK, FAINT = "#222", "#ddd"
WIDTH = 860
CHARACTER_WIDTH = 6.6  # of the plots' text, on average
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1300px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;font-size:13px;margin:1em 0;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:3px 9px;text-align:left;vertical-align:top}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}svg{max-width:100%;height:auto}text{font:12px system-ui,sans-serif}
"""


class Picture:
    """SVG elements, collected."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, anchor: str = "start", fill: str = INK) -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{fill}"/>')

    def line(self, points: list[tuple[float, float]], stroke: str, width: float = 1.0, dash: str = "") -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{dashed}/>')

    def __str__(self) -> str:
        width, height = self.size
        return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(self.parts)}</svg>'


def short(title: str, width: float) -> str:
    """As much of it as fits."""
    most = int(width / CHARACTER_WIDTH)
    return title if len(title) <= most else title[: most - 1].rstrip(" ,:") + "…"


def bars(samples: Samples, rows: list[Row], metric: str, unit: str, limits: Limits) -> str:
    """Both brokers' medians, row by row, each row to its own scale; whiskers from least to most; a dashed line at the machine's limit."""
    shown = [row for row in rows if any(values(samples, row.name, broker, metric) for broker in COLOURS)]
    tops = [8]
    for row in shown:
        tops.append(tops[-1] + 18 + 20 * max(2, sum(bool(values(samples, row.name, broker, metric)) for broker in COLOURS)))
    picture = Picture(WIDTH, tops[-1] + 10)
    left, room = 330, WIDTH - 330 - 110
    for row, top in zip(shown, tops, strict=False):
        found = {broker: each for broker in COLOURS if (each := values(samples, row.name, broker, metric))}
        bound = limit_of(row, limits, samples) if metric == row.metric else None
        most = max([max(each.values()) for each in found.values() if each] + ([bound[1]] if bound else []))
        picture.text(left - 10, top + 22, short(row.title, left), "end")
        for k, (broker, each) in enumerate(found.items()):
            value = middle(each)
            if value is None:
                continue
            y = top + 4 + 20 * k
            picture.bar(left, y, value / most * room, 15, COLOURS[broker])
            picture.line([(left + low / most * room, y + 7.5) for low in (min(each.values()), max(each.values()))], INK, 1.5)
            picture.text(left + value / most * room + 6, y + 12, f"{report.number(value)} {unit}")
        if bound:
            x = left + bound[1] / most * room
            picture.line([(x, top), (x, top + 46)], INK, 1, "3,3")
            picture.parts.append(f"<title>{escape(bound[0])}: {bound[1]:,.0f} MB/s</title>")
    return str(picture)


def ratio_plot(samples: Samples, rows: list[Row]) -> str:
    """How many times better than Kafka, on a logarithmic scale: for what is better when less, the inverse of the ratio."""
    found = []
    for row in rows:
        each = ratios(samples, row.name, row.metric)
        if each and median(each) > 0:
            found.append((row, 1 / median(each) if row.less_is_better else median(each)))
    if not found:
        return ""
    picture = Picture(WIDTH, 26 * len(found) + 40)
    left, room = 420, WIDTH - 420 - 70
    most = max(2.0, *(ratio for _, ratio in found))
    low = min(1.0, *(ratio for _, ratio in found))
    span = math.log(most / low)

    def x(ratio: float) -> float:
        return left + math.log(ratio / low) / span * room

    for tick in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100):
        if low <= tick <= most:
            picture.line([(x(tick), 4), (x(tick), 26 * len(found) + 14)], INK if tick == 1 else FAINT)
            picture.text(x(tick), 26 * len(found) + 30, f"{tick:g}x", "middle")
    for i, (row, ratio) in enumerate(found):
        y = 26 * i + 10
        picture.text(left - 10, y + 12, short(row.title, left), "end")
        start, end = sorted((x(1), x(ratio)))
        picture.bar(start, y, end - start, 15, COLOURS["fastlog"])
        picture.text(x(ratio) + 6, y + 12, f"{ratio:.1f}x")
    return str(picture)


def percentiles(samples: Samples, row: Row, what: str) -> str:
    """Latency at each percentile, both axes logarithmic: the tail is where brokers differ."""
    curves = {}
    for broker in COLOURS:
        runs = [s[what]["buckets"] for s in samples if s["row"] == row.name and s["broker"] == broker and s.get("sound") and what in s]
        merged: dict[int, int] = {}
        for buckets in runs:
            for ns, count in buckets:
                merged[ns] = merged.get(ns, 0) + count
        if merged:
            curves[broker] = sorted(merged.items())
    if not curves:
        return ""
    picture = Picture(WIDTH, 300)
    left, top, room_x, room_y = 70, 30, WIDTH - 150, 220
    low = min(curve[0][0] for curve in curves.values()) / 1000
    high = max(curve[-1][0] for curve in curves.values()) / 1000
    low, high = max(low, 1.0), max(high, low * 10)
    deepest = 4.0  # 99.99 %

    def y(us: float) -> float:
        return top + room_y - math.log(max(us, low) / low) / math.log(high / low) * room_y

    for exponent in range(int(math.log10(low)), int(math.log10(high)) + 1):
        us = 10.0**exponent
        if low <= us <= high:
            picture.line([(left, y(us)), (left + room_x, y(us))], FAINT)
            picture.text(left - 8, y(us) + 4, f"{us:g} us" if us < 1000 else f"{us / 1000:g} ms", "end")
    for nines, name in enumerate(("0 %", "90 %", "99 %", "99.9 %", "99.99 %")):
        picture.text(left + nines / deepest * room_x, top + room_y + 20, name, "middle")
    picture.text(left, 16, f"{row.title}: {what.replace('_', ' ')}")
    for broker, curve in curves.items():
        total = sum(count for _, count in curve)
        seen = 0
        points = []
        for ns, count in curve:
            points.append((left + min(deepest, -math.log10(max(1 - seen / total, 1e-9))) / deepest * room_x, y(ns / 1000)))
            seen += count
            if 1 - seen / total < 10**-deepest:
                break
        picture.line(points, COLOURS[broker], 2)
        picture.text(points[-1][0] + 6, points[-1][1] + 4, broker, fill=COLOURS[broker])
    return str(picture)


def ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and a tenth of the way between where there are few."""
    found = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    if len(found) < 4:
        found = sorted(found + [3 * each for each in found])
    return [each for each in found if low <= each <= high]


def spell_us(us: float) -> str:
    return f"{us:g} us" if us < 1000 else f"{us / 1000:g} ms" if us < 1e6 else f"{us / 1e6:g} s"


def over_load(samples: Samples, row: Row) -> str:
    """Median (thin) and 99th percentile over the rate, both axes logarithmic; a curve ends where its broker no longer kept up."""
    curves: dict[str, dict[float, list[list[float]]]] = {}
    for sample in samples:
        if sample["row"] == row.name and sample.get("sound") and sample.get("curve"):
            for rate, *latencies in sample["curve"]:
                curves.setdefault(sample["broker"], {}).setdefault(rate, []).append(latencies)
    if not curves:
        return ""
    points = {
        broker: [(rate, median(e[0] for e in each), median(e[1] for e in each)) for rate, each in sorted(by_rate.items())]
        for broker, by_rate in curves.items()
    }
    rates = [rate for each in points.values() for rate, _, _ in each]
    times = [us for each in points.values() for _, p50, p99 in each for us in (p50, p99)]
    low_x, high_x = min(rates), max(*rates, min(rates) * 2)
    low_y, high_y = max(min(times), 1.0), max(*times, min(times) * 10)
    picture = Picture(WIDTH, 300)
    left, top, room_x, room_y = 70, 30, WIDTH - 150, 220

    def x(rate: float) -> float:
        return left + math.log(rate / low_x) / math.log(high_x / low_x) * room_x

    def y(us: float) -> float:
        return top + room_y - math.log(max(us, low_y) / low_y) / math.log(high_y / low_y) * room_y

    for us in ticks(low_y, high_y):
        picture.line([(left, y(us)), (left + room_x, y(us))], FAINT)
        picture.text(left - 8, y(us) + 4, spell_us(us), "end")
    for rate in sorted(set(rates)):
        picture.text(x(rate), top + room_y + 20, f"{rate:,.0f}", "middle")
    picture.text(left, 16, f"{row.title.partition(':')[0]}: p50 (thin) and p99 over {row.unit}")
    for broker, each in points.items():
        picture.line([(x(rate), y(p50)) for rate, p50, _ in each], COLOURS[broker], 1)
        picture.line([(x(rate), y(p99)) for rate, _, p99 in each], COLOURS[broker], 2.5)
        picture.text(x(each[-1][0]) + 6, y(each[-1][2]) + 4, broker, fill=COLOURS[broker])
    return str(picture)


def latency_over_time(samples: Samples, row: Row) -> str:
    """The 99th percentile of the acknowledgements in each interval of each run, logarithmic."""
    lines = []
    for sample in samples:
        if sample["row"] == row.name and sample.get("sound") and sample.get("series"):
            found = [(each[0], each[4]) for each in sample["series"] if len(each) > 4 and each[4]]
            if len(found) > 2:
                lines.append((sample["broker"], found))
    if not lines:
        return ""
    last = max(each[-1][0] for _, each in lines)
    low = max(1.0, min(us for _, each in lines for _, us in each))
    high = max(low * 10, *(us for _, each in lines for _, us in each))
    picture = Picture(WIDTH, 220)
    left, top, room_x, room_y = 70, 30, WIDTH - 150, 150

    def y(us: float) -> float:
        return top + room_y - math.log(max(us, low) / low) / math.log(high / low) * room_y

    for us in ticks(low, high):
        picture.line([(left, y(us)), (left + room_x, y(us))], FAINT)
        picture.text(left - 8, y(us) + 4, spell_us(us), "end")
    picture.text(left, 16, f"{row.title}: p99 of the acknowledgements, over seconds")
    picture.text(left + room_x, top + room_y + 18, f"{last:.0f} s", "end")
    for broker, each in lines:
        picture.line([(left + t / last * room_x, y(us)) for t, us in each], COLOURS[broker], 1.2)
    return str(picture)


def over_time(samples: Samples, row: Row, job_bytes: int) -> str:
    """MB/s in each interval of each run: what a burst is and what is sustained."""
    at = 2 if row.kind == "read" else 1
    lines = []
    for sample in samples:
        if sample["row"] == row.name and sample.get("sound") and sample.get("series"):
            series = sample["series"]
            rate = [(b[0], (b[at] - a[at]) * job_bytes / 1e6 / (b[0] - a[0])) for a, b in pairwise(series) if b[0] > a[0]]
            if rate:
                lines.append((sample["broker"], rate))
    if not lines:
        return ""
    picture = Picture(WIDTH, 220)
    left, top, room_x, room_y = 70, 30, WIDTH - 150, 150
    last = max(rate[-1][0] for _, rate in lines)
    most = max(max(value for _, value in rate) for _, rate in lines) or 1.0
    picture.text(left, 16, f"{row.title}: MB/s over seconds")
    for share in (0, 0.5, 1):
        picture.line([(left, top + room_y * (1 - share)), (left + room_x, top + room_y * (1 - share))], FAINT)
        picture.text(left - 8, top + room_y * (1 - share) + 4, report.number(most * share), "end")
    picture.text(left + room_x, top + room_y + 18, f"{last:.0f} s", "end")
    for broker, rate in lines:
        picture.line([(left + t / last * room_x, top + room_y * (1 - value / most)) for t, value in rate], COLOURS[broker], 1.2)
    return str(picture)


def table(markdown: str) -> str:
    """A Markdown table as HTML."""
    head, _, *body = [line.strip().strip("|").split("|") for line in markdown.splitlines()]
    cells = "".join(f"<th>{escape(cell.strip())}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell.strip())}</td>" for cell in line) + "</tr>" for line in body)
    return f"<table><tr>{cells}</tr>{rows}</table>"


def page(document: dict[str, Any], rows: list[Row]) -> str:
    samples: Samples = document["samples"]
    limits: Limits = document["limits"]
    legend = " ".join(f'<span style="color:{colour}">&#9632; {broker}</span>' for broker, colour in COLOURS.items())
    sized = [(row, row.job.get("records", 64) * row.job.get("record_bytes", 1024)) for row in rows]
    parts = [
        f"<h1>fastlog beside Apache Kafka</h1><p>{escape(document['made'])}. {escape(report.method(document))}</p><p>{legend}</p>",
        "<h2>How many times better</h2>" + ratio_plot(samples, rows),
        table(report.table(samples, rows, limits)),
        "<h2>Targets missed</h2>" + table(missed) if (missed := report.missed_table(samples, rows)) else "",
        "<h2>Beside peers with protocols of their own</h2>" + table(peers) if (peers := report.peers_table(samples, rows)) else "",
        "<h2>Throughput (the dashed line is what this machine can do)</h2>",
        bars(samples, [row for row in rows if row.unit == "MB/s" and row.kind == "throughput"], "MB_per_s", "MB/s", limits),
        bars(samples, [row for row in rows if row.kind == "read"], "read_MB_per_s", "MB/s", limits),
        bars(samples, [row for row in rows if row.metric == "batches_per_s"], "batches_per_s", "batches/s", limits),
        "<h2>Burst and sustained (MB/s)</h2>" + table(report.sustained_table(samples, rows)),
        "<h2>CPU of the broker</h2>",
        bars(samples, [row for row in rows if row.unit == "MB/s"], "cpu_s_per_GB", "s per GB", limits),
        bars(samples, [row for row in rows if row.metric == "batches_per_s"], "cpu_us_per_batch", "us per batch", limits),
        "<h2>Latency</h2>",
        *(percentiles(samples, row, "end_to_end" if row.job.get("consumers") else "ack") for row in rows if row.kind == "latency"),
        table(report.latency_table(samples, rows)),
        "<h2>Latency over load</h2>" + loads if (loads := "".join(over_load(samples, row) for row in rows)) else "",
        "<h2>Over time</h2>",
        *(latency_over_time(samples, row) for row in rows if row.kind == "latency"),
        *(over_time(samples, row, size) for row, size in sized if row.unit == "MB/s"),
        "<h2>Memory</h2>" + table(report.memory_table(samples, rows)),
        "<h2>This machine's limits, same run</h2>" + table(report.limits_table(limits)) if limits else "",
        "<h2>Machine, versions, settings</h2><ul>",
        *(f"<li>{escape(str(key))}: {escape(str(value))}</li>" for key, value in report.about(document).items()),
        "</ul>",
    ]
    return f"<!doctype html><meta charset=utf-8><title>fastlog beside Apache Kafka</title><style>{STYLE}</style>" + "\n".join(parts)
