"""A topic as a table: Polars, pandas and DuckDB read what the consumer fetched as it is, through Arrow's PyCapsule interface.

    pip install polars pandas duckdb pyarrow
    python examples/analysis.py [HOST:PORT]      (without an address: on a broker that ends with it)

No record becomes a Python object: the columns that the compiled core has made are handed over.
"""

import json
import random
import sys

import duckdb
import pandas as pd
import polars as pl

import fastlog
from fastlog.client import Admin, Consumer, Producer, RecordBatches

TOPIC, SENSORS = "readings", 5
READING = pl.Struct({"sensor": pl.String, "celsius": pl.Float64})


def measure(bootstrap: str, count: int) -> None:
    """A day's readings, a second apart."""
    chance = random.Random(1)
    values = [{"sensor": f"s{i % SENSORS}", "celsius": round(chance.gauss(20 + i % SENSORS, 2), 2)} for i in range(count)]
    with Producer(bootstrap_servers=bootstrap, compression_type="zstd") as producer:
        times = [1_700_000_000_000 + 1000 * i for i in range(count)]
        frame = pl.DataFrame({"value": [json.dumps(v).encode() for v in values], "timestamp": times})
        producer.send_batch(TOPIC, frame)


def read(bootstrap: str) -> RecordBatches:
    """All records of the topic, as columns: partition, offset, timestamp, key, value, headers."""
    found = RecordBatches()
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(TOPIC, p): 0 for p in range(consumer.partitions_for(TOPIC))})
        while not consumer.at_end:
            for batch in consumer.poll_batches():
                found.append(batch)
    return found


def with_polars(records: RecordBatches) -> dict[str, float]:
    """The highest temperature of each sensor."""
    frame = pl.DataFrame(records).select("timestamp", pl.col("value").cast(pl.String).str.json_decode(READING).struct.unnest())
    hottest = frame.group_by("sensor").agg(pl.col("celsius").max()).sort("sensor")
    print(hottest)
    return dict(hottest.iter_rows())


def with_pandas(records: RecordBatches) -> dict[str, float]:
    frame = pd.DataFrame.from_arrow(records)
    readings = pd.DataFrame([json.loads(value) for value in frame["value"]])
    hottest = readings.groupby("sensor")["celsius"].max()
    print(hottest)
    return {str(sensor): float(celsius) for sensor, celsius in hottest.items()}


def with_duckdb(records: RecordBatches) -> dict[str, float]:
    """DuckDB finds `records`, a variable of this function, by its name."""
    rows = duckdb.execute("""
        SELECT reading->>'sensor' AS sensor, max((reading->>'celsius')::DOUBLE) AS celsius
        FROM (SELECT decode(value)::JSON AS reading FROM records)
        GROUP BY sensor ORDER BY sensor
    """).fetchall()
    print(rows)
    return dict(rows)


def main(bootstrap: str, count: int = 20_000) -> list[dict[str, float]]:
    with Admin(bootstrap) as admin:
        admin.create_topic(TOPIC, partitions=2)
    measure(bootstrap, count)
    records = read(bootstrap)
    print(f"{sum(map(len, records)):,} records in {len(records)} batches")
    return [with_polars(records), with_pandas(records), with_duckdb(records)]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with fastlog.embedded() as broker:
            main(broker.bootstrap_servers)
