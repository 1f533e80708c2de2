"""Fixtures of the storage tests: stores on a disk and on tmpfs, by both engines."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.native.logtool import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHM = Path("/dev/shm")


@pytest.fixture
def open_store(engine: str) -> Iterator[Callable[..., LocalStore]]:
    """`open_store(memory=..., ...)`: a LocalStore of the engine; those left open are dropped after the test."""
    opened: list[LocalStore] = []

    def make(**arguments: Any) -> LocalStore:
        store = LocalStore(engine=engine, **arguments)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.crash()


@pytest.fixture(params=["disk", "tmpfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk (O_DIRECT, where the file system has it) and one on tmpfs (which may not)."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access(SHM, os.W_OK):
        pytest.skip("needs a writable /dev/shm")
    made = Path(tempfile.mkdtemp(prefix="fastlog-test-", dir=SHM))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def arena_path() -> Iterator[Path]:
    """A path for an arena on tmpfs."""
    if not os.access(SHM, os.W_OK):
        pytest.skip("needs a writable /dev/shm")
    made = Path(tempfile.mkdtemp(prefix="fastlog-test-", dir=SHM))
    yield made / "arena"
    shutil.rmtree(made)
