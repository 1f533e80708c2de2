"""fastlog side by side with Apache Kafka: `bench/run [OPTION...]`, or `python -m bench` inside the environment.

Starts both on one core, loads them in turns from another, and writes report.html, report.md, and report.json with the raw samples.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import budget, compare, groups, html, publish, report, rows
from bench.brokers import BROKERS, ROOT, StartError
from bench.peers import PEERS
from bench.session import Options, Session
from fastlog.loadgen import limits
from fastlog.loadgen.job import split_address
from fastlog.loadgen.machine import describe, device_of, interrupts_core

GIB = 1 << 30
SHORT_SECONDS = 10.0  # of a run of a row that is not about what is sustained
UNSAID = ("say", "deadline")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ROWS", help="rows or groups, comma between (default: core; all: every row; --list names them)")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--brokers", default="fastlog,kafka", help="which to run, comma between (default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help="Valkey and NATS JetStream too, where a row has a counterpart")
    parser.add_argument("--repeats", type=int, metavar="N", help="pairs per row (default: 3; 1 with --quick)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="of each measured run (default: 30, or 10 where nothing sustained is measured; 5 with --quick)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="one pair of every chosen row within about so long: runs as long as fit, 30 s where a row is"
        " about what is sustained; rows that can't be begun in time are named as left out",
    )
    parser.add_argument(
        "--warm", type=float, metavar="S", help="of load on each broker before the first row (default: 45; 20 with --quick)"
    )
    parser.add_argument("--long", type=float, metavar="MINUTES", help="only row `long`, for so long: latency over time")
    parser.add_argument("--quick", action="store_true", help="short runs: bursts, not what the disk sustains; the report says so")
    parser.add_argument("--full", action="store_true", help="7 pairs per row: for figures to be quoted")
    parser.add_argument("--resume", action="store_true", help="keep the sound samples that the output directory has from an earlier run")
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing: make the report again from its raw samples")
    parser.add_argument("--publish", type=Path, metavar="JSON", help="measure nothing: put a report into the repository")
    parser.add_argument("--directory", type=Path, default=ROOT / "build/bench/data", help="for the brokers' data, on the disk to measure")
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/report", help="where the report goes")
    parser.add_argument("--memory", type=int, default=GIB, metavar="BYTES", help="fastlog's memory budget (default: 1 GiB, Kafka's heap)")
    parser.add_argument("--bytes-max", type=int, default=24 * GIB, metavar="BYTES", help="end a run early after so many (default: 24 GiB)")
    parser.add_argument("--broker-core", type=int, metavar="N", help="default: the one that takes the disk's interrupts, or the first")
    parser.add_argument("--load-core", type=int, metavar="N", help="default: the first other one")
    parser.add_argument("--fastlog-option", action="append", default=[], metavar="ARG", help="one more argument for fastlog serve")
    parser.add_argument("--kafka-option", action="append", default=[], metavar="KEY=VALUE", help="one more server property")
    parser.add_argument(
        "--compare", nargs=2, metavar="COMMIT", help="two commits of fastlog instead of fastlog and Kafka, with a verdict for each row"
    )
    parser.add_argument("--network", metavar="HOST:PORT", help="measure the network too, against `fastlog bench --far-end` on another host")
    parser.add_argument("--no-limits", action="store_true", help="don't measure disk, network and processor")
    parser.add_argument("--no-fill", action="store_true", help="don't turn free memory into page cache before each run")
    return parser.parse_args()


def choose_cores(given: argparse.Namespace, cores: list[int]) -> None:
    """Each broker pays for its own I/O, and the load keeps no completion waiting: so brokers go where the disk's interrupts go."""
    if given.broker_core is None:
        free = [core for core in cores if core != given.load_core] or cores
        taken = interrupts_core(device_of(given.directory))
        given.broker_core = taken if taken in free else free[0]
    if given.load_core is None:
        given.load_core = next((core for core in cores if core != given.broker_core), given.broker_core)


def options_of(given: argparse.Namespace, chosen: list[rows.Row], brokers: int) -> Options:
    seconds = given.seconds or (5 if given.quick else 30)
    short_seconds = seconds if given.seconds or given.quick or given.full else SHORT_SECONDS
    repeats = given.repeats or (1 if given.quick or given.budget else 7 if given.full else 3)
    lead_seconds = 2.0 if given.quick or given.budget else 5.0
    warm_seconds = given.warm if given.warm is not None else 20.0 if given.quick or given.budget else 45.0
    if given.budget and not given.seconds:
        seconds, short_seconds = budget.fit(chosen, brokers, given.budget / repeats, lead_seconds, warm_seconds)
    free = shutil.disk_usage(given.directory).free
    return Options(
        directory=given.directory,
        seconds=seconds,
        short_seconds=short_seconds,
        repeats=repeats,
        warm_seconds=warm_seconds,
        lead_seconds=lead_seconds,
        bytes_max=max(GIB, min(given.bytes_max, int((free - 10 * GIB) / 2.5))),
        memory_bytes=given.memory,
        broker_core=given.broker_core,
        load_core=given.load_core,
        fill_page_cache=not given.no_fill,
        say=lambda line: print(line, flush=True),
        fastlog_options=given.fastlog_option,
        kafka_options=given.kafka_option,
        quiet_seconds=5.0 if given.quick else 20.0,
        deadline=time.monotonic() + given.budget * 60 if given.budget else float("inf"),
    )


