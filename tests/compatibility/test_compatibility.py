"""Kafka's tools print for fastlog what they print for Kafka, and settings are told as Kafka tells them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastlog.config.broker import BROKER_KEYS
from fastlog.config.keys import ConfigError
from tests.compatibility.explained import EXPLAINED, Explained, reasons
from tests.compatibility.printed import Printed
from tests.compatibility.records import Report, load_settings, load_tools
from tests.compatibility.running import ARGS
from tests.compatibility.settings import REASONS, described, differences
from tests.compatibility.tools import printed
from tests.support.java import compile_program, java

if TYPE_CHECKING:
    from tests.conftest import Start

pytestmark = [pytest.mark.java, pytest.mark.one_engine]


@pytest.mark.timeout(300)
def test_tools_print_what_they_print_for_kafka(start_broker: Start, engine: str, kafka_classpath: str, tmp_path: Path) -> None:
    theirs, expected = load_tools(), Report.load().tools
    used: set[Explained] = set()
    broker = start_broker(io=engine, args=ARGS)
    files = tmp_path / "files"
    files.mkdir()
    ran = []
    for name, ours in printed(kafka_classpath, broker.bootstrap, broker.data, files):
        explained, wrong = reasons(name, theirs[name], ours)
        assert not wrong, f"{name}: Kafka printed (-), fastlog (+)\n" + "\n".join(wrong)
        assert [one.reason for one in explained] == expected[name], f"{name}: run python -m tests.compatibility"
        used.update(explained)
        ran.append(name)
    assert ran == list(theirs)
    assert used == set(EXPLAINED), "a reason that explains nothing"


def test_settings_are_told_as_kafka_tells_them(start_broker: Start, engine: str) -> None:
    found = list(differences(load_settings(), described(start_broker(io=engine, args=ARGS).bootstrap)))
    assert not [f"{kind}: {name}: {said}" for kind, name, said, why in found if why is None]
    assert {why for *_, why in found} == set(REASONS), "a reason that explains nothing"


def test_a_difference_is_found_and_told() -> None:
    kafka = Printed(0, ("Created topic a.", "Done"))
    assert reasons("TopicCommand --create", kafka, kafka) == ([], [])
    assert reasons("TopicCommand --create", kafka, Printed(1, ("Done",))) == ([], ["- exit 0", "+ exit 1", "- Created topic a."])
    assert Explained("Topic.*", "Created .*", "why").fits("TopicCommand --create", "Created topic a.")
    assert not Explained("Topic.*", "Created", "why").fits("TopicCommand --create", "Created topic a.")


def test_numbers_have_kafkas_bounds(kafka_classpath: str, tmp_path: Path) -> None:
    """Every broker setting refuses what Kafka's own definition refuses, those without effect too."""
    source = Path(__file__).parent / "Bounds.java"
    bounds = dict(line.split("\t") for line in java(compile_program(kafka_classpath, source, tmp_path), "Bounds").splitlines())
    checked = 0
    for key in BROKER_KEYS.values():
        found = re.fullmatch(r"\[(-?\d+),\.\.\.(?:,(\d+))?\]", bounds.get(key.name, ""))
        for number in [int(found[1]) - 1, *([int(found[2]) + 1] if found[2] else [])] if found else []:
            with pytest.raises(ConfigError):
                key.parse(str(number))
            checked += 1
    assert checked > 150
