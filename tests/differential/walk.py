"""Runs a sequence at two brokers and collects where they differ."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.differential.allowed import RULES
from tests.differential.compare import differences
from tests.differential.recording import Recorded
from tests.differential.sequences import sequence

if TYPE_CHECKING:
    from tests.differential.allowed import Rule
    from tests.differential.compare import Difference
    from tests.differential.target import Step, Target


_POOL = ThreadPoolExecutor(1)


@dataclass(frozen=True, slots=True)
class Found:
    """One difference and how it came about."""

    difference: Difference
    theme: str
    seed: int
    index: int
    step: Step
    kafka: Any
    fastlog: Any


@dataclass
class Report:
    steps: int = 0
    sequences: int = 0
    asked: set[tuple[str, int]] = field(default_factory=set)
    recorded: list[Recorded] = field(default_factory=list)
    used: set[Rule] = field(default_factory=set)
    kinds: dict[tuple[str, str, str, str], list[Found]] = field(default_factory=lambda: defaultdict(list))

    def add(self, found: Found) -> None:
        d = found.difference
        self.kinds[d.api, d.path, repr(d.kafka)[:120] if d.path else "", repr(d.fastlog)[:120] if d.path else ""].append(found)

    def unused(self) -> list[Rule]:
        """Rules that allow what did not happen: in a long run over all themes, what may be taken off the list."""
        return [rule for rule in RULES if rule not in self.used]

    def text(self) -> str:
        """Each kind of difference with its first example, and the counts."""
        lines = []
        for _, items in sorted(self.kinds.items(), key=lambda kind: (kind[0][0], -len(kind[1]))):
            first = items[0]
            versions = sorted({item.difference.version for item in items})
            lines += [
                f"{len(items)}x {first.difference}; versions {versions}; --theme {first.theme} --seed {first.seed}, step {first.index}",
                f"    step    {first.step}",
                f"    Kafka   {str(first.kafka)[:1000]}",
                f"    fastlog {str(first.fastlog)[:1000]}",
            ]
        lines += [f"allowed, and not seen: {rule}" for rule in self.unused()]
        lines.append(
            f"{self.steps} steps, {len(self.asked)} APIs and versions, {self.sequences} sequences: {len(self.kinds)} kinds of differences, "
            f"{len(self.used)} that are allowed"
        )
        return "\n".join(lines)


def walk(kafka: Target, fastlog: Target, theme: str, seed: int, length: int, report: Report) -> None:
    """One sequence, up to its first difference: what comes after may follow from it."""
    token = kafka.begin()
    fastlog.begin(token)
    report.sequences += 1
    recorded = Recorded(theme, seed, token)
    report.recorded.append(recorded)
    for index, step in enumerate(sequence(theme, seed, length)):
        # At the same time, so that what runs on the brokers' clocks runs alike.
        first = _POOL.submit(kafka.run, step)
        ours = fastlog.run(step)
        theirs = first.result()
        report.steps += 1
        if "api" in step:
            report.asked.add((step["api"], step["version"]))
        recorded.steps.append(step)
        recorded.kafka.append(theirs)
        found = differences(step, theirs, ours, report.used)
        for difference in found:
            report.add(Found(difference, theme, seed, index, step, theirs, ours))
        if any(not difference.path.endswith("error_message") for difference in found):
            return
