"""CRC-32C by kernel and size: .venv/bin/pytest bench/micro/test_crc.py --benchmark-enable --benchmark-group-by=param:size"""

import random
from typing import Any

import pytest

from fastlog.native.crc32c import checksum, kernels


@pytest.mark.parametrize("size", [150, 1024, 65_536, 1_048_576])
@pytest.mark.parametrize("kernel", kernels())
def test_crc32c(benchmark: Any, kernel: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    benchmark(checksum, data, 0, kernel)
    if benchmark.stats:
        benchmark.extra_info["GB/s"] = round(size / benchmark.stats["min"] / 1e9, 1)
