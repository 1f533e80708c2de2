"""Python clients side by side against one broker: `bench/client [OPTION...]`, or `python -m bench.clients` inside the environment.

fastlog's broker runs on one core, a client on another. Each sample is a process of its own; in each round every contender has its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.brokers import ROOT, Fastlog, StartError
from bench.clients import table
from bench.clients.rows import ROWS, Contender, Row, choose
from bench.clients.task import CHUNK, Task
from fastlog.client import Admin, Producer
from fastlog.loadgen.machine import describe

PARTITIONS = 4
SAMPLE_S = 120
FILLED = "bench-filled"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ROWS", help="rows, comma between (default: all); what the report has of others stays in it")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--acks", default="all", choices=("all", "1"), help="all: idempotent too (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="X times as many records a sample (default: %(default)s)")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker that runs already, instead of one that is started")
    parser.add_argument("--directory", type=Path, default=ROOT / "build/bench/clients", help="for the broker's data; removed at the end")
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/client-report", help="where report.md and report.json go")
    parser.add_argument("--broker-core", type=int, default=0, metavar="N")
    parser.add_argument("--client-core", type=int, default=1, metavar="N")
    return parser.parse_args()


class Session:
    """Takes samples, against one broker."""

    def __init__(self, given: argparse.Namespace, bootstrap: str) -> None:
        self.given = given
        self.bootstrap = bootstrap
        self.admin = Admin(bootstrap)
        self.samples: list[dict[str, Any]] = []
        self.made = 0

    def fill(self, rows: list[Row]) -> None:
        """A topic for those that read, in the batches of a producer with default settings."""
        wanted = max((self.count(c) for row in rows if row.kind == "consume" for c in row.contenders), default=0)
        if not wanted:
            return
        if FILLED in {topic.name for topic in self.admin.topics()}:
            self.admin.delete_topic(FILLED)
        self.admin.create_topic(FILLED, PARTITIONS)
        values = Task("", "", 0, 0, "").values
        with Producer(bootstrap_servers=self.bootstrap) as producer:
            for _ in range(-(-wanted // len(values)) + 1):
                producer.send_batch(FILLED, values)
            producer.flush(120)

    def count(self, contender: Contender) -> int:
        """Whole chunks of a produce_batch."""
        chunks: int = round(contender.records * self.given.scale / CHUNK)
        return max(1, chunks) * CHUNK

    def take(self, row: Row, contender: Contender, number: int) -> None:
        """One sample. Raises RuntimeError with what the process said when it failed."""
        topic = FILLED
        if row.kind == "produce":
            self.made += 1
            topic = f"bench-{os.getpid()}-{self.made}"
            self.admin.create_topic(topic, PARTITIONS)
        task = Task(self.bootstrap, topic, PARTITIONS, self.count(contender), self.given.acks)
        said = json.dumps({k: v for k, v in asdict(task).items() if k != "measured"})
        command = [sys.executable, "-m", "bench.clients.worker", str(self.given.client_core), contender.call, said]
        if row.kind == "import":
            command = [sys.executable, "-P", str(ROOT / "bench/clients/imported.py"), str(self.given.client_core), contender.call]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SAMPLE_S, cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(f"{contender.name}: exit {done.returncode}\n{done.stderr[-4000:]}")
        measured = json.loads(done.stdout.splitlines()[-1])
        if row.kind == "produce":
            stored = sum(self.admin.end_offsets([(topic, p) for p in range(PARTITIONS)]).values())
            if stored != task.records + 1:
                raise RuntimeError(f"{contender.name}: {stored} records are stored, {task.records + 1} were sent")
            self.admin.delete_topic(topic)
        self.samples.append({"row": row.name, "contender": contender.name, "round": number, **measured})

    def run(self, rows: list[Row]) -> None:
        self.fill(rows)
        for number in range(self.given.rounds):
            for row in rows:
                for contender in row.contenders:
                    self.take(row, contender, number)
            print(f"round {number + 1} of {self.given.rounds}", flush=True)


def write(given: argparse.Namespace, samples: table.Samples, rows: list[Row]) -> str:
    """Replaces what the report had of these rows; returns the whole table."""
    given.output.mkdir(parents=True, exist_ok=True)
    raw = given.output / "report.json"
    before = json.loads(raw.read_text())["samples"] if raw.exists() else []
    kept = [s for s in before if s["row"] not in {row.name for row in rows}]
    document = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "machine": describe(given.output),
        "rounds": given.rounds,
        "acks": given.acks,
        "samples": kept + samples,
    }
    raw.write_text(json.dumps(document))
    made = table.markdown(kept + samples, list(ROWS))
    (given.output / "report.md").write_text(made)
    return made


def main() -> int:
    given = parse()
    if given.list:
        for row in ROWS:
            print(f"{row.name:12} {row.title}: {', '.join(c.name for c in row.contenders)}")
        return 0
    try:
        rows = choose(given.only)
        cores = os.sched_getaffinity(0)
        if not {given.broker_core, given.client_core} <= cores:
            raise ValueError(f"cores {given.broker_core} and {given.client_core} are not both among {sorted(cores)}")
    except ValueError as problem:
        print(f"bench/client: {problem}", file=sys.stderr)
        return 2
    given.directory.mkdir(parents=True, exist_ok=True)
    broker = Fastlog(given.directory, given.broker_core, memory_bytes=1 << 30)
    try:
        if given.bootstrap is None:
            broker.start()
        session = Session(given, given.bootstrap or broker.address)
        session.run(rows)
        print(write(given, session.samples, rows))
        return 0
    except (StartError, RuntimeError, subprocess.TimeoutExpired) as problem:
        print(f"bench/client: {problem}", file=sys.stderr)
        return 1
    finally:
        broker.stop()
        broker.wipe()


if __name__ == "__main__":
    sys.exit(main())
