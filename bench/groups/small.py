"""Small batches: what a broker spends on each request, batch and partition."""

from typing import Any

from bench.rows import ALL, ONE, Target, batches


def ratio(bound: float) -> Target:
    return Target("batches_per_s", bound)


ONE_RECORD: dict[str, Any] = {"records": 1, "record_bytes": 100}

ROWS = (
    batches(
        "single",
        "one 100-byte record per batch, acks=1, 64 in flight",
        ratio(15),
        Target("cpu_us_per_batch", 3, at_least=False, absolute=True),
        Target("batches_per_s", 1.4, against="valkey,nats"),
        peers=("valkey", "nats"),
        acks=ONE,
        window=64,
        **ONE_RECORD,
    ),
    batches(
        "many-1000",
        "1,000 partitions, one 100-byte record per batch, 100 batches per request, acks=1",
        ratio(6),
        acks=ONE,
        partitions=1000,
        batches_per_request=100,
        **ONE_RECORD,
    ),
    batches(
        "stable-single",
        "one 1 KiB record per batch, stable storage before the ack, 128 in flight",
        ratio(40),
        Target("batches_per_s", 1.8, against="valkey"),
        peers=("valkey",),
        stable=True,
        acks=ALL,
        records=1,
        window=128,
    ),
    batches(
        "stable-4k-100",
        "100 partitions, 4 KiB batches, stable storage before the ack, 64 in flight",
        ratio(10),
        stable=True,
        acks=ALL,
        partitions=100,
        records=4,
        record_bytes=1000,
        connections=4,
        window=16,
    ),
)
