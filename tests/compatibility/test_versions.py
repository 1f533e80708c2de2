"""Real clients can do with a broker of each age what they can do with a Kafka of that age, and every version is sent by one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.compatibility.records import Report, load_versions
from tests.compatibility.running import ARGS
from tests.compatibility.versions import BYTES_ONLY, CLIENTS, JAVA, LEVELS, SOURCE, parted, told, unsent
from tests.support.java import compile_program
from tests.support.relay import Relay, caps_of_level

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

# Kafka's own client takes a quarter of a minute for its story: every test run hears it of the oldest versions, the long ones of all.
_SHORT: Final = [(0, [JAVA, "aiokafka"]), (LEVELS[-1] // 2, ["kafka-python", "aiokafka"]), (LEVELS[-1], ["librdkafka", "kafka-python"])]
_ALL: Final = [pytest.param(level, list(CLIENTS), marks=pytest.mark.long) for level in LEVELS]


@pytest.mark.java
@pytest.mark.one_engine
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("level", "clients"), [*_SHORT, *_ALL])
def test_clients_end_as_with_kafka(
    start_broker: Start, engine: str, kafka_classpath: str, tmp_path: Path, level: int, clients: list[str]
) -> None:
    kafka, sent = load_versions()[str(level)], Report.load().versions
    program = compile_program(kafka_classpath, SOURCE, tmp_path / "classes") if JAVA in clients else ""
    with Relay(start_broker(io=engine, args=ARGS).bootstrap, caps_of_level(0)).running() as relay:
        for _, client, outcomes, pairs in told(relay, program, [level], clients):
            assert parted(kafka[client], outcomes) == [], client
            unknown = [(key, version) for key, version in pairs if str(version) not in sent[client].get(str(key), "").split()]
            assert not unknown, f"{client} sent more: run python -m tests.compatibility --only versions"
        assert not relay.flaws


def test_every_version_is_sent_by_a_client_or_has_a_reason() -> None:
    sent = Report.load().versions
    assert unsent(sent) == []
    for key, numbers, why in BYTES_ONLY:
        assert not [each for each in numbers if any(str(each) in of.get(str(key), "").split() for of in sent.values())], f"sent: {why}"


def test_a_version_that_no_client_sent_and_another_end_are_found() -> None:
    sent = Report.load().versions
    without = {client: {key: numbers for key, numbers in of.items() if key != "3"} for client, of in sent.items()}
    assert unsent(without) == [(3, version) for version in range(14)]
    assert parted({"a": "ok", "b": "ok"}, {"a": "ok", "b": "KafkaError"}) == ["b: Kafka ok, fastlog KafkaError"]
