"""Latency of loads sent by the clock: until the acknowledgement, and until a consumer has it."""

from typing import Any

from bench.rows import ALL, ONE, Target, by_the_clock

SINGLE: dict[str, Any] = {"rate": 1000, "records": 1, "record_bytes": 1024}
STREAM: dict[str, Any] = {"rate": 10e6 / (64 * 1024), "consumers": 1}


def below(metric: str, bound: float, against: str = "kafka") -> Target:
    return Target(metric, bound, at_least=False, against=against)


ROWS = (
    by_the_clock(
        "ack",
        "1,000 single records of 1 KiB a second, acks=1, until acknowledged",
        "ack",
        below("ack_p50_us", 1, "valkey,nats,kafka"),
        below("ack_p99_us", 1, "valkey,nats,kafka"),
        Target("ack_p50_over_echo_us", 25, at_least=False, absolute=True),
        Target("ack_p99_by_echo", 1.5, at_least=False, absolute=True),
        peers=("valkey", "nats"),
        acks=ONE,
        **SINGLE,
    ),
    by_the_clock(
        "ack-stable",
        "1,000 single records of 1 KiB a second, stable storage before the ack",
        "ack",
        below("ack_p50_us", 1, "valkey,kafka"),
        Target("ack_p50_over_echo_and_dsync_us", 40, at_least=False, absolute=True),
        stable=True,
        peers=("valkey",),
        acks=ALL,
        **SINGLE,
    ),
    by_the_clock(
        "e2e",
        "end to end at 10 MB/s, acks=1",
        "end_to_end",
        below("end_to_end_p50_us", 1 / 3),
        below("end_to_end_p99_us", 1 / 6),
        acks=ONE,
        **STREAM,
    ),
    by_the_clock(
        "e2e-stable",
        "end to end at 10 MB/s, stable storage before the ack",
        "end_to_end",
        below("end_to_end_p50_us", 1 / 2),
        below("end_to_end_p99_us", 1 / 5),
        stable=True,
        acks=ALL,
        **STREAM,
    ),
)
