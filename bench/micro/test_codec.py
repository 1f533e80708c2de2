"""Messages to bytes and back, beside other codecs:

.venv/bin/pytest bench/micro/test_codec.py --benchmark-enable --benchmark-group-by=group
"""

import importlib
import io
from collections.abc import Callable
from typing import Any
from uuid import UUID

import kio.index
import kio.serial
import pytest

from fastlog.native.codec import Codec
from fastlog.protocol import messages, schema

METADATA, HEARTBEAT, VERSION = 3, 12, 12


def metadata(topics: int, partitions: int) -> bytes:
    """A Metadata response as a broker of three would give it."""
    replicas = {"replica_nodes": [1, 2, 3], "isr_nodes": [1, 2, 3]}
    there = [{"partition_index": index, "leader_id": 1 + index % 3, "leader_epoch": 5, **replicas} for index in range(partitions)]
    named = [{"name": f"topic-{index}", "topic_id": UUID(int=index << 64 | 77), "partitions": there} for index in range(topics)]
    brokers = [{"node_id": node, "host": "127.0.0.1", "port": 9092} for node in (1, 2, 3)]
    return messages.encode_response(METADATA, VERSION, {"brokers": brokers, "cluster_id": "c", "controller_id": 1, "topics": named})


def ours() -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    def decode(data: bytes) -> Any:
        return messages.decode_response(METADATA, VERSION, data)

    def encode(message: Any) -> bytes:
        return messages.encode_response(METADATA, VERSION, message)

    return decode, encode


def of_kio() -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    entity = kio.index.load_response_schema(METADATA, VERSION)
    read, write = kio.serial.entity_reader(entity), kio.serial.entity_writer(entity)

    def decode(data: bytes) -> Any:
        return read(data, 0)[0]

    def encode(message: Any) -> bytes:
        out = io.BytesIO()
        write(out, message)
        return out.getvalue()

    return decode, encode


def of_kafka_python() -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    entity = importlib.import_module("kafka.protocol.metadata").MetadataResponse[VERSION]

    def decode(data: bytes) -> Any:
        message = entity.decode(data)
        message._header = None  # its encoding asks for it
        return message

    def encode(message: Any) -> bytes:
        return bytes(message.encode(version=VERSION))

    return decode, encode


CODECS = [pytest.param(ours, id="fastlog"), pytest.param(of_kio, id="kio"), pytest.param(of_kafka_python, id="kafka-python")]
SHAPES = [pytest.param(1, 1000, id="1x1000"), pytest.param(1000, 1, id="1000x1")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("topics", "partitions"), SHAPES)
@pytest.mark.parametrize("codec", CODECS)
def test_decode_metadata(benchmark: Any, codec: Any, topics: int, partitions: int) -> None:
    benchmark.group = f"decode Metadata, {topics} topics of {partitions} partitions"
    benchmark(codec()[0], metadata(topics, partitions))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("topics", "partitions"), SHAPES)
@pytest.mark.parametrize("codec", CODECS)
def test_encode_metadata(benchmark: Any, codec: Any, topics: int, partitions: int) -> None:
    benchmark.group = f"encode Metadata, {topics} topics of {partitions} partitions"
    decode, encode = codec()
    data = metadata(topics, partitions)
    assert benchmark(encode, decode(data)) == data


def test_a_small_request_and_its_response(benchmark: Any) -> None:
    benchmark.group = "Heartbeat, decode and encode"
    data = messages.encode_request(HEARTBEAT, 4, {"group_id": "group", "generation_id": 3, "member_id": "member-1234"})

    def handle() -> bytes:
        messages.decode_request(HEARTBEAT, 4, data)
        return messages.encode_response(HEARTBEAT, 4, {"error_code": 0})

    benchmark(handle)


def test_compiling(benchmark: Any) -> None:
    """What the first message of a kind and version costs."""
    benchmark.group = "a schema file to a codec"
    head = next(head for head in schema.api_heads() if head.key == METADATA)

    def compile_response() -> Codec:
        return Codec("x", schema.plan(schema.load(head.path)["response"], VERSION))

    benchmark(compile_response)
