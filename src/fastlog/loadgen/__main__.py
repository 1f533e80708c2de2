"""`python -m fastlog.loadgen [OPTION...]`: one load against a running broker; prints the result as one JSON object.

Every field of `Job` is an option (--record-bytes 100 --window 64); `--job FILE` takes them all from a JSON file instead ("-": standard
input). Status 0 when the run is sound, 1 when not.
"""

import argparse
import json
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from fastlog.loadgen.job import Job, run


def parse(arguments: list[str]) -> tuple[Job, bool]:
    """The job, and whether to print the buckets and the series too."""
    parser = argparse.ArgumentParser(prog="python -m fastlog.loadgen", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", metavar="FILE", help="a JSON object with the fields")
    parser.add_argument("--raw", action="store_true", help="print histogram buckets and the series too")
    for each in fields(Job):
        name = "--" + each.name.replace("_", "-")
        if each.name == "configs":
            parser.add_argument("--config", metavar="KEY=VALUE", action="append", default=[], help="of the topic made")
        elif each.type == "bool":
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=each.default)
        else:
            kind = {"int": int, "float": float, "int | None": int}.get(str(each.type), str)
            parser.add_argument(name, type=kind, default=each.default if each.default is not MISSING else None, metavar="N", help="")
    given = vars(parser.parse_args(arguments))
    source, raw, pairs = given.pop("job"), given.pop("raw"), given.pop("config")
    if source:
        return Job(**json.loads(sys.stdin.read() if source == "-" else Path(source).read_text())), raw
    return Job(**given, configs=dict(pair.partition("=")[::2] for pair in pairs)), raw


def without_raw(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what only a plot needs."""
    made = {name: value for name, value in result.items() if name != "series"}
    for name in ("ack", "fetch", "end_to_end"):
        made[name] = {key: value for key, value in result[name].items() if key != "buckets"}
    return made


def main() -> int:
    job, raw = parse(sys.argv[1:])
    result = run(job)
    print(json.dumps(result if raw else without_raw(result)))
    return 0 if result["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
