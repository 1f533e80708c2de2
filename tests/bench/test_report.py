"""The report says what the samples say: medians, ratios within pairs, shares of a limit, targets met or missed."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from bench import __main__ as command
from bench import budget, compare, groups, html, report, rows, sustained
from bench.session import Options, Session
from bench.statistics import interval, limit_of, ratios, share_of_limit, target_value

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = {
    "disk": {
        "write 1 MiB, 4 in flight": {"MB_per_s": 2000.0},
        "read 1 MiB, 4 in flight": {"MB_per_s": 1000.0},
        "durable write 1 MiB, 1 in flight": {"MB_per_s": 900.0},
    },
    "loopback": {"receive 64 KiB and CRC-32C": {"MB_per_s": 4000.0}, "receive 1 MiB": {"MB_per_s": 6000.0}},
}
LATENCY = {"count": 3, "p50_us": 10.0, "p90_us": 20.0, "p99_us": 30.0, "p99.9_us": 30.0, "max_us": 30.0}


def sample(row: str, broker: str, pair: int, **figures: Any) -> dict[str, Any]:
    made = {"row": row, "broker": broker, "pair": pair, "sound": True, "sustained": True, **figures}
    if "MB_per_s" in figures:
        made["series"] = [[0.0, 0, 0], [1.0, 100, 0], [2.0, 250, 0]]
    return made


@pytest.fixture
def document() -> dict[str, Any]:
    samples = []
    for pair, (kafka, ours) in enumerate([(100.0, 900.0), (200.0, 1000.0), (100.0, 700.0)]):
        samples.append(sample("acks1-1", "kafka", pair, MB_per_s=kafka, cpu_s_per_GB=2.0))
        apart = {"burst_MB_per_s": ours * 2, "whole_MB_per_s": ours + 1, "sustained_from_s": 3.0, "worst_second_MB_per_s": ours / 2}
        samples.append(sample("acks1-1", "fastlog", pair, MB_per_s=ours, cpu_s_per_GB=0.4, **apart))
    samples.append(sample("acks1-1", "fastlog", 3, MB_per_s=1.0) | {"sound": False})
    buckets = {"ack": LATENCY | {"buckets": [[10_000, 2], [30_000, 1]]}}
    for broker, most in (("kafka", 50), ("fastlog", 400)):
        points = [[rate, 100.0 + rate, 200.0 + rate * 9, 999.0] for rate in (5, 50, 400) if rate <= most]
        samples.append(sample("curve", broker, 0, curve=points, MB_per_s_within_10ms=most))
    for broker, p99 in (("kafka", 900), ("fastlog", 90)):
        samples.append(sample("ack", broker, 0, ack_p99_us=p99, ack_p50_us=p99 / 2, **buckets))
    return {
        "made": "then",
        "options": {"repeats": 3, "seconds": 30.0},
        "machine": {"kernel": "6.1 <&>"},
        "versions": {},
        "settings": {},
        "limits": LIMITS,
        "samples": samples,
    }


CHOSEN = [row for row in groups.ROWS if row.name in ("acks1-1", "ack")]
CURVE = next(row for row in groups.ROWS if row.name == "curve")


def test_ratios_are_taken_within_pairs_and_unsound_runs_left_out(document: dict[str, Any]) -> None:
    assert ratios(document["samples"], "acks1-1", "MB_per_s") == [9.0, 5.0, 7.0]


def test_the_interval_of_one_figure_is_that_figure_and_of_many_holds_the_median() -> None:
    assert interval([3.0]) == (3.0, 3.0)
    figures = [1.0 + i / 100 for i in range(101)]
    low, high = interval(figures)
    assert 1.3 < low < 1.5 < high < 1.7
    assert interval(figures) == (low, high)
    with pytest.raises(ValueError, match="no figures"):
        interval([])


def test_a_row_is_held_against_the_least_limit_that_applies(document: dict[str, Any]) -> None:
    by_name = {row.name: row for row in groups.ROWS}
    assert limit_of(by_name["acks1-1"], LIMITS) == ("write 1 MiB, 4 in flight", 2000.0)
    assert limit_of(by_name["read-10m"], LIMITS) == ("receive 1 MiB", 6000.0)
    assert limit_of(by_name["read-cold"], LIMITS) == ("read 1 MiB, 4 in flight", 1000.0)
    assert limit_of(by_name["ack"], LIMITS) is None
    assert limit_of(by_name["acks1-1"], {}) is None
    assert share_of_limit(document["samples"], by_name["acks1-1"], "fastlog", LIMITS) == 0.45


def test_the_table_has_medians_shares_and_verdicts(document: dict[str, Any]) -> None:
    line = next(each for each in report.table(document["samples"], CHOSEN, LIMITS).splitlines() if "64 KiB batches" in each)
    for expected in ("100 MB/s", "900 MB/s", "7.00x (5.00-9.00)", "5% / 45%", "met; not measured; met", "1 unsound runs"):
        assert expected in line
    missed = report.verdict(document["samples"], next(row for row in groups.ROWS if row.name == "single"))
    assert missed[1] == "not measured; not measured; not measured"


def test_burst_and_sustained_have_a_table(document: dict[str, Any]) -> None:
    assert "| acks1-1 | fastlog | 1,800 | 3 | 900 | 450 | 901 |  |" in report.sustained_table(document["samples"], CHOSEN)
    for each in document["samples"]:
        each["sustained"] = False
    assert "| 1,800 | 3 | - | - | 901 | burst only" in report.sustained_table(document["samples"], CHOSEN)


def test_the_page_is_whole_and_needs_nothing_else(document: dict[str, Any]) -> None:
    for each in document["samples"]:
        if each["row"] == "ack":
            each["series"] = [[float(t), 100 * t, 0, 40.0, 90.0 + t] for t in range(5)]
    page = html.page(document, [*CHOSEN, CURVE])
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 7
    for expected in ("p99 of the acknowledgements, over seconds", "p50 (thin) and p99 over MB/s"):
        assert any(expected in picture for picture in pictures)
    for picture in pictures:
        ET.fromstring(picture)
    assert "6.1 &lt;&amp;&gt;" in page
    assert "http" not in page


def test_a_report_is_made_again_from_its_samples(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(document))
    assert command.render(tmp_path / "report.json") == 0
    assert "900 MB/s" in (tmp_path / "report.md").read_text()
    assert "900 MB/s" in (tmp_path / "report.html").read_text()


def test_what_is_measured_is_not_measured_again(document: dict[str, Any], tmp_path: Path) -> None:
    options = Options(tmp_path / "data", 1, 1, 4, 0, 0, 1 << 20, 0, 0, 0, fill_page_cache=False, say=print)
    session = Session(["fastlog"], options, lambda: None)
    session.resume(document["samples"])
    row = CHOSEN[0]
    assert [session.is_measured(row, session.brokers[0], pair) for pair in range(5)] == [True, True, True, False, False]


def test_brokers_start_with_nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed run left would be loaded at each start, and counted as the broker's own memory and time."""
    session = Session(
        ["fastlog"], Options(tmp_path, 1, 1, 1, 0, 0, 1 << 20, 0, 0, 0, fill_page_cache=False, say=lambda _: None), lambda: None
    )
    (broker,) = session.brokers
    broker.directory.mkdir()
    (broker.directory / "left").touch()
    found: list[bool] = []
    monkeypatch.setattr(broker, "start", lambda: found.append(broker.directory.exists()))
    monkeypatch.setattr(type(broker), "pid", 1)
    session.start()
    assert found == [False]


