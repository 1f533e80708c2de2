"""The codec against other implementations, both ways, on messages made by chance: kio, kafka-python, Kafka's own JSON converters."""

import importlib
import io
import json
import pkgutil
import random
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kio.serial
import pytest

from fastlog.native.codec import Codec
from fastlog.protocol import schema
from fastlog.protocol.schema import Schema

from . import oracles
from .chance import all_schemas, filled, message

MESSAGES = [(found, version) for _, found, version in all_schemas()]
ROUNDS = 12  # messages of every schema and version


def samples(found: Schema, version: int, rounds: int = ROUNDS) -> Iterator[dict[str, Any]]:
    """The same ones in every run; the first has nothing but defaults."""
    chance = random.Random(f"{found.name} {version}")
    yield {}
    for _ in range(rounds - 1):
        yield message(found.fields, version, chance)


def every(cases: list[tuple[Schema, int]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("found", "version"), [pytest.param(*case, id=f"{case[0].name}-{case[1]}") for case in cases])


@every(MESSAGES)
def test_what_is_encoded_is_decoded(found: Schema, version: int) -> None:
    codec = Codec(found.name, schema.plan(found, version))
    for sample in samples(found, version):
        data = codec.encode(sample)
        whole = filled(sample, found.fields)
        assert codec.decode_prefix(data) == (whole, len(data))
        assert codec.encode(whole) == data


@every([case for case in MESSAGES if oracles.in_kio(case[0])])
def test_kio_reads_and_writes_the_same(found: Schema, version: int) -> None:
    codec = Codec(found.name, schema.plan(found, version))
    theirs = oracles.kio_type(found.name, version)
    read, write = kio.serial.entity_reader(theirs), kio.serial.entity_writer(theirs)
    for sample in samples(found, version):
        data = codec.encode(sample)
        entity = oracles.to_kio(sample, found.fields, version, theirs)
        assert read(data, 0) == (entity, len(data))
        out = io.BytesIO()
        write(out, entity)
        assert out.getvalue() == data


@cache
def kafka_python_types() -> dict[str, Any]:
    """kafka-python's classes of requests and responses by name."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it finds its own definitions by deprecated means
        package = importlib.import_module("kafka.protocol")
        for module in pkgutil.walk_packages(package.__path__, "kafka.protocol."):
            if ".old" not in module.name and "generate" not in module.name:
                names = vars(importlib.import_module(module.name))
                found.update({name: there for name, there in names.items() if name.endswith(("Request", "Response"))})
    return found


@every([case for case in MESSAGES if case[0].name[0].isupper()])
def test_kafka_python_reads_and_writes_the_same(found: Schema, version: int) -> None:
    theirs = kafka_python_types().get(found.name)
    if theirs is None or version > theirs.max_version:
        pytest.skip("kafka-python does not have it")
    codec = Codec(found.name, schema.plan(found, version))
    for sample in samples(found, version):
        if found.name == "ApiVersionsResponse":
            sample["error_code"] = 0  # with any other it expects the body of version 0
        data = codec.encode(sample)
        read = theirs[version].decode(data)
        read._header = None  # its decoding leaves it unset, its encoding asks for it
        assert read.encode(version=version) == data


needs_java = pytest.mark.skipif(
    shutil.which("java") is None or not oracles.KAFKA.exists(), reason=f"needs a JDK and the jars of Kafka in {oracles.KAFKA_LIBS}"
)


def kafka_converts(lines: list[str]) -> list[str]:
    """Runs KafkaConverter.java: one answer for each line."""
    program = Path(__file__).parent / "KafkaConverter.java"
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{oracles.KAFKA_LIBS}/*", str(program)]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def kafka_class(found: Schema) -> str:
    name = oracles.kafka_name(found)
    if found.name in oracles.GROUP_LOG:
        return f"org.apache.kafka.coordinator.group.generated.{name}"
    if found.name in oracles.TRANSACTION_LOG:
        return f"org.apache.kafka.coordinator.transaction.generated.{name}"
    if found.name in oracles.METADATA_LOG:
        return f"org.apache.kafka.common.metadata.{name}"
    data = "" if found.name.startswith("consumer_protocol") else "Data"
    return f"org.apache.kafka.common.message.{name}{data}"


@pytest.mark.java
@needs_java
def test_kafka_reads_and_writes_the_same() -> None:
    cases, lines = [], []
    for found, version in MESSAGES:
        codec = Codec(found.name, schema.plan(found, version))
        theirs = 0 if found.name in oracles.GROUP_LOG and found.name.endswith("_key") else version
        for sample in samples(found, version, 6):
            whole = filled(sample, found.fields)
            data = codec.encode(sample)
            cases.append((found, version, whole, data))
            written = json.dumps(oracles.to_json(whole, found.fields, version))
            lines += [f"decode {kafka_class(found)} {theirs} {data.hex()}", f"encode {kafka_class(found)} {theirs} {written}"]
    answers = kafka_converts(lines)
    assert len(answers) == len(lines)
    for (found, version, whole, data), read, written in zip(cases, answers[::2], answers[1::2], strict=True):
        assert written == data.hex(), f"{found.name} {version} {whole}"
        again = oracles.from_json(json.loads(read), found.fields, version)
        assert filled(again, found.fields) == whole, f"{found.name} {version}"
