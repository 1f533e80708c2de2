"""Compaction of keyed records of 100 bytes: .venv/bin/pytest bench/micro/test_compact.py --benchmark-enable

Both passes and the change of files, on the disk behind pytest's temporary directories (TMPDIR says where). Columns beside the times: MB/s
of the log, million records a second, bytes of memory for the keys, and the share of the records that stayed.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.native.logtool import LocalStore
from fastlog.protocol.records import Codec, Record, build_batch
from fastlog.storage.compaction import make_plan
from tests.storage.compacting import Cleaner

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
RECORDS = 600  # a batch: 64 KiB


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4], ids=["none", "lz4"])
@pytest.mark.parametrize("keys", [20_000, 1_000_000])
def test_compact(benchmark: Any, tmp_path: Path, keys: int, codec: Codec) -> None:
    rng = random.Random(1)
    now = int(time.time() * 1000)
    batches = []
    for first in range(0, keys, RECORDS):
        records = [Record(0, now, b"key-%012d" % (first + i), rng.randbytes(80)) for i in range(min(RECORDS, keys - first))]
        batches.append(build_batch(records, timestamp_ms=now, codec=codec))
    store = LocalStore(memory=64 * MIB)
    log = store.open(tmp_path / "t-0", segment_bytes=256 * MIB)
    size = 0
    while size < 1024 * MIB:
        for data in batches:
            assert log.append(data, 1).error == 0
        size += sum(map(len, batches))
    log.roll()
    total = log.positions.log_end
    cleaner = Cleaner(tmp_path / "t-0", segment_bytes=256 * MIB)
    opened = cleaner.open(log, now)
    assert opened is not None
    compaction, parts = opened

    def run() -> None:
        compaction.map(0, 128 * MIB)
        for i, part in enumerate(parts):
            compaction.clean(i, i)
            log.swap(part[0], part[1])

    began = time.monotonic()
    benchmark.pedantic(run, rounds=1)
    seconds = time.monotonic() - began
    assert (
        make_plan(str(tmp_path / "t-0"), log_start=0, limit=total, checkpoint=0, now_ms=now, lag_min_ms=0, lag_max_ms=2**62).dirty_bytes
        < size
    )
    counts = compaction.counts
    benchmark.extra_info |= {
        "MB/s": round(size / seconds / 1e6),
        "M records/s": round(total / seconds / 1e6, 2),
        "memory": counts["memory"],
        "kept": round(counts["records_kept"] / counts["records_read"], 4),
    }
    print(benchmark.extra_info)
    store.close()