def test_burst_and_sustained_are_told_apart() -> None:
    """Two seconds at 1,000 MB/s into memory, then the disk's 400."""
    series = [[float(t), acked, 0] for t, acked in enumerate([0, 1000, 2000, *range(2400, 2400 + 28 * 400, 400)])]
    run = {"series": series, "seconds": 30.0, "MB_per_s": 440.0, "acked_bytes": 13_200 * 10**6}
    found = sustained.apart(run, 10**6, 2000 * 10**6)
    assert found["sustained"]
    assert (found["burst_MB_per_s"], found["MB_per_s"], found["whole_MB_per_s"]) == (1000.0, 400.0, 440.0)
    short = sustained.apart(run | {"seconds": 10.0}, 10**6, 2000 * 10**6)
    assert not short["sustained"]
    assert "MB_per_s" not in short, "the whole run's rate stays, and the report says burst"
    assert not sustained.apart(run, 10**6, 5000 * 10**6)["sustained"], "less than four times what can be held"


def test_a_budget_keeps_what_is_sustained_long_and_shortens_the_rest() -> None:
    everything = rows.choose("all")
    long, short = budget.fit(everything, 2, 25, 2, 20)
    assert long == 30, "what is sustained stays so; rows that don't fit are left out"
    assert 4 <= short <= 15
    assert budget.fit(everything, 2, 120, 2, 20) == (30, 15)
    assert budget.fit(everything, 2, 1, 2, 20) == (5.0, 2.0)
    assert budget.fit(everything[:1], 2, 1, 2, 20)[0] > 0
    assert not any(row.optional for row in everything)


