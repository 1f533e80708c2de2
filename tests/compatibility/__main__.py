"""Runs Kafka's tools and real clients against a fastlog that it starts, and writes docs/compatibility.md. Takes some minutes.

What the tools print, what is told of each setting, and what clients can do at each age of the protocol, is compared with Kafka 4.3: on
record, or now, with one that it starts (`--kafka`).
Exit status 0: every difference is explained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fastlog.protocol.messages import API_BY_KEY
from tests.compatibility.explained import reasons
from tests.compatibility.records import Report, load_settings, load_tools, load_versions, save_settings, save_tools, save_versions
from tests.compatibility.running import ARGS, SETTLE_S, kafka_for
from tests.compatibility.settings import described, differences
from tests.compatibility.tools import printed
from tests.compatibility.versions import LEVELS, SOURCE, parted, told, unsent
from tests.docs.pages import write
from tests.support.java import compile_program
from tests.support.process import Broker
from tests.support.relay import Relay, caps_of_level

if TYPE_CHECKING:
    from tests.compatibility.printed import Printed
    from tests.compatibility.records import Stories

PARTS = ["settings", "tools", "versions"]
SLOW_S = 3.0  # a run of a tool that is named for it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__)
    parser.add_argument("--kafka", action="store_true", help="ask a Kafka too, and keep what it told and the tools printed")
    parser.add_argument("--only", choices=PARTS, help="one part; the others stay as the last run found them")
    options = parser.parse_args()
    classpath = f"{Path(sys.prefix) / 'share/kafka/libs'}/*"
    report = Report.load()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="fastlog-compatibility-") as name:
        directory = Path(name)
        parts = [options.only] if options.only else PARTS
        program = compile_program(classpath, SOURCE, directory / "classes") if "versions" in parts else ""
        if options.kafka:
            with kafka_for(directory / "kafka") as (address, data):
                if "settings" in parts:
                    save_settings(described(address))
                if "tools" in parts:
                    save_tools(_tools(classpath, address, data, directory / "kafka-files", SETTLE_S).items())
                if "versions" in parts:
                    save_versions(_stories(program, address, SETTLE_S)[0])
        if "settings" in parts:
            wrong += _told(directory)
        if "tools" in parts:
            broker = Broker(directory / "tools", args=ARGS).start()
            wrong += _compared(_tools(classpath, broker.bootstrap, broker.data, directory / "files"), report)
            broker.stop()
        if "versions" in parts:
            broker = Broker(directory / "versions", args=ARGS).start()
            wrong += _versions(program, broker.bootstrap, report)
            broker.stop()
    report.save()
    write()
    for line in wrong:
        print(line)
    same = sum(1 for why in report.tools.values() if not why)
    print(f"{len(report.tools)} runs of tools, {same} the same; {len(wrong)} wrong")
    return 1 if wrong else 0


def _told(directory: Path) -> list[str]:
    """What is told of settings."""
    broker = Broker(directory / "settings", args=ARGS).start()
    found = list(differences(load_settings(), described(broker.bootstrap)))
    broker.stop()
    return [f"{kind}: {name}: {said}" for kind, name, said, why in found if why is None]


def _tools(classpath: str, bootstrap: str, data: Path, files: Path, settle_s: float = 0.0) -> dict[str, Printed]:
    files.mkdir()
    made = {}
    begun = time.monotonic()
    for name, one in printed(classpath, bootstrap, data, files, settle_s=settle_s):
        made[name] = one
        took, begun = time.monotonic() - begun, time.monotonic()
        print(f"\n{name}: {took:.0f} s" if took > SLOW_S else ".", end="", flush=True)
    print()
    return made


def _stories(program: str, bootstrap: str, settle_s: float = 0.0) -> tuple[Stories, dict[str, dict[str, str]]]:
    """What became of all stories at all levels, and which versions were sent."""
    stories: Stories = {}
    sent: dict[str, dict[int, set[int]]] = {}
    with Relay(bootstrap, caps_of_level(0)).running() as relay:
        for level, client, outcomes, pairs in told(relay, program, LEVELS, settle_s=settle_s):
            print(f"level {level}: {client}", flush=True)
            stories.setdefault(str(level), {})[client] = outcomes
            for key, version in pairs:
                sent.setdefault(client, {}).setdefault(key, set()).add(version)
        assert not relay.flaws, relay.flaws
    return stories, {
        client: {str(key): " ".join(map(str, sorted(versions))) for key, versions in sorted(of.items())} for client, of in sent.items()
    }


def _versions(program: str, bootstrap: str, report: Report) -> list[str]:
    stories, report.versions = _stories(program, bootstrap)
    theirs = load_versions()
    wrong = []
    for level, by_client in stories.items():
        for client, ours in by_client.items():
            wrong += [f"level {level}, {client}, {line}" for line in parted(theirs[level][client], ours)]
    return wrong + [f"{API_BY_KEY[key].name} {version}: no client sent it" for key, version in unsent(report.versions)]


def _compared(ours: dict[str, Printed], report: Report) -> list[str]:
    theirs = load_tools()
    report.tools = {}
    wrong = [f"{name}: not on record" for name in ours.keys() - theirs.keys()]
    for name, kafka in theirs.items():
        used, lines = reasons(name, kafka, ours[name])
        report.tools[name] = [one.reason for one in used]
        wrong += [f"{name}\n    {line}" for line in lines]
    return wrong


sys.exit(main())
