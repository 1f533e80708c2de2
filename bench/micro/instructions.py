"""Instructions that compiled rooms take for one piece of work, counted by callgrind, beside counts that are kept in this directory.

    python -m bench.micro.instructions             compare with instructions.json; status 1 when one moved by more than the tolerance
    python -m bench.micro.instructions --save      keep what is counted now
    python -m bench.micro.instructions crc codec   only these

Times move with the machine and its neighbours; instructions don't, so a regression of a few percent is seen in review, on any machine with
the same compiler. Each case runs twice in a process of its own, for few and for many rounds: the difference is the work, without the start
of the interpreter. Needs valgrind.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03  # repeated counts differ by less than 0.5 %: hashing of addresses, growth of the heap
NOW = 1_700_000_000_000


def crc() -> tuple[Callable[[], object], int]:
    from fastlog.native.crc32c import checksum

    data = random.Random(1).randbytes(65_536)
    return lambda: checksum(data), 200


def validate() -> tuple[Callable[[], object], int]:
    """A produced batch of 64 records of 1 KiB: header, CRC, every record."""
    from fastlog.native import batchtool
    from fastlog.protocol.records import Record, build_batch

    chance = random.Random(2)
    data = bytearray(build_batch([Record(i, NOW, None, chance.randbytes(1024)) for i in range(64)], timestamp_ms=NOW))
    return lambda: batchtool.check(data, NOW), 200


def validate_small() -> tuple[Callable[[], object], int]:
    from fastlog.native import batchtool
    from fastlog.protocol.records import Record, build_batch

    data = bytearray(build_batch([Record(0, NOW, None, bytes(100))], timestamp_ms=NOW))
    return lambda: batchtool.check(data, NOW), 2000


def codec() -> tuple[Callable[[], object], int]:
    """A Metadata answer of 100 partitions, decoded and encoded again."""
    from uuid import UUID

    from fastlog.protocol import messages

    there = [{"partition_index": i, "leader_id": 1, "leader_epoch": 5, "replica_nodes": [1], "isr_nodes": [1]} for i in range(100)]
    topic = {"name": "topic", "topic_id": UUID(int=77), "partitions": there}
    broker = {"node_id": 1, "host": "127.0.0.1", "port": 9092}
    data = messages.encode_response(3, 12, {"brokers": [broker], "cluster_id": "c", "controller_id": 1, "topics": [topic]})
    return lambda: messages.encode_response(3, 12, messages.decode_response(3, 12, data)), 50


def recode() -> tuple[Callable[[], object], int]:
    """A batch of 64 records compressed with LZ4."""
    from fastlog.native import batchtool
    from fastlog.protocol.records import Codec, Record, build_batch

    line = b'{"user":"u%d","page":"/shop/item/%d"}' * 10
    chance = random.Random(3)
    values = [line % tuple(chance.choices(range(10**6), k=20)) for _ in range(64)]
    data = bytearray(build_batch([Record(i, NOW, None, value) for i, value in enumerate(values)], timestamp_ms=NOW))
    return lambda: batchtool.recode(data, codec=Codec.LZ4), 50


def append() -> tuple[Callable[[], object], int]:
    """A hundred appends of small batches to one log, acks=1, from the call to the promise: log, index, write, ring (epoll)."""
    from fastlog.native.logtool import LocalStore
    from tests.storage.build import batch

    place = Path(tempfile.mkdtemp(prefix="fastlog-instructions-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    store = LocalStore(engine="epoll", memory=64 << 20, arena=None)
    log = store.open(place / "t-0", partition=0)
    data = batch(1, 100)
    return lambda: store.pump([log], data, 100, acks=1, in_flight=16), 50


CASES = {case.__name__: case for case in (crc, validate, validate_small, codec, recode, append)}
LOOSE = {"append": 0.15}  # threads and the disk's timing have a part in it


def run(name: str, rounds: int) -> None:
    work, _ = CASES[name]()
    for _ in range(rounds):
        work()


def collected(name: str, rounds: int) -> int:
    """Instructions of a whole process. Raises OSError."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", "bench.micro.instructions"]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, "--run", name, str(rounds)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise OSError(f"{name}: {done.stderr.strip()[-1500:]}")
    return int(found[1])


def count(name: str) -> int:
    """Instructions of one round of a case. Raises OSError."""
    _, rounds = CASES[name]()
    few = max(rounds // 10, 1)
    return round((collected(name, rounds) - collected(name, few)) / (rounds - few))


def compiler() -> str:
    done = subprocess.run([os.environ.get("CC", "gcc"), "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"gcc {done.stdout.strip()}, Python {sys.version.split()[0]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.micro.instructions", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--save", action="store_true", help=f"keep what is counted in {KEPT.name}")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "ROUNDS"), help="only run it, as the counted process does")
    given = parser.parse_args()
    if given.run:
        run(given.run[0], int(given.run[1]))
        return 0
    if unknown := set(given.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if not shutil.which("valgrind"):
        print("instructions are counted by valgrind, which is not here (apt-get install valgrind)", file=sys.stderr)
        return 2
    kept: dict[str, Any] = {"made_with": compiler(), "instructions": {}}
    if KEPT.exists():
        kept = json.loads(KEPT.read_text())
    names = given.cases or list(CASES)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 2)) as pool:
        found = dict(zip(names, pool.map(count, names), strict=True))
    moved = 0
    for name, instructions in found.items():
        before = kept["instructions"].get(name)
        change = instructions / before - 1 if before else None
        far = change is not None and abs(change) > LOOSE.get(name, TOLERANCE)
        moved += far
        said = "new" if change is None else f"{change:+.1%}{' MOVED' if far else ''}"
        print(f"{name:16} {instructions:12,}  {said}")
    if given.save:
        kept = {"made_with": compiler(), "instructions": {**kept["instructions"], **found}}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        return 0
    if moved and kept["made_with"] != compiler():
        print(f"kept with {kept['made_with']}, this is {compiler()}: counts of different compilers can't be held against each other")
        return 0
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
