"""Finding offsets by time: against a plain search through all records."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.records import Codec, Record, build_batch, iter_batches
from tests.storage.build import batch, read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore

LARGEST = -3


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_against_a_plain_search(open_store: Callable[..., LocalStore], tmp_path: Path, codec: Codec) -> None:
    rng = random.Random(2)
    store = open_store(memory=2 << 20)
    log = store.open(tmp_path / "t-0", segment_bytes=40_000)
    now = 10_000
    for _ in range(120):
        now += rng.randint(-30, 100)
        records = [Record(i, now + rng.randint(-50, 50), None, rng.randbytes(rng.choice([10, 700]))) for i in range(rng.randint(1, 6))]
        log.append(build_batch(records, timestamp_ms=now, codec=codec))
    stored = [record for one in iter_batches(read_all(log, 0)) for record in one.records]
    largest = max(record.timestamp for record in stored)
    first_largest = next(record for record in stored if record.timestamp == largest)
    for clean in (False, True):
        assert log.find_time(LARGEST) == (0, first_largest.offset, largest)
        assert log.find_time(largest + 1) == (0, -1, -1)
        for timestamp in [0, largest, *(rng.randrange(9900, largest + 20) for _ in range(60))]:
            found = next((r for r in stored if r.timestamp >= timestamp), None)
            assert log.find_time(timestamp) == ((0, found.offset, found.timestamp) if found else (0, -1, -1))
        if not clean:
            store.close()
            store = open_store(memory=2 << 20)
            log = store.open(tmp_path / "t-0", clean=True)
    store.close()


def test_an_empty_log_and_what_is_deleted(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    assert log.find_time(0) == (0, -1, -1)
    assert log.find_time(LARGEST) == (0, -1, -1)
    for i in range(10):
        log.append(batch(timestamp=100 * i))
    log.delete_records(4)
    assert log.find_time(0) == (0, 4, 400)
    assert log.find_time(450) == (0, 5, 500)
    log.delete_records(10)
    assert log.find_time(0) == (0, -1, -1)
    store.close()


def test_only_what_is_visible(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.append(batch(timestamp=100))
    pending = log.submit(batch(timestamp=200), -1)
    assert log.positions.log_end == 2
    found = log.find_time(150)
    assert found in {(0, -1, -1), (0, 1, 200)}
    assert (found.offset == 1) <= pending.done
    assert pending.result().error == 0
    assert log.find_time(150) == (0, 1, 200)
    store.close()
