"""What it costs to check what a disk returns before it is sent: a log read past the page cache, with and without the check.

`pytest bench/micro/test_read.py --benchmark-enable -s`
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.native.logtool import LocalStore
from tests.storage.build import batch, count_of

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.mark.parametrize("batch_bytes", [1000, 64 * 1024])
@pytest.mark.parametrize("verify", [True, False], ids=["checked", "unchecked"])
def test_cold_read(benchmark: Any, tmp_path: Path, verify: bool, batch_bytes: int) -> None:
    """CPU seconds and MB/s; the copy into a bytes object is in both."""
    data = batch(1, batch_bytes)
    store = LocalStore(memory=64 * MIB)
    log = store.open(tmp_path / "t-0")
    assert store.pump([log], data, 512 * MIB // len(data), acks=1) == 0
    end = log.positions.log_end
    store.close()
    store = LocalStore(memory=64 * MIB)
    log = store.open(tmp_path / "t-0", clean=True, verify_reads=verify)
    used = []

    def run() -> None:
        began, offset, total = time.process_time(), 0, 0
        while offset < end:
            result = log.read(offset, 2 * MIB)
            assert result.error == 0
            whole = len(result.data) // len(data)
            offset += whole * count_of(data)
            total += whole * len(data)
        used.append((time.process_time() - began) / total * 1e9)

    benchmark.pedantic(run, rounds=3)
    benchmark.extra_info |= {
        "CPU s/GB": round(min(used), 3),
        "MB/s": round(log.positions.bytes / benchmark.stats.stats.min / 1e6) if benchmark.stats else 0,
    }
    print(benchmark.extra_info)
    store.close()
