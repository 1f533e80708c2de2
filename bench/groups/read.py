"""Reading: what is in memory by fetch size, and what must come from the disk."""

from dataclasses import replace
from typing import Any

from bench.rows import ALL, Row, Target


def reading(name: str, title: str, target: float, *, fetch_bytes: int, stored: int, cold: bool = False) -> Row:
    job: dict[str, Any] = {"acks": ALL, "connections": 0, "consumers": 1, "fetch_bytes": fetch_bytes}
    # A reader that never sleeps keeps its own wake-up out of a short round trip. Of a long answer it takes small pieces as they come in, at
    # the sender's cost: both brokers send half as fast then.
    job |= {"rewind": not cold, "check_contents": cold, "spin": not cold and fetch_bytes < 1 << 20}
    targets = [Target("read_MB_per_s", target)]
    if not cold:
        targets.append(Target("cpu_s_per_GB", 2 / 3, at_least=False))
    row = Row(name, title, "read", job, metric="read_MB_per_s", unit="MB/s", targets=tuple(targets), stored=stored, cold=cold)
    return row if cold else replace(row, seconds_max=10)


ROWS = (
    reading("read-10m", "reading what is in memory, fetches of 10 MiB", 1.3, fetch_bytes=10 << 20, stored=256 << 20),
    reading("read-1m", "reading what is in memory, fetches of 1 MiB", 2, fetch_bytes=1 << 20, stored=256 << 20),
    reading("read-64k", "reading what is in memory, fetches of 64 KiB", 3, fetch_bytes=64 << 10, stored=256 << 20),
    reading("read-cold", "catching up from disk, fetches of 10 MiB", 1.5, fetch_bytes=10 << 20, stored=6 << 30, cold=True),
)
