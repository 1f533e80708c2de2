"""Checking and recompressing a batch: .venv/bin/pytest bench/micro/test_batch.py --benchmark-enable

Columns beside the times: GB/s of records (decompressed), and ns per record.
"""

import random
from typing import Any

import pytest

from fastlog.native import batchtool as native
from fastlog.protocol.records import HEADER_BYTES, Codec, Record, build_batch

NOW = 1_700_000_000_000


def made(count: int, size: int, codec: Codec = Codec.NONE, *, noise: bool = True) -> tuple[bytearray, int]:
    """A batch of `count` values of `size` bytes, and the bytes of its records: incompressible, or JSON of a kind."""
    chance = random.Random(count)
    if noise:
        values = [chance.randbytes(size) for _ in range(count)]
    else:
        line = b'{"user":"u%d","at":%d,"page":"/shop/item/%d","took_ms":%d}'
        values = [(b"".join(line % tuple(chance.choices(range(10**6), k=4)) for _ in range(size // 50 + 1)))[:size] for _ in range(count)]
    records = [Record(i, NOW, None, v) for i, v in enumerate(values)]
    plain = build_batch(records, timestamp_ms=NOW)
    return bytearray(build_batch(records, timestamp_ms=NOW, codec=codec)), len(plain) - HEADER_BYTES


def report(benchmark: Any, count: int, size: int) -> None:
    if benchmark.stats:
        benchmark.extra_info["GB/s"] = round(size / benchmark.stats["min"] / 1e9, 2)
        benchmark.extra_info["ns/record"] = round(benchmark.stats["min"] / count * 1e9, 1)


@pytest.mark.parametrize(("count", "size"), [(1, 100), (64, 1024), (1000, 1024), (1000, 10), (10_000, 100)])
def test_check(benchmark: Any, count: int, size: int) -> None:
    data, body = made(count, size)
    assert benchmark(native.check, data, NOW)[0] == 0
    report(benchmark, count, body)


@pytest.mark.parametrize("codec", list(Codec)[1:])
def test_check_compressed(benchmark: Any, codec: Codec) -> None:
    data, body = made(256, 1024, codec, noise=False)
    assert benchmark(native.check, data, NOW)[0] == 0
    report(benchmark, 256, body)


@pytest.mark.parametrize("codec", list(Codec)[1:])
def test_recode(benchmark: Any, codec: Codec) -> None:
    data, body = made(256, 1024, noise=False)
    assert benchmark(native.recode, data, codec=codec)[0] == 0
    report(benchmark, 256, body)


def test_find_time(benchmark: Any) -> None:
    data, body = made(1000, 100)
    assert benchmark(native.find_time, data, NOW) == (0, NOW)
    report(benchmark, 1, body)
