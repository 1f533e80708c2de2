"""`bench/run --compare COMMIT COMMIT`: two commits of ourselves, side by side as fastlog and Kafka are otherwise.

Each commit is checked out and built in a worktree under build/bench/commits (kept, so that a second comparison builds nothing). Both are
brokers of one session on the same core: the first is "before", the second "after", the load generator is this checkout's for both. A row's
verdict is about the ratio of its pairs (after / before): no difference when their 95 % interval holds 1, or when the median is within what
the same commit differs from itself by (`NOISE`); otherwise faster or slower.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING

from bench.brokers import ROOT, Broker, Fastlog
from bench.report import number
from bench.statistics import interval, middle, values

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rows import Row
    from bench.statistics import Samples

NOISE = 0.03  # a smaller change is not called one, whatever its interval: builds differ in how their code lies in memory
PAIRS_LEAST = 3  # fewer can't tell
BEFORE, AFTER = "before", "after"


class CompareError(Exception):
    """A commit that is not there or does not build."""


def _run(command: list[str], cwd: Path, what: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompareError(f"{what}:\n{(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout.strip()


def checkout(commit: str) -> Path:
    """A built worktree of the commit; made at the first time. Raises CompareError."""
    full = _run(["git", "rev-parse", "--verify", f"{commit}^{{commit}}"], ROOT, f"no commit {commit}")
    place = ROOT / "build/bench/commits" / full
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / ".built").exists():
            shutil.rmtree(place, ignore_errors=True)
            _run(["git", "worktree", "prune"], ROOT, "git worktree prune")
            _run(["git", "worktree", "add", "--detach", str(place), full], ROOT, f"checking out {commit}")
            (place / "build").mkdir(exist_ok=True)
            for kept in (ROOT / "build").glob("liburing-*.tar.gz"):
                shutil.copy2(kept, place / "build")
            _run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], place, f"building {commit}")
            (place / ".built").touch()
    return place


class Commit(Fastlog):
    """A broker of one commit: this environment's interpreter and libraries, the commit's package."""

    def __init__(self, name: str, place: Path, directory: Path, *, core: int, options: list[str], memory_bytes: int) -> None:
        self.name = name
        self.place = place
        super().__init__(directory, core, options, memory_bytes)

    def elsewhere(self, directory: Path) -> Broker:
        return Commit(self.name, self.place, directory, core=int(self.core), options=self.options, memory_bytes=self.memory_bytes)

    def words(self) -> list[str]:
        return [sys.executable, "-m", "fastlog.cli.main"]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.place / "src"), "PYTHONSAFEPATH": "1"}

    def version(self) -> str:
        return f"fastlog at commit {self.place.name[:12]}"


def verdict(samples: Samples, row: Row) -> str:
    """'no difference', 'N % better', 'N % worse', or why nothing can be said."""
    before, after = values(samples, row.name, BEFORE, row.metric), values(samples, row.name, AFTER, row.metric)
    found = [after[pair] / before[pair] for pair in sorted(before.keys() & after.keys()) if before[pair]]
    if len(found) < PAIRS_LEAST:
        return f"can't tell: {len(found)} pairs, {PAIRS_LEAST} are needed"
    low, high = interval(found)
    change = median(found) - 1
    if low <= 1 <= high or abs(change) <= NOISE:
        return "no difference"
    better = (change < 0) == row.less_is_better
    return f"{abs(change):.0%} {'better' if better else 'worse'}"


def table(samples: Samples, rows: list[Row]) -> str:
    """In Markdown."""
    lines = ["| row | before | after | ratio (95 %) | CPU ratio | verdict |", "|---|--:|--:|--:|--:|---|"]
    for row in rows:
        before, after = values(samples, row.name, BEFORE, row.metric), values(samples, row.name, AFTER, row.metric)
        found = [after[pair] / before[pair] for pair in sorted(before.keys() & after.keys()) if before[pair]]
        cpu = "cpu_us_per_batch" if row.metric == "batches_per_s" else "cpu_s_per_GB"
        costs = [middle(values(samples, row.name, who, cpu)) for who in (BEFORE, AFTER)]
        ratio = f"{median(found):.3f} ({interval(found)[0]:.3f}-{interval(found)[1]:.3f})" if found else "-"
        cost = f"{costs[1] / costs[0]:.3f}" if costs[0] and costs[1] else "-"
        cells = [row.title, f"{number(middle(before))} {row.unit}", f"{number(middle(after))} {row.unit}", ratio, cost]
        lines.append("| " + " | ".join([*cells, verdict(samples, row)]) + " |")
    return "\n".join(lines)
