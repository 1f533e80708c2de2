"""Throughput of acks=1, which both brokers answer from memory that outlives the process; and of the clients' defaults."""

from typing import Any

from bench.rows import ALL, ONE, Target, throughput

SPREAD: dict[str, Any] = {"acks": ALL, "connections": 16, "window": 4}
LOADED = Target("loaded_MB", 0.25, at_least=False)  # resident memory after the run, shared memory apart

ROWS = (
    throughput("acks1-1", "64 KiB batches, acks=1, 1 partition", 2.5, LOADED, cpu=0.25, acks=ONE, window=4),
    throughput("acks1-16", "64 KiB batches, acks=1, 16 partitions", 3, cpu=0.25, acks=ONE, partitions=16, connections=4, window=4),
    throughput("acks1-900k", "900 KiB batches, acks=1, 1 partition", 2, acks=ONE, partitions=1, connections=1, window=4, records=900),
    throughput("default-1", "64 KiB batches, the clients' default acks=all, 1 partition", 1.3, acks=ALL, partitions=1, window=16),
    throughput("default-16", "64 KiB batches, the clients' default acks=all, 16 partitions", 1.3, **SPREAD, partitions=16),
)
GROUPS = {"acks1": ("acks1-1", "acks1-16", "acks1-900k"), "default": ("default-1", "default-16")}
