"""Kafka's own Java client, 4.3: producer, consumer and admin, with their default settings (idempotent, acks=all)."""

from pathlib import Path

import pytest

from tests.support.java import compile_program, java
from tests.support.wire import stored_batches

pytestmark = pytest.mark.java


@pytest.fixture(scope="session")
def program(kafka_classpath: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path with RoundTrip compiled."""
    return compile_program(kafka_classpath, Path(__file__).parent / "java/RoundTrip.java", tmp_path_factory.mktemp("java"))


def test_java_client_by_default_is_idempotent(bootstrap: str, program: str, fresh_name: str) -> None:
    assert java(program, "RoundTrip", bootstrap, fresh_name, "defaults").endswith("passed\n")
    for partition in range(3):
        batches = stored_batches(bootstrap, fresh_name, partition)
        assert all(b.producer_id >= 0 for b in batches)
        assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


@pytest.mark.parametrize("case", ["acks1", "acks0", "takeover", "staticMember", "times", "admin"])
def test_java_client(bootstrap: str, program: str, fresh_name: str, case: str) -> None:
    assert java(program, "RoundTrip", bootstrap, fresh_name, case).endswith("passed\n")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_java_client_compressed(bootstrap: str, program: str, fresh_name: str, codec: str) -> None:
    assert java(program, "RoundTrip", bootstrap, fresh_name, codec).endswith("passed\n")
    assert {b.codec for p in range(3) for b in stored_batches(bootstrap, fresh_name, p)} == {codec}


@pytest.fixture(scope="session")
def consumer_protocol(kafka_classpath: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path with ConsumerProtocol compiled."""
    return compile_program(kafka_classpath, Path(__file__).parent / "java/ConsumerProtocol.java", tmp_path_factory.mktemp("java"))


@pytest.mark.one_engine
@pytest.mark.parametrize(
    "case",
    [
        pytest.param("uniform", marks=pytest.mark.long),
        "range",
        pytest.param("pattern", marks=pytest.mark.long),
        "rolling",
        "migration",
    ],
)
def test_java_client_in_consumer_groups(bootstrap: str, consumer_protocol: str, fresh_name: str, case: str) -> None:
    assert java(consumer_protocol, "ConsumerProtocol", bootstrap, fresh_name, case).endswith("passed\n")
