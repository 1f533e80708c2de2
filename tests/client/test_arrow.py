"""Columns go in and come out as Arrow, by its PyCapsule interface: pyarrow and polars see the same bytes, nulls included."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from confluent_kafka import Producer as Librdkafka

from fastlog._core import partition_for
from fastlog.client import Admin, Consumer, Producer, RecordBatches

if TYPE_CHECKING:
    from collections.abc import Sequence

START = 1_700_000_000_000
N = 3000
POLARS = {"value": pl.Binary, "key": pl.Binary, "timestamp": pl.Int64, "partition": pl.Int32}


def rows() -> dict[str, list[Any]]:
    return {
        "value": [None if i % 7 == 0 else b"value %d" % i * (i % 5) for i in range(N)],
        "key": [None if i % 3 == 0 else b"key %d" % (i % 100) for i in range(N)],
        "timestamp": [START + i for i in range(N)],
        "partition": [i % 3 for i in range(N)],
    }


def batches(bootstrap: str, topic: str, count: int) -> list[Any]:
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(topic, p): 0 for p in range(3)})
        found: list[Any] = []
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline and sum(len(batch) for batch in found) < count:
            polled = consumer.poll_batches(0.2)
            if polled:  # together they are a stream of Arrow themselves
                assert pa.table(polled).num_rows == pl.DataFrame(polled).height == sum(len(batch) for batch in polled)
            found += polled
    assert sum(len(batch) for batch in found) == count
    return found


def sort(found: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((row["timestamp"], row["partition"], row["key"], row["value"]) for row in found)


SENT = sorted(zip(rows()["timestamp"], rows()["partition"], rows()["key"], rows()["value"], strict=True))


@pytest.mark.parametrize("kind", ["record batch", "table of chunks", "polars"])
def test_a_table_goes_in_and_comes_out(bootstrap: str, topic: str, kind: str) -> None:
    made: Any
    schema = pa.schema({"value": pa.binary(), "key": pa.binary(), "timestamp": pa.int64(), "partition": pa.int32()})
    if kind == "record batch":
        made = pa.RecordBatch.from_pydict(rows(), schema)
    elif kind == "table of chunks":
        whole = pa.RecordBatch.from_pydict(rows(), schema)
        made = pa.Table.from_batches([whole.slice(0, 1), whole.slice(1, 1000), whole.slice(1001)])
    else:
        made = pl.DataFrame(rows(), schema=POLARS)
    with Producer(bootstrap_servers=bootstrap) as producer:
        producer.send_batch(topic, made).result(30)
    found = batches(bootstrap, topic, N)
    table = pa.table(found[0])
    assert table.num_rows == len(found[0])
    arrow = [row for batch in found for row in pa.table(batch).to_pylist()]
    arrow = [{**row, "timestamp": as_ms(row["timestamp"])} for row in arrow]
    assert sort(arrow) == SENT
    frames = [row for batch in found for row in pl.DataFrame(batch).to_dicts()]
    frames = [{**row, "timestamp": as_ms(row["timestamp"])} for row in frames]
    assert sort(frames) == SENT
    whole = RecordBatches(found)
    assert sorted(zip(*(pd.DataFrame.from_arrow(whole)[c] for c in ("partition", "value")), strict=True), key=repr) == sorted(
        ((partition, value) for _, partition, _, value in SENT), key=repr
    )
    rows_of_duckdb = duckdb.execute("SELECT epoch_ms(timestamp), partition, key, value FROM whole ORDER BY 1").fetchall()
    assert rows_of_duckdb == SENT


@pytest.mark.one_engine
def test_what_came_out_goes_in(bootstrap: str, topic: str, admin: Admin) -> None:
    """A topic copied as Arrow, headers, timestamps and partitions with it."""
    headers = [[("n", b"%d" % i), ("none", None)] if i % 2 else None for i in range(300)]
    with Producer(bootstrap_servers=bootstrap) as producer:
        times, numbers = [START + i for i in range(300)], [i % 3 for i in range(300)]
        producer.send_batch(topic, [b"%d" % i for i in range(300)], headers=headers, timestamps=times, partitions=numbers).result(30)
        admin.create_topic(f"{topic}-copy", 3)
        for batch in batches(bootstrap, topic, 300):
            producer.send_batch(f"{topic}-copy", pa.table(batch).drop_columns(["offset"])).result(30)
            producer.send_batch(f"{topic}-copy", pl.DataFrame(batch).drop("offset")).result(30)
    copied = sorted((r.partition, r.timestamp, r.value, r.headers) for b in batches(bootstrap, f"{topic}-copy", 600) for r in b)
    assert copied == sorted((i % 3, START + i, b"%d" % i, headers[i] or []) for i in range(300) for _ in range(2))


def as_ms(moment: Any) -> int:
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1000)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()], ids=str)
def test_arrays_of_every_width_and_their_slices(bootstrap: str, topic: str, kind: pa.DataType) -> None:
    words = ["", "a pear", "ein Äpfelchen", "x" * 1000]
    values = pa.array(words * 25, pa.string()).cast(kind).slice(3, 90)
    with Producer(bootstrap_servers=bootstrap) as producer:
        producer.send_batch(topic, values).result(30)
    found = [value for batch in batches(bootstrap, topic, 90) for value in batch.value_list()]
    assert sorted(found) == sorted(word.encode() for word in (words * 25)[3:93])


def test_what_is_no_column_of_bytes_is_refused(bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        with pytest.raises((TypeError, ValueError)):
            producer.send_batch(topic, pa.array([[b"nested"]]))
        with pytest.raises((TypeError, ValueError)):
            producer.send_batch(topic, pa.table({"value": [b"a"], "key": [1.5]}))


@pytest.mark.parametrize(("ours", "theirs"), [("murmur2", "murmur2"), ("consistent_random", "consistent_random")])
def test_keys_go_where_librdkafka_sends_them(bootstrap: str, topic: str, ours: str, theirs: str) -> None:
    """librdkafka's murmur2 is the Java client's; consistent_random is its own default."""
    chance = random.Random(1)
    keys = [chance.randbytes(chance.randrange(1, 40)) for _ in range(300)]
    went: dict[bytes | None, int | None] = {}
    other = Librdkafka({"bootstrap.servers": bootstrap, "partitioner": theirs, "linger.ms": 5})
    for key in keys:
        other.produce(topic, b"", key, on_delivery=lambda _, message: went.update({message.key(): message.partition()}))
    assert other.flush(30) == 0
    with Producer(bootstrap_servers=bootstrap, partitioner=ours) as producer:
        sent = {key: producer.send(topic, b"", key) for key in keys}
        assert {key: done.result(30).partition for key, done in sent.items()} == went


def test_murmur2_is_the_java_clients() -> None:
    """Hashes from Kafka's own test of its utilities (UtilsTest.testMurmur2)."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    for key, hashed in known.items():
        assert partition_for(key, 10_007) == (hashed & 0x7FFFFFFF) % 10_007
