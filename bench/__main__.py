"""fastlog side by side with Apache Kafka: `bench/run [OPTION...]`, or `python -m bench` inside the environment.

Starts both on one core, loads them in turns from another, and writes report.html, report.md, and report.json with the raw samples.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import groups, html, limits, machine, report, rows
from bench.brokers import BROKERS, ROOT, StartError
from bench.session import Options, Session

GIB = 1 << 30


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ROWS", help="rows or groups, comma between (default: all; --list names them)")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--brokers", default="fastlog,kafka", help="which to run, comma between (default: %(default)s)")
    parser.add_argument("--repeats", type=int, metavar="N", help="pairs per row (default: 3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each measured run (default: 30; 5 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short runs: bursts, not what the disk sustains; the report says so")
    parser.add_argument("--full", action="store_true", help="7 pairs per row: for figures to be quoted")
    parser.add_argument("--resume", action="store_true", help="keep the sound samples that the output directory has from an earlier run")
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing: make the report again from its raw samples")
    parser.add_argument("--directory", type=Path, default=ROOT / "build/bench/data", help="for the brokers' data, on the disk to measure")
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/report", help="where the report goes")
    parser.add_argument("--memory", type=int, default=GIB, metavar="BYTES", help="fastlog's memory budget (default: 1 GiB, Kafka's heap)")
    parser.add_argument("--bytes-max", type=int, default=24 * GIB, metavar="BYTES", help="end a run early after so many (default: 24 GiB)")
    parser.add_argument("--broker-core", type=int, default=0, metavar="N")
    parser.add_argument("--load-core", type=int, default=1, metavar="N")
    parser.add_argument("--fastlog-option", action="append", default=[], metavar="ARG", help="one more argument for fastlog serve")
    parser.add_argument("--kafka-option", action="append", default=[], metavar="KEY=VALUE", help="one more server property")
    parser.add_argument("--no-limits", action="store_true", help="don't measure disk and loopback")
    parser.add_argument("--no-fill", action="store_true", help="don't turn free memory into page cache before each run")
    return parser.parse_args()


def options_of(given: argparse.Namespace) -> Options:
    seconds = given.seconds or (5 if given.quick else 30)
    free = shutil.disk_usage(given.directory).free
    bytes_max = max(GIB, min(given.bytes_max, int((free - 10 * GIB) / 2.5)))
    return Options(
        directory=given.directory,
        seconds=seconds,
        repeats=given.repeats or (1 if given.quick else 7 if given.full else 3),
        warm_seconds=20 if given.quick else 45,
        lead_seconds=2 if given.quick else 5,
        bytes_max=bytes_max,
        memory_bytes=given.memory,
        broker_core=given.broker_core,
        load_core=given.load_core,
        fill_page_cache=not given.no_fill,
        say=lambda line: print(line, flush=True),
        fastlog_options=given.fastlog_option,
        kafka_options=given.kafka_option,
    )


def write(document: dict[str, Any], chosen: list[rows.Row], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(json.dumps(document))
    (output / "report.md").write_text(report.markdown(document, chosen))
    (output / "report.html").write_text(html.page(document, chosen))


def render(source: Path) -> int:
    """Makes the report's pages again from its raw samples, beside them."""
    document = json.loads(source.read_text())
    measured = {sample["row"] for sample in document["samples"]}
    chosen = [row for row in groups.ROWS if row.name in measured]
    write(document, chosen, source.parent)
    print(report.table(document["samples"], chosen, document["limits"]))
    return 0


def main() -> int:
    given = parse()
    if given.list:
        for row in groups.ROWS:
            print(f"{row.name:12} {row.title}")
        return 0
    if given.render:
        return render(given.render)
    try:
        chosen = rows.choose(given.only)
        names = given.brokers.split(",")
        if not set(names) <= BROKERS.keys():
            raise ValueError(f"--brokers: {given.brokers}; there are {', '.join(BROKERS)}")
        cores = os.sched_getaffinity(0)
        if not {given.broker_core, given.load_core} <= cores:
            raise ValueError(f"cores {given.broker_core} and {given.load_core} are not both among {sorted(cores)}")
    except ValueError as problem:
        print(f"bench/run: {problem}", file=sys.stderr)
        return 2
    given.directory.mkdir(parents=True, exist_ok=True)
    options = options_of(given)
    document: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items() if key != "say"},
        "machine": machine.describe(given.directory),
        "versions": {},
        "settings": {},
        "limits": {},
        "samples": [],
    }
    os.sched_setaffinity(0, {given.load_core})
    if not given.no_limits:
        seconds = 1.0 if given.quick else 3.0
        print("measuring limits ...", flush=True)
        os.sched_setaffinity(0, {given.broker_core, given.load_core})
        loopback = limits.loopback(given.broker_core, given.load_core, seconds)
        document["limits"] = {"disk": limits.disk(given.directory, seconds), "loopback": loopback}
        os.sched_setaffinity(0, {given.load_core})
    session = Session(names, options, lambda: write(document, chosen, given.output))
    document["samples"] = session.samples
    if given.resume and (given.output / "report.json").exists():
        session.resume(json.loads((given.output / "report.json").read_text())["samples"])
    try:
        for broker in session.brokers:
            document["versions"][broker.name] = broker.version()
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
    print(report.table(session.samples, chosen, document["limits"]))
    print(f"\nreport: {given.output}/report.html and report.md, raw samples: {given.output}/report.json")
    return 0 if all(sample.get("sound") for sample in session.samples) else 1


if __name__ == "__main__":
    sys.exit(main())
