"""Compaction in the middle of a machine's life, by the broker's own code, on the disk that remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.protocol.records import Record, build_batch
from tests.storage.compacting import Cleaner

if TYPE_CHECKING:
    import random

    from fastlog.native.logtool import LocalLog
    from tests.storage.crash.machine import Machine
    from tests.storage.crash.model import Model

KEYS = 12


def some_batch(rng: random.Random, timestamp: int, **fields: Any) -> bytes:
    records = [
        Record(i, timestamp, b"k%d" % rng.randrange(KEYS), None if rng.random() < 0.1 else rng.randbytes(rng.choice((0, 30, 800, 4000))))
        for i in range(rng.randint(1, 4))
    ]
    return build_batch(records, timestamp_ms=timestamp, **fields)


def run(machine: Machine, log: LocalLog, model: Model) -> None:
    """Compacts what can be compacted of a log. Raises LogError, OSError."""
    path = machine.root / model.name
    model.cleaned.append((machine.now, log.compactable()))
    cleaner = Cleaner(path, segment_bytes=machine.plan.settings["segment_bytes"], end=machine.cleaned.get(model.name, 0))
    cleaner.run(log, now_ms=machine.rng.choice((1, 1 << 52)))
    machine.cleaned[model.name] = cleaner.end