def test_a_row_that_is_too_late_or_lacks_something_is_named(tmp_path: Path) -> None:
    options = Options(tmp_path, 1, 1, 1, 0, 0, 1 << 20, 0, 0, 0, fill_page_cache=False, say=lambda _: None)
    session = Session(["fastlog"], options, lambda: None)
    session.run_row(dataclasses.replace(CHOSEN[0], needs=lambda: "no such disk"))
    assert session.left_out == {CHOSEN[0].name: "no such disk"}
    late = Session(["fastlog"], dataclasses.replace(options, deadline=0.0), lambda: None)
    late.run_row(CHOSEN[0])
    assert late.left_out == {CHOSEN[0].name: "no time left"}
    assert not late.samples


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([100, 101, 99], "no difference"),
        ([120, 90, 110], "no difference"),
        ([102, 102, 102], "no difference"),
        ([120, 121, 119], "20% better"),
        ([80, 81, 79], "20% worse"),
        ([80, 81], "can't tell: 2 pairs, 3 are needed"),
    ],
)
def test_two_commits_differ_only_when_it_can_be_told(after: list[float], said: str) -> None:
    samples = [sample("acks1-1", "before", pair, MB_per_s=100.0) for pair in range(3)]
    samples += [sample("acks1-1", "after", pair, MB_per_s=float(value)) for pair, value in enumerate(after)]
    assert compare.verdict(samples, CHOSEN[0]) == said
    assert said in compare.table(samples, CHOSEN)
    worse_when_more = dataclasses.replace(CHOSEN[0], less_is_better=True)
    turned = {"20% better": "20% worse", "20% worse": "20% better"}
    assert compare.verdict(samples, worse_when_more) == turned.get(said, said)


def test_a_target_against_several_is_held_against_the_best_of_them() -> None:
    samples = [sample("x", who, 0, batches_per_s=n) for who, n in (("fastlog", 60.0), ("valkey", 20.0), ("nats", 40.0))]
    target = rows.Target("batches_per_s", 1.4, against="valkey,nats")
    assert target_value(samples, "x", target) == 1.5
    assert target_value(samples, "x", rows.Target("batches_per_s", 1.4)) is None


def test_every_row_is_in_a_group_or_named_and_has_a_load() -> None:
    names = {row.name for row in groups.ROWS}
    assert all(set(group) <= names for group in groups.GROUPS.values())
    assert rows.choose("latency,idle") == [row for row in groups.ROWS if row.name in {*groups.GROUPS["latency"], "idle"}]
    with pytest.raises(ValueError, match="no row"):
        rows.choose("nothing")


def test_what_runs_by_default_takes_about_an_hour_with_three_pairs() -> None:
    """Every row with its lead, and as much again as runs take beside that."""
    chosen = rows.choose(None)
    assert {row.name for row in chosen} < {row.name for row in rows.choose("all")}
    seconds = sum(2 * 3 * ((30 if row.sustained else 10) + 5 + budget.OVERHEAD_SECONDS) for row in chosen if row.kind != "own")
    seconds += sum(2 * 3 * budget.OWN_SECONDS for row in chosen if row.kind == "own")
    assert 40 * 60 < seconds < 80 * 60


def test_a_broker_that_died_starts_again_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(tmp_path, 1, 1, 1, 0, 0, 1 << 20, 0, 0, 0, fill_page_cache=False, say=lambda _: None)
    session = Session(["fastlog", "valkey"], options, lambda: None)
    died, other = session.brokers
    session.topics = [(died, "a"), (other, "b"), (died, "c")]
    died.directory.mkdir()
    (died.directory / "left").touch()
    started: list[bool] = []
    monkeypatch.setattr(died, "start", lambda: started.append(died.directory.exists()))
    session.revive(died)
    assert started == [False]
    assert session.topics == [(other, "b")], "topics that are gone are not deleted again"
