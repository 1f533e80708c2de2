"""The differential run by hand: the same sequences to Apache Kafka 4.3 and to fastlog, and where their answers differ.

Starts both by itself, unless it is told where they run. Exit status 0: no difference but those of `allowed.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.differential.recording import save
from tests.differential.running import SETTLE_S, fastlog_for, kafka_for, warm
from tests.differential.sequences import THEMES
from tests.differential.target import Target
from tests.differential.walk import Report, walk


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a running Kafka (default: one is started from the jars)")
    parser.add_argument("--fastlog", metavar="HOST:PORT", help="a running fastlog (default: one is started)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 30), help="of the first sequence (default: by chance; it is printed)"
    )
    parser.add_argument("--steps", type=int, default=2000, help="about as many requests to each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most this long")
    parser.add_argument("--length", type=int, default=25, help="steps of a sequence (default: %(default)s)")
    parser.add_argument("--record", metavar="FILE", type=Path, help="writes the sequences and what Kafka answered, for the test suite")
    parser.add_argument("--theme", choices=sorted(THEMES), action="append", help="only these (default: all in turn)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    report = Report()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastlog-differential-")))
        kafka = Target(options.kafka or stack.enter_context(kafka_for(directory)), SETTLE_S)
        fastlog = Target(options.fastlog or stack.enter_context(fastlog_for(directory)))
        warm(kafka)
        warm(fastlog)
        seed, end = options.seed, time.monotonic() + options.seconds
        while report.steps < options.steps and time.monotonic() < end:
            for theme in options.theme or THEMES:
                walk(kafka, fastlog, theme, seed, options.length, report)
            seed += 1
    print(report.text())
    if options.record:
        save(options.record, report.recorded)
    return 1 if report.kinds else 0


sys.exit(main())
