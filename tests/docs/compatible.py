"""docs/compatibility.md: what was compared with Kafka, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.messages import API_BY_KEY
from tests.compatibility.records import Report, load_settings, load_versions
from tests.compatibility.settings import REASONS
from tests.compatibility.versions import BYTES_ONLY, CLIENTS, LEVELS
from tests.differential.allowed import RULES
from tests.differential.recording import load

from .table import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def compatibility() -> str:
    report = Report.load()
    recorded = list(load())
    steps = [step for one in recorded for step in one.steps if "api" in step]
    asked = {(step["api"], step["version"]) for step in steps}
    apis = {name for name, _ in asked}
    total = sum(high - low + 1 for low, high in (api.versions for api in API_BY_KEY.values()))
    same = sum(1 for why in report.tools.values() if not why)
    told = load_settings()
    changes = len(told.pop("changes"))
    settings = sum(len(one) for one in told.values())
    return "\n".join(
        (
            "# Compared with Kafka 4.3",
            "",
            "Four ways to tell fastlog from Apache Kafka 4.3, each by a command that starts both brokers, and each repeated by the test",
            "suite against what Kafka answered. This page is made from what they found; a test holds it to it.",
            "",
            "## Requests",
            "",
            f"All {total} versions of the {len(API_BY_KEY)} requests that are served are compared, as bytes, with three other",
            "implementations, on messages made by chance: kio, kafka-python, and Kafka's own generated classes (`tests/protocol`). The",
            "table says in which versions each was also compared with the answers of a running Kafka (`python -m tests.differential`).",
            "",
            *table(
                ("key", "request", "served", "compared with Kafka in"),
                (
                    (
                        str(key),
                        api.name,
                        _ranges(range(api.versions[0], api.versions[1] + 1)),
                        _ranges(version for name, version in asked if name == api.name),
                    )
                    for key, api in sorted(API_BY_KEY.items())
                ),
            ),
            "",
            "[protocol.md](protocol.md) lists the requests that are not served, with the reasons.",
            "",
            *_clients(report),
            "## Answers",
            "",
            "The same sequences of requests go to both brokers: good ones, odd ones (epochs and generations of before and of later,",
            "unknown names and ids, empty and null arrays, duplicates, numbers at their bounds), bytes that can't be read. The answers are",
            "compared field by field, what no two brokers share (ids, addresses, times of now) taken out.",
            "",
            f"- On record, and repeated by every test run: {len(steps):,} requests in {len(recorded)} sequences,",
            f"  {len(apis)} APIs in {len(asked)} versions.",
            "- By `python -m tests.differential --seed N --steps M`: as many as one likes, with a Kafka that it starts from the jars. It",
            "  prints each kind of difference that the list below does not have, with the seed that repeats it.",
            "",
            "What differs, and stays:",
            "",
            *table(
                ("API", "where", "why"),
                ((rule.api.replace("|", ", "), f"`{_readable(rule.path)}`", rule.reason) for rule in RULES),
            ),
            "",
            "## Settings",
            "",
            f"What DescribeConfigs tells of {settings} settings of the broker, topics, groups and client metrics is the same: value, type,",
            "where the value comes from and what else would give it one (synonyms), whether it can be changed, whether it is secret. Each",
            f"has documentation, in words of our own. So is what is answered to {changes} changes of them at their bounds.",
            "`python -m tests.compatibility --only settings --kafka` repeats it. What differs:",
            "",
            *table(
                ("setting", "what is told", "why"),
                ((f"`{_readable(one.setting)}`", one.field.replace("|", ", "), one.reason) for one in REASONS),
            ),
            "",
            "## Command-line tools",
            "",
            f"Kafka's own tools, {len(report.tools)} runs of them: {same} end with the same exit status and print the same lines for both,",
            "ids, addresses and times left out. `python -m tests.compatibility --only tools --kafka` repeats them beside Kafka.",
            "",
            *table(
                ("run", "compared"),
                ((f"`{name}`".replace("|", "\\|"), "; ".join(why) or "same") for name, why in report.tools.items()),
            ),
            "",
        )
    )


def _clients(report: Report) -> Iterator[str]:
    stories = load_versions()
    steps = sum(len(story) for level in stories.values() for story in level.values())
    yield from (
        "## Real clients",
        "",
        "A relay in front of the broker lowers the versions that ApiVersions tells, and leaves all else as it is: one broker is as old",
        f"as one likes. {', '.join(CLIENTS)} do all they can do to {len(LEVELS)} brokers: with the",
        f"oldest version of each request, with the next one, and so on to the newest, in {steps:,} steps. Each ends as it does before",
        "Kafka 4.3 behind the same relay, be it that a client can't take it with a broker so old.",
        "`python -m tests.compatibility --only versions --kafka` repeats it. The versions that they sent:",
        "",
    )
    yield from table(
        ("key", "request", *CLIENTS, "by none"),
        (
            (
                str(key),
                api.name,
                *(_ranges(map(int, report.versions[client].get(str(key), "").split())) for client in CLIENTS),
                "; ".join(f"{_ranges(numbers)}: {why}" for one, numbers, why in BYTES_ONLY if one == key),
            )
            for key, api in sorted(API_BY_KEY.items())
        ),
    )
    yield ""


def _ranges(numbers: Iterable[int]) -> str:
    """1, 2, 3, 7 as "1-3, 7"."""
    made: list[list[int]] = []
    for number in sorted(numbers):
        if made and number == made[-1][1] + 1:
            made[-1][1] = number
        else:
            made.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in made) or "-"


def _readable(path: str) -> str:
    """A rule's regular expression without what only a machine needs."""
    return path.replace("\\.", ".").replace(".*", "*").removeprefix("*").removeprefix(".") or "the whole answer"