def measure_limits(given: argparse.Namespace) -> dict[str, limits.Figures]:
    seconds = 0.4 if given.quick or given.budget else 1.5
    os.sched_setaffinity(0, {given.broker_core, given.load_core})
    try:
        found = {
            "disk": limits.disk(given.directory, seconds),
            "loopback": limits.loopback(given.broker_core, given.load_core, max(seconds, 1.0)),
            "processor": limits.processor(given.broker_core, seconds),
        }
        if given.network:
            found["network"] = limits.network(split_address(given.network), max(seconds, 1.0), "network: ")
        return found
    finally:
        os.sched_setaffinity(0, {given.load_core})


def write(document: dict[str, Any], chosen: list[rows.Row], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if any(sample["broker"] == compare.BEFORE for sample in document["samples"]):
        (output / "compare.json").write_text(json.dumps(document))
        (output / "compare.md").write_text(compare.table(document["samples"], chosen) + "\n")
        return
    (output / "report.json").write_text(json.dumps(document))
    (output / "report.md").write_text(report.markdown(document, chosen))
    (output / "report.html").write_text(html.page(document, chosen))


def render(source: Path) -> int:
    """Makes the report's pages again from its raw samples, beside them."""
    document = publish.read(source)
    chosen = publish.rows_of(document)
    write(document, chosen, source.parent)
    print(report.table(document["samples"], chosen, document["limits"]))
    return 0


def main() -> int:
    given = parse()
    if given.list:
        for row in groups.ROWS:
            print(f"{row.name:18} {row.title}")
        for name, members in groups.GROUPS.items():
            print(f"{name:18} = {', '.join(members)}")
        return 0
    if given.render:
        return render(given.render)
    if given.publish:
        print(f"{publish.publish(given.publish)}, README.md, docs/benchmarks.md")
        return 0
    try:
        chosen = rows.choose("long" if given.long else given.only)
        if given.long:
            chosen = [replace(row, seconds=given.long * 60) for row in chosen]
        names = given.brokers.split(",") + (list(PEERS) if given.peers else [])
        known = [*BROKERS, *PEERS]
        if not set(names) <= set(known):
            raise ValueError(f"--brokers: {given.brokers}; there are {', '.join(known)}")
        cores = os.sched_getaffinity(0)
        given.directory.mkdir(parents=True, exist_ok=True)
        choose_cores(given, sorted(cores))
        if not {given.broker_core, given.load_core} <= cores:
            raise ValueError(f"cores {given.broker_core} and {given.load_core} are not both among {sorted(cores)}")
    except ValueError as problem:
        print(f"bench/run: {problem}", file=sys.stderr)
        return 2
    try:
        places = [compare.checkout(commit) for commit in given.compare or ()]
    except compare.CompareError as problem:
        print(f"bench/run: {problem}", file=sys.stderr)
        return 2
    options = options_of(given, chosen, len(BROKERS.keys() & set(names)) or 1)  # peers have few rows
    document: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items() if key not in UNSAID},
        "machine": describe(given.directory),
        "versions": {},
        "settings": {},
        "limits": {},
        "samples": [],
        "left_out": {},
    }
    earlier: dict[str, Any] = {}
    saved = given.output / ("compare.json" if given.compare else "report.json")
    if given.resume and saved.exists():
        earlier = json.loads(saved.read_text())
    document["versions"] |= earlier.get("versions", {})
    document["settings"] |= earlier.get("settings", {})
    os.sched_setaffinity(0, {given.load_core})
    if earlier.get("limits") and not given.no_limits:
        document["limits"] = earlier["limits"]
    elif not given.no_limits:
        print("measuring limits ...", flush=True)
        document["limits"] = measure_limits(given)
    compared = [
        compare.Commit(name, place, given.directory, core=given.broker_core, options=given.fastlog_option, memory_bytes=given.memory)
        for name, place in zip((compare.BEFORE, compare.AFTER), places, strict=False)
    ]
    session = Session(compared or names, options, lambda: write(document, chosen, given.output))
    document["samples"], document["left_out"] = session.samples, session.left_out
    session.limits = document["limits"]
    session.resume(earlier.get("samples", []))
    try:
        for broker in session.brokers:
            now, was = broker.version(), document["versions"].get(broker.name, "")
            document["versions"][broker.name] = now if was in ("", now) else f"{was}, then {now}"
            document["settings"][f"{broker.name} run as"] = broker.settings()
        session.run(chosen)
    except StartError as problem:
        print(f"bench/run: {problem}", file=sys.stderr)
        return 1
    finally:
        session.close()
        if session.samples:
            write(document, chosen, given.output)
    print()
    if given.compare:
        print(compare.table(session.samples, chosen))
        print(f"\nraw samples: {given.output}/compare.json")
        return 0 if all(sample.get("sound") for sample in session.samples) else 1
    print(report.table(session.samples, chosen, document["limits"]))
    print(f"\nreport: {given.output}/report.html and report.md, raw samples: {given.output}/report.json")
    return 0 if all(sample.get("sound") for sample in session.samples) else 1


if __name__ == "__main__":
    sys.exit(main())
