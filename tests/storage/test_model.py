"""Random operations against a list, with crashes: what was promised is there, in order, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.storage.build import Expected, batch, check, count_of, read_all, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore


def some_batch(rng: random.Random, limit: int = 1 << 30) -> bytes:
    """Of any size up to a limit of bytes."""
    while True:
        count, size = rng.randint(1, 5), rng.choice([1, 10, 100, 1000, 4000, 4096, 10_000, 65_000, 70_000, 150_000])
        if count * (size + 100) < limit:
            return batch(count, size)


@pytest.mark.parametrize("arena", [False, True], ids=["anonymous", "arena"])
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 60))])
def test_random_operations(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path, seed: int, arena: bool) -> None:
    """Appends of all acks, reads anywhere, rolls, flushes, clean restarts and crashes.

    After a crash: everything with acks=-1 is there, with an arena everything with acks=1 too; what is there is a prefix of what was
    accepted. Without an arena acks=1 was written before its answer, and a killed process loses no written byte; acks=0 may be lost.
    """
    rng = random.Random(seed)
    settings: dict[str, Any] = {
        "segment_bytes": rng.choice([200_000, 400_000, 1_000_000, 5_000_000]),
        "index_interval_bytes": rng.choice([0, 4096, 20_000]),
    }
    memory = rng.choice([2 << 20, 4 << 20, 16 << 20])
    limit = min(settings["segment_bytes"], memory // 2)
    arenas: list[Path] = []

    def open_one() -> LocalStore:
        path = arena_path.with_name(f"arena{len(arenas)}") if arena else None
        old = [p for p in arenas if p.exists()]
        if path:
            arenas.append(path)
        return open_store(memory=memory, arena=path, relics=old)

    path = tmp_path / "t-0"
    store = open_one()
    log = store.open(path, **settings)
    expected = Expected()
    epoch = 0
    promised = 0
    for _ in range(150):
        what = rng.random()
        if what < 0.55:
            several = [(some_batch(rng, limit), rng.choice([-1, -1, 1, 1, 0])) for _ in range(rng.randint(1, 6))]
            pending = [log.submit(data, acks) for data, acks in several]
            for (data, acks), one in zip(several, pending, strict=True):
                result = one.result()
                assert (result.error, result.base_offset) == (0, expected.add(data, epoch))
                if acks or arena:
                    promised = expected.end
        elif what < 0.75 and expected.end > expected.start:
            offset = rng.randrange(expected.start, expected.end)
            found = log.read(offset, rng.choice([1, 1000, 70_000, 1 << 20]), to_log_end=True)
            assert found.error == 0
            want = expected.bytes_from(offset)
            assert found.data == want[: len(found.data)]
            assert split(found.data)
        elif what < 0.80:
            log.flush()
            promised = expected.end
        elif what < 0.84:
            log.roll()
        elif what < 0.87 and expected.end > expected.start:
            expected.start = log.delete_records(rng.randrange(expected.start, log.positions.high_watermark + 1))
        elif what < 0.93:
            store.run(rng.choice([0, 0.002, 0.2]))
        elif what < 0.96:
            log.flush()
            promised = expected.end
            check(log, expected)
            store.close()
            store = open_one()
            log = store.open(path, clean=True, leader_epoch=epoch, **settings)
            assert not log.opened.recovered
            _deleted_again(log, expected)
            check(log, expected)
        else:
            survivors = [log.submit(some_batch(rng, limit), rng.choice([-1, 1])) for _ in range(rng.randint(0, 8))]
            sent = [bytes(one.batch) for one in survivors]
            store.run(rng.choice([0, 0.001]))
            done = [one.done for one in survivors]
            store.crash()
            epoch += 1
            store = open_one()
            log = store.open(path, leader_epoch=epoch, **settings)
            store.drop_relics()
            assert log.opened.recovered
            assert log.positions.log_end >= promised
            if log.positions.log_end < expected.end:
                expected.cut(log.positions.log_end)
                sent = []
            kept = 0
            for data in sent:
                if expected.end >= log.positions.log_end:
                    break
                expected.add(data, epoch - 1)
                kept += 1
            assert kept >= max((i + 1 for i, d in enumerate(done) if d), default=0)
            promised = expected.end
            expected.start = min(expected.start, expected.end)
            _deleted_again(log, expected)
            check(log, expected)
    log.flush()
    check(log, expected, max_bytes=30_000)
    store.close()
    assert not any(p.exists() for p in arenas)


def _deleted_again(log: LocalLog, expected: Expected) -> None:
    """The log's start within a segment is not the log's to remember: whoever keeps it says so again."""
    assert log.positions.log_start <= expected.start
    assert log.delete_records(expected.start) == expected.start


def test_reads_while_appending(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A reader at the tail sees every batch once, whole and in order, whatever is under way."""
    store = open_store(memory=4 << 20)
    log = store.open(tmp_path / "t-0", segment_bytes=700_000)
    rng = random.Random(5)
    expected = Expected()
    pending = []
    offset = 0
    seen = b""
    for i in range(400):
        data = some_batch(rng, 100_000)
        expected.add(data)
        pending.append(log.submit(data, rng.choice([-1, 1, 0])))
        if i % 3 == 0:
            for got in split(log.read(offset, 100_000).data):
                seen += got
                offset = int.from_bytes(got[:8], "big") + count_of(got)
    for one in pending:
        assert one.result().error == 0
    seen += read_all(log, offset)
    assert seen == expected.bytes_from(0)
    store.close()
