"""Compaction of a test's log, step by step as the broker's cleaner does it, and what it may leave by a plain model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastlog._core import Compaction
from fastlog.native.logtool import LogError
from fastlog.protocol.records import Batch, Record, iter_batches
from fastlog.storage.compaction import group_parts, make_plan, transaction_indexes
from tests.storage.build import read_all

if TYPE_CHECKING:
    from pathlib import Path

    from fastlog.native.logtool import LocalLog

MEMORY = 1 << 20


@dataclass
class Cleaner:
    """Compacts one log again and again; `end` is the first dirty offset."""

    path: Path
    segment_bytes: int = 1 << 20
    retention_ms: int = 1000
    end: int = 0

    def open(self, log: LocalLog, now_ms: int) -> tuple[Compaction, list[tuple[int, int, int]]] | None:
        plan = make_plan(
            str(self.path),
            log_start=log.positions.log_start,
            limit=log.compactable(),
            checkpoint=self.end,
            now_ms=now_ms,
            lag_min_ms=0,
            lag_max_ms=2**63 - 1,
        )
        if plan.dirty_bytes == 0:
            return None
        parts = [(part.base_offset, part.next_offset, part.bytes) for part in plan.parts]
        indexes = transaction_indexes(str(self.path))
        compaction = Compaction(
            os.fsencode(self.path), parts, transactions=indexes, interval=4096, rate=0, now_ms=now_ms, retention_ms=self.retention_ms
        )
        return compaction, parts

    def run(self, log: LocalLog, now_ms: int, memory: int = MEMORY) -> int:
        """Compacts once; the number of segments that were replaced. 0 also when segments went meanwhile, as deleted records do."""
        opened = self.open(log, now_ms)
        if opened is None:
            return 0
        try:
            return self._run(log, *opened, now_ms, memory)
        except FileNotFoundError:
            return 0
        except LogError as error:
            if error.code == 1:
                return 0
            raise

    def _run(self, log: LocalLog, compaction: Compaction, parts: list[tuple[int, int, int]], now_ms: int, memory: int) -> int:
        first_dirty = max(self.end, log.positions.log_start, parts[0][0])
        end = compaction.map(first_dirty, memory)
        assert end > first_dirty
        mapped = [part for part in parts if part[0] < end]
        plan = make_plan(
            str(self.path),
            log_start=0,
            limit=mapped[-1][1],
            checkpoint=None,
            now_ms=now_ms,
            lag_min_ms=0,
            lag_max_ms=2**63 - 1,
        )
        for first, last in group_parts(str(self.path), plan.parts, self.segment_bytes, 10 << 20):
            size = compaction.clean(first, last)
            assert log.swap(parts[first][0], parts[last][1]) == size
        self.end = end
        return len(mapped)


@dataclass
class Model:
    """What was appended, and what compaction must keep of it."""

    records: dict[int, Record] = field(default_factory=dict)
    end: int = 0

    def add(self, base_offset: int, records: list[Record]) -> None:
        for i, record in enumerate(records):
            self.records[base_offset + i] = Record(base_offset + i, record.timestamp, record.key, record.value, record.headers)
        self.end = base_offset + len(records)

    def newest(self, below: int | None = None) -> dict[bytes, Record]:
        """By key, of records below an offset."""
        found: dict[bytes, Record] = {}
        for offset, record in sorted(self.records.items()):
            if below is None or offset < below:
                assert record.key is not None
                found[record.key] = record
        return found

    def check(self, log: LocalLog, clean_end: int, log_start: int = 0) -> list[Batch]:
        """Offsets did not move and nothing was invented; all past the clean part is there; in it, of each key just the newest record, a
        tombstone perhaps no longer. The batches tile the log without going back."""
        batches = list(iter_batches(read_all(log, log_start)))
        found = {record.offset: record for batch in batches for record in batch.records if record.offset >= log_start}
        for offset, record in found.items():
            assert record == self.records[offset]
        offset = 0
        for batch in batches:
            assert batch.base_offset >= offset
            offset = batch.last_offset + 1
        assert log.positions.log_end == self.end
        assert offset == self.end or not batches
        must = {offset for offset in self.records if offset >= max(clean_end, log_start)}
        must |= {r.offset for r in self.newest().values() if r.value is not None and r.offset >= log_start}
        may = {r.offset for r in self.newest(clean_end).values()} | must
        assert not must - found.keys()
        assert not found.keys() - may
        return batches
