"""Throughput when nothing is acknowledged before it is on stable storage: Kafka's topics have flush.messages=1."""

from typing import Any

from bench.rows import ALL, throughput

SPREAD: dict[str, Any] = {"stable": True, "acks": ALL, "connections": 16, "window": 4}

ROWS = (
    throughput("stable-1", "64 KiB batches, stable storage before the ack, 1 partition", 6, stable=True, acks=ALL, window=16),
    throughput("stable-16", "64 KiB batches, stable storage before the ack, 16 partitions", 3, **SPREAD, partitions=16),
    throughput("stable-100", "64 KiB batches, stable storage before the ack, 100 partitions", 3, **SPREAD, partitions=100),
)
