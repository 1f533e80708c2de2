"""What a contender is given: where, how much, and the clock that it starts and stops."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD_BYTES = 100
CALL = 200_000  # different records, sent over and over: 27 MB as objects, so they don't stay in a cache
CHUNK = 10_000  # records of a produce_batch


def memory_bytes(which: str) -> int:
    """VmRSS (now) or VmHWM (the most since `reset_peak`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {which}")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Task:
    """One sample. A contender does its work inside `timed`; what comes before and after does not count."""

    bootstrap: str
    topic: str
    partitions: int
    records: int
    acks: str
    measured: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Wall time, CPU of all threads, and by how much resident memory grew at the most."""
        reset_peak()
        memory = memory_bytes("VmRSS")
        cpu, begun = time.process_time(), time.perf_counter()
        yield
        self.measured["seconds"] = time.perf_counter() - begun
        self.measured["cpu_seconds"] = time.process_time() - cpu
        self.measured["memory_bytes"] = max(0, memory_bytes("VmHWM") - memory)
        self.measured["records"] = self.records

    @property
    def values(self) -> list[bytes]:
        """Different records of RECORD_BYTES each."""
        return [(b"%010d" % i) * (RECORD_BYTES // 10) for i in range(CALL)]

    def calls(self) -> Iterator[int]:
        """How many records each call has: CALL, and the rest in the last."""
        left = self.records
        while left:
            yield min(left, CALL)
            left -= min(left, CALL)

    def partition_list(self) -> list[tuple[str, int]]:
        return [(self.topic, p) for p in range(self.partitions)]
