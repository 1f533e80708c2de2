"""What an import brings along: a program that never needs it does not pay for it."""

import subprocess
import sys

import pytest

LATE = {
    *("asyncio", "dataclasses", "email", "inspect", "logging", "numpy", "pyarrow", "msgspec", "socket", "uuid"),
    *("fastlog.broker", "fastlog.client.group", "fastlog.client.transactions", "fastlog.native.codec"),
    *("fastlog.protocol.errors", "fastlog.protocol.schema"),
}


@pytest.mark.parametrize("names", ["Producer, Consumer, Admin", "AsyncProducer, AsyncConsumer, AsyncAdmin"])
def test_little_is_imported(names: str) -> None:
    before = "import sys; import asyncio; " if "Async" in names else "import sys; "  # asyncio is the program's own
    code = f"{before}before = set(sys.modules); from fastlog.client import {names}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found = set(done.stdout.split())
    assert "fastlog.native.clientproducer" in found
    assert not found & LATE
