"""The command of the crash explorer."""

import argparse
import sys
import time

from fastlog.native.plant import NAMES
from fastlog.native.tape import LIES
from tests.storage.crash.explore import Exploration


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.crash", description="Explores what crashes may leave of the log.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first scenario (default: the time)")
    parser.add_argument("--states", type=int, default=100_000, help="how many crash states (default %(default)s)")
    parser.add_argument("--scenarios", type=int, default=1 << 30, help="at most so many; 1 repeats one by its seed")
    parser.add_argument("--bug", action="append", default=[], choices=[*sorted(LIES), *NAMES], help="plant a bug")
    args = parser.parse_args()
    lies = tuple(bug for bug in args.bug if bug in LIES)
    plants = tuple(bug for bug in args.bug if bug in NAMES)
    began = time.monotonic()
    found = Exploration(args.seed, lies=lies, plants=plants).run(args.states, scenarios=args.scenarios)
    print(f"{found} ({time.monotonic() - began:.0f} s; first seed {args.seed})")
    return 1 if found.violation else 0


sys.exit(main())
