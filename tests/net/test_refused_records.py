"""Which records of a refused batch were at fault (KIP-467): a producer gives up these, and may send the others again."""

from __future__ import annotations

import time
from typing import Any

import confluent_kafka as ck
import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.records import Codec, Record, build_batch
from tests.support.peer import Peer, create_topic, fetch, produce, produced

NOW = int(time.time() * 1000)
HOUR_MS = 3_600_000


def refused(bootstrap: str, topic: str, batch: bytes, version: int) -> tuple[Error, list[int]]:
    with Peer(bootstrap) as peer:
        response = peer.call("Produce", version, produce(topic, batch, acks=-1))
        assert peer.call("Fetch", 12, fetch(topic))["responses"][0]["partitions"][0]["high_watermark"] == 0, "part of it was written"
    (part,) = response["responses"][0]["partition_responses"]
    errors = part.get("record_errors") or []
    assert part["base_offset"] == -1
    if errors:
        assert part["error_message"]
        assert all(error["batch_index_error_message"] for error in errors[:3])
    return Error(part["error_code"]), [error["batch_index"] for error in errors]


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP, Codec.ZSTD])
@pytest.mark.parametrize("version", [7, 8, 9, 12])
def test_records_without_a_key(bootstrap: str, fresh_name: str, version: int, codec: Codec) -> None:
    create_topic(bootstrap, fresh_name, configs={"cleanup.policy": "compact"})
    records = [Record(i, NOW, None if i % 10 == 0 else b"k", b"v") for i in range(100)]
    said = refused(bootstrap, fresh_name, build_batch(records, timestamp_ms=NOW, codec=codec), version)
    assert said == (Error.INVALID_RECORD, list(range(0, 100, 10)) if version >= 8 else [])


def test_a_batch_that_is_looked_into_by_a_worker(bootstrap: str, fresh_name: str) -> None:
    create_topic(bootstrap, fresh_name, configs={"cleanup.policy": "compact"})
    records = [Record(i, NOW, b"k" if i % 3 else None, b"%d" % i * 10) for i in range(3000)]
    batch = build_batch(records, timestamp_ms=NOW, codec=Codec.GZIP)
    assert refused(bootstrap, fresh_name, batch, 12) == (Error.INVALID_RECORD, list(range(0, 3000, 3)))


def test_times_out_of_range_and_keys(bootstrap: str, fresh_name: str) -> None:
    """One time out of range, and that is what all of it is refused for."""
    configs = {"cleanup.policy": "compact", "message.timestamp.after.max.ms": str(HOUR_MS)}
    create_topic(bootstrap, fresh_name, configs=configs)
    late = NOW + 2 * HOUR_MS
    records = [Record(0, NOW, b"k", b"v"), Record(1, late, b"k", b"v"), Record(2, NOW, None, b"v"), Record(3, late, None, b"v")]
    batch = build_batch(records, timestamp_ms=NOW)
    assert refused(bootstrap, fresh_name, batch, 9) == (Error.INVALID_TIMESTAMP, [1, 2, 3])
    with Peer(bootstrap) as peer:
        (part,) = peer.call("Produce", 9, produce(fresh_name, batch, acks=-1))["responses"][0]["partition_responses"]
    assert part["error_message"] == "One or more records have been rejected due to invalid timestamp"  # Kafka's own tests look at it


def test_other_faults_name_no_record(bootstrap: str, fresh_name: str) -> None:
    create_topic(bootstrap, fresh_name, configs={"cleanup.policy": "compact"})
    batch = bytearray(build_batch([Record(0, NOW, None, b"v")], timestamp_ms=NOW))
    batch[-1] ^= 1
    assert refused(bootstrap, fresh_name, bytes(batch), 9) == (Error.CORRUPT_MESSAGE, [])
    with Peer(bootstrap) as peer:
        keyed = build_batch([Record(0, NOW, b"k", b"v")], timestamp_ms=NOW)
        assert produced(peer.call("Produce", 9, produce(fresh_name, keyed))) == (0, 0)


def test_librdkafka_tells_the_guilty_from_the_others(bootstrap: str, fresh_name: str) -> None:
    create_topic(bootstrap, fresh_name, configs={"cleanup.policy": "compact"})
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 500, "retries": 0})
    said: dict[int, Any] = {}
    for i in range(50):

        def delivered(error: ck.KafkaError | None, _: object, i: int = i) -> None:
            said[i] = error.code() if error else 0

        producer.produce(fresh_name, b"v", None if i % 10 == 0 else b"k", partition=0, on_delivery=delivered)
    assert producer.flush(60) == 0
    guilty, other = ck.KafkaError.INVALID_RECORD, ck.KafkaError._INVALID_DIFFERENT_RECORD
    assert said == {i: other if i % 10 else guilty for i in range(50)}
