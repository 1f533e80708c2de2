"""The append path, from a validated batch to its promise: .venv/bin/pytest bench/micro/test_append.py --benchmark-enable

Columns beside the times: MB/s, appends a second, CPU seconds of the process for each GB, bytes written to the device for each byte
appended, and the mean size of a write. On the disk behind pytest's temporary directories; TMPDIR says where that is.
"""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastlog.native.logtool import LocalStore
from tests.storage.build import batch

MIB = 1 << 20


@pytest.fixture
def arena_path() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fastlog-bench-", dir="/dev/shm"))
    yield made / "arena"
    shutil.rmtree(made)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("engine", ["uring", "epoll"])
@pytest.mark.parametrize(
    "case",  # bytes of a batch, acks, logs, appends in flight on each, whether in an arena
    [
        (65_000, 1, 1, 16, True),
        (65_000, 1, 16, 4, True),
        (65_000, 1, 1, 16, False),
        (65_000, -1, 1, 16, False),
        (65_000, -1, 16, 4, False),
        (100, 1, 1, 64, True),
        (100, -1, 1, 64, False),
        (1000, -1, 1, 128, False),
        (4000, -1, 100, 1, False),
        (1000, -1, 1, 1, False),
    ],
    ids=str,
)
def test_append(benchmark: Any, tmp_path: Path, arena_path: Path, engine: str, case: tuple[int, int, int, int, bool]) -> None:
    size, acks, logs, in_flight, arena = case
    data = batch(1, size)
    store = LocalStore(engine=engine, memory=128 * MIB, arena=arena_path if arena else None)
    opened = [store.open(tmp_path / f"t-{i}", partition=i) for i in range(logs)]
    count = max(2000, min(100_000, 512 * MIB // len(data)))
    if in_flight == 1:
        count = 5000
    assert store.pump(opened, data, count // 4, acks=acks, in_flight=in_flight) == 0
    before, cpu = store.stats(), cpu_seconds()
    failed = benchmark.pedantic(store.pump, (opened, data, count), {"acks": acks, "in_flight": in_flight}, rounds=3)
    assert failed == 0
    cpu = cpu_seconds() - cpu
    after = store.stats()
    if benchmark.stats:
        total = after["appended_bytes"] - before["appended_bytes"]
        benchmark.extra_info["MB/s"] = round(count * len(data) / benchmark.stats["min"] / 1e6)
        benchmark.extra_info["1/s"] = round(count / benchmark.stats["min"])
        benchmark.extra_info["CPU s/GB"] = round(cpu / total * 1e9, 3)
        benchmark.extra_info["written/appended"] = round((after["written_bytes"] - before["written_bytes"]) / total, 2)
        writes = after["writes"] - before["writes"]
        benchmark.extra_info["KiB/write"] = round((after["written_bytes"] - before["written_bytes"]) / 1024 / writes) if writes else None
    store.close()
    os.sync()


@pytest.mark.parametrize("warm", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize("max_bytes", [65_536, MIB])
def test_read(benchmark: Any, tmp_path: Path, warm: bool, max_bytes: int) -> None:
    """Reading in order what is in memory, and what is on the disk, with the copy that the test makes of it."""
    data = batch(1, 65_000)
    store = LocalStore(memory=256 * MIB)
    log = store.open(tmp_path / "t-0")
    store.pump([log], data, 2000, acks=-1)
    if not warm:
        store.close()
        store = LocalStore(memory=64 * MIB)
        log = store.open(tmp_path / "t-0", clean=True)

    def read() -> int:
        offset = total = 0
        while offset < 2000:
            got = len(log.read(offset, max_bytes).data) // len(data)
            offset += got
            total += got
        return total

    assert benchmark.pedantic(read, rounds=3) == 2000
    if benchmark.stats:
        benchmark.extra_info["MB/s"] = round(2000 * len(data) / benchmark.stats["min"] / 1e6)
    store.close()
