"""Many logs at once, at full speed, with all that goes on beside appends: every answer is checked, and every byte at the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.storage.build import Expected, batch, check, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore, Pending


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rounds", [60, pytest.param(1500, marks=pytest.mark.long)])
@pytest.mark.parametrize("in_arena", [False, True], ids=["anonymous", "arena"])
def test_everything_at_once(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path, rounds: int, in_arena: bool) -> None:
    rng = random.Random(rounds + in_arena)
    store = open_store(memory=3 << 20, arena=arena_path if in_arena else None, threads=3, flush_group=True)
    logs = []
    for i in range(8):
        settings: dict[str, Any] = {"segment_bytes": rng.choice([150_000, 1_000_000]), "index_interval_bytes": rng.choice([0, 4096])}
        logs.append(store.open(tmp_path / f"t-{i}", partition=i, **settings))
    expected = [Expected() for _ in logs]
    pending: list[tuple[Pending, int]] = []
    held = []
    for turn in range(rounds):
        for i in rng.sample(range(8), 4):
            for _ in range(rng.randint(1, 5)):
                data = batch(rng.randint(1, 3), rng.choice([10, 500, 5000, 30_000]), timestamp=turn)
                pending.append((logs[i].submit(data, rng.choice([-1, -1, 1, 0])), expected[i].add(data)))
        i = rng.randrange(8)
        what = rng.random()
        visible = logs[i].positions.high_watermark
        if what < 0.4 and visible > expected[i].start:
            offset = rng.randrange(expected[i].start, visible)
            result = logs[i].read(offset, rng.choice([100, 50_000, 500_000]))
            assert result.error == 0
            assert split(result.data)
            assert expected[i].bytes_from(offset).startswith(result.data)
        elif what < 0.5 and visible > expected[i].start:
            held.append((logs[i].pin(rng.randrange(expected[i].start, visible), 20_000), i))
        elif what < 0.6 and held:
            held.pop(rng.randrange(len(held)))[0].release()
        elif what < 0.65:
            logs[i].roll()
        elif what < 0.7:
            logs[i].flush()
        elif what < 0.75 and visible > expected[i].start:
            expected[i].start = logs[i].delete_records(rng.randrange(expected[i].start, visible + 1))
        elif what < 0.8:
            found = logs[i].find_time(rng.randrange(turn + 1))
            assert found.error == 0
        if len(held) > 6:
            held.pop(0)[0].release()
        if len(pending) > 200:
            for one, base in pending:
                assert one.result()[:2] == (0, base)
            pending.clear()
    for one, base in pending:
        assert one.result()[:2] == (0, base)
    for pin, _ in held:
        pin.release()
    for log, want in zip(logs, expected, strict=True):
        log.flush()
        check(log, want)
    stats = store.stats()
    assert (stats["chunks_pinned"], stats["offline"], stats["partitions"]) == (0, 0, 8)
    store.close()
    store = open_store()
    for i, want in enumerate(expected):
        log = store.open(tmp_path / f"t-{i}", partition=i, clean=True)
        assert log.delete_records(want.start) == want.start
        check(log, want)
    store.close()
