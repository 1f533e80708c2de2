"""Compaction against a plain dict: which records stay, that offsets never move, and every state that a crash can leave."""

from __future__ import annotations

import random
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog._core import CompactionCancelledError, DamagedLogError
from fastlog.native.keymap import Map, siphash128
from fastlog.native.logtool import LogError
from fastlog.protocol.records import Codec, Record, build_batch, iter_batches
from fastlog.storage.compaction import make_plan
from tests.storage.build import read_all, segment_names
from tests.storage.compacting import Cleaner, Model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

NOW = int(time.time() * 1000)
"""Producers that wrote long ago would be forgotten."""
SETTINGS: dict[str, Any] = {"segment_bytes": 20_000, "index_interval_bytes": 1000}


def put(log: LocalLog, model: Model, records: list[Record], **fields: Any) -> int:
    result = log.append(build_batch(records, timestamp_ms=NOW, **fields))
    assert result.error == 0
    model.add(result.base_offset, records)
    return result.base_offset


def some_records(rng: random.Random, keys: int) -> list[Record]:
    records = []
    for _ in range(rng.choice([1, 1, 2, 5, 20, 60])):
        value = None if rng.random() < 0.15 else rng.randbytes(rng.choice([0, 1, 30, 100, 400]))
        headers = (("h", b"v"), ("h", None)) if rng.random() < 0.1 else ()
        records.append(Record(0, NOW - rng.randrange(100_000), b"key-%d" % rng.randrange(keys), value, headers))
    return records


def test_hash() -> None:
    """The reference implementation's first vectors (github.com/veorq/SipHash, vectors.h)."""
    key = bytes(range(16))
    assert siphash128(key, b"").hex() == "a3817f04ba25a8e66df67214c7550293"
    assert siphash128(key, b"\x00").hex() == "da87c1d86b99af44347659119b22fc45"


@pytest.mark.parametrize("size", [24 * 40, 24 * 1000])
def test_map_is_bounded(size: int) -> None:
    """A map takes nine tenths of its slots, tells when it is full, and never forgets a key that it took."""
    found = Map(10_000, size)
    assert found.most == size // 24 // 10 * 9
    for i in range(found.most):
        assert found.put(b"%d" % i, i)
    assert not found.put(b"one more", 1_000_000)
    assert found.put(b"7", 2_000_000)
    assert found.get(b"7") == 2_000_000
    assert all(found.get(b"%d" % i) == i for i in range(found.most) if i != 7)
    assert found.get(b"one more") == found.get(b"never seen") == -1


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(8, 80))])
def test_random_logs(open_store: Callable[..., LocalStore], tmp_path: Path, seed: int) -> None:
    """Random keys, tombstones, codecs, producers, rolls, deleted records, restarts and crashes; compactions with much or little memory."""
    rng = random.Random(seed)
    path = tmp_path / "t-0"
    store = open_store(memory=8 << 20)
    log = store.open(path, **SETTINGS)
    cleaner, model = Cleaner(path, segment_bytes=rng.choice([20_000, 60_000, 200_000])), Model()
    keys = rng.choice([5, 50, 400])
    now = NOW
    epoch = start = 0
    sequences: dict[int, int] = {}
    for _ in range(120):
        what = rng.random()
        if what < 0.70:
            records = some_records(rng, keys)
            fields: dict[str, Any] = {"codec": rng.choice([*Codec, Codec.NONE, Codec.NONE])}
            if rng.random() < 0.4:
                producer = rng.randrange(4)
                fields |= {"producer_id": producer, "producer_epoch": 0, "base_sequence": sequences.get(producer, 0)}
                sequences[producer] = sequences.get(producer, 0) + len(records)
            put(log, model, records, **fields)
        elif what < 0.75:
            log.roll()
        elif what < 0.90:
            now += rng.randrange(2000)
            cleaner.run(log, now, rng.choice([24 * 100, 24 * 300, 1 << 20]))
        elif what < 0.93 and model.end:
            start = log.delete_records(rng.randrange(start, log.positions.high_watermark + 1))
        else:
            if rng.random() < 0.5:
                store.close()
                clean = True
            else:
                store.crash()
                clean = False
                epoch += 1
            store = open_store(memory=8 << 20)
            log = store.open(path, clean=clean, leader_epoch=epoch, **SETTINGS)
            assert log.opened.lost_bytes == 0
            assert log.delete_records(start) == start
        model.check(log, cleaner.end, start)
    for producer, sequence in sequences.items():  # the next one follows, and only that
        wrong = build_batch(
            [Record(0, NOW, b"k", b"v")], timestamp_ms=NOW, producer_id=producer, producer_epoch=0, base_sequence=sequence + 5
        )
        assert log.append(wrong).error == 45
        put(log, model, [Record(0, NOW, b"k", b"v")], producer_id=producer, producer_epoch=0, base_sequence=sequence)
    log.roll()
    for i in range(4):
        put(log, model, [Record(0, NOW, b"k", b"%d" % i)])
        log.roll()
        cleaner.run(log, now + 10_000 * (i + 1))
    batches = model.check(log, cleaner.end, start)
    assert cleaner.end == log.positions.log_end
    held = {r.key: r.value for b in batches for r in b.records if r.offset >= start}
    assert {k: v for k, v in held.items() if v is not None} == {
        r.key: r.value for r in model.newest().values() if r.value is not None and r.offset >= start
    }
    store.close()


def test_tombstones_go_after_their_time(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """The first compaction writes the delete horizon, one after it drops the tombstone; times of records are what they were."""
    store = open_store(memory=4 << 20)
    log = store.open(tmp_path / "t-0", **SETTINGS)
    cleaner, model = Cleaner(tmp_path / "t-0", retention_ms=5000), Model()
    put(log, model, [Record(0, NOW - 7, b"a", b"1"), Record(0, NOW - 3, b"b", b"1"), Record(0, NOW, b"a", None)], codec=Codec.ZSTD)
    log.roll()
    put(log, model, [Record(0, NOW, b"c", b"1")])
    log.roll()
    cleaner.run(log, NOW)
    (first, *_) = model.check(log, 4)
    assert [(r.key, r.value, r.timestamp) for r in first.records] == [(b"b", b"1", NOW - 3), (b"a", None, NOW)]
    assert first.attributes & 0x40
    assert first.base_timestamp == NOW + 5000
    assert (first.base_offset, first.last_offset, first.codec) == (0, 2, Codec.ZSTD)
    for later, stays in ((4999, True), (5000, False)):
        put(log, model, [Record(0, NOW, b"d", b"%d" % later)])
        log.roll()
        cleaner.run(log, NOW + later)
        held = [r.key for b in model.check(log, cleaner.end) for r in b.records]
        assert (b"a" in held) == stays
    store.close()


def test_last_batches_stay_without_records(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A producer's last batch and a segment's last offset are kept by empty batches, which go when they are no longer last."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    cleaner, model = Cleaner(path), Model()
    put(log, model, [Record(0, NOW, b"k", b"0")], producer_id=9, producer_epoch=3, base_sequence=0)
    put(log, model, [Record(0, NOW, b"k", b"1")], producer_id=8, producer_epoch=0, base_sequence=0)
    put(log, model, [Record(0, NOW, b"k", b"2")])
    log.roll()
    put(log, model, [Record(0, NOW, b"k", b"3")], producer_id=8, producer_epoch=0, base_sequence=1)
    log.roll()
    cleaner.segment_bytes = 1
    cleaner.run(log, NOW)
    assert [(b.base_offset, b.producer_id, len(b.records)) for b in model.check(log, 4)] == [(0, 9, 0), (2, -1, 0), (3, 8, 1)]
    store.close()
    store = open_store(memory=4 << 20)
    log = store.open(path, clean=True, **SETTINGS)
    put(log, model, [Record(0, NOW, b"k", b"4")], producer_id=9, producer_epoch=3, base_sequence=1)
    log.roll()
    cleaner.segment_bytes = 1 << 20
    cleaner.run(log, NOW)
    assert [(b.base_offset, b.producer_id, len(b.records)) for b in model.check(log, 5)] == [(3, 8, 0), (4, 9, 1)]
    assert segment_names(path) == [f"{0:020}.log", f"{5:020}.log"]
    store.close()


def test_memory_for_few_keys(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """With memory for 9 keys a log of 60 is compacted in several turns, each of which ends where its memory did."""
    store = open_store(memory=4 << 20)
    log = store.open(tmp_path / "t-0", **SETTINGS)
    cleaner, model = Cleaner(tmp_path / "t-0"), Model()
    for round_ in range(3):
        for i in range(60):
            put(log, model, [Record(0, NOW, b"%d" % i, b"%d" % round_)])
    log.roll()
    put(log, model, [Record(0, NOW, b"x", b"")])
    turns = 0
    while cleaner.run(log, NOW, 24 * 10):
        turns += 1
        model.check(log, cleaner.end)
    assert cleaner.end == 180
    assert turns == 20
    assert sum(len(b.records) for b in model.check(log, 180)) == 61
    store.close()


def test_a_damaged_log_is_left_alone(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A wrong CRC is told with file and byte; nothing was changed."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    cleaner, model = Cleaner(path), Model()
    put(log, model, [Record(0, NOW, b"k", b"0" * 100)])
    at = put(log, model, [Record(0, NOW, b"k", b"1" * 100)])
    log.roll()
    put(log, model, [Record(0, NOW, b"k", b"2")])
    log.flush()
    name = path / f"{0:020}.log"
    whole = name.read_bytes()
    second = len(whole) // 2
    broken = bytearray(whole)
    broken[second + 90] ^= 1
    name.write_bytes(broken)
    before = sorted(p.name for p in path.iterdir())
    with pytest.raises(DamagedLogError, match=rf"{0:020}\.log, byte {second}: a batch with a wrong CRC"):
        cleaner.run(log, NOW)
    assert sorted(p.name for p in path.iterdir()) == before
    assert at == 1
    store.crash()


def test_cancel(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    put(log, Model(), [Record(0, NOW, b"k", b"0")])
    log.roll()
    opened = Cleaner(path).open(log, NOW)
    assert opened is not None
    opened[0].cancel()
    with pytest.raises(CompactionCancelledError):
        opened[0].map(0, 1 << 20)
    store.close()


def test_a_log_that_changed_is_not_swapped(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Segments that were dropped meanwhile do not come back, and a swap of what is not there is refused."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    model = Model()
    for i in range(3):
        put(log, model, [Record(0, NOW, b"k", b"%d" % i)])
        log.roll()
    compaction, parts = Cleaner(path).open(log, NOW) or (None, [])
    assert compaction is not None
    compaction.map(0, 1 << 20)
    compaction.clean(0, 2)
    log.delete_records(1)
    store.run(0.01)
    with pytest.raises(LogError) as refused:
        log.swap(parts[0][0], parts[2][1])
    assert refused.value.code == 1
    with pytest.raises(LogError):
        log.swap(1, log.positions.log_end + 7)
    model.check(log, 0, 1)
    store.close()


def test_reads_across_a_swap(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """A reader that pinned bytes of the old segment keeps them; one that goes on finds the new one; an offset in a gap leads past it."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    cleaner, model = Cleaner(path), Model()
    for i in range(200):
        put(log, model, [Record(0, NOW, b"%d" % (i % 3), b"%d" % i * 50)])
    log.roll()
    put(log, model, [Record(0, NOW, b"end", b"")])
    pinned = log.pin(5)
    held = pinned.data
    cleaner.run(log, NOW)
    assert pinned.data == held
    pinned.release()
    for offset in range(200):
        (first, *_) = iter_batches(log.read(offset).data)
        assert first.last_offset >= offset
        assert first.base_offset == max(offset, 197)
    assert log.find_time(NOW).offset == 197
    store.close()


def steps(path: Path, olds: list[int], base: int) -> list[list[Callable[[], object]]]:
    """What a swap does to names, see swap.pxd: the steps between two syncs of the directory may come to the disk in any order."""

    def move(old: str, new: str) -> Callable[[], object]:
        return lambda: (path / old).exists() and (path / old).rename(path / new)

    def drop(name: str) -> Callable[[], object]:
        return lambda: (path / name).unlink(missing_ok=True)

    indexes, log = [f"{base:020}.{kind}" for kind in ("index", "timeindex", "txnindex")], f"{base:020}.log"
    retired: list[Callable[[], object]] = []
    for old in olds:
        retired.append(move(f"{old:020}.log", f"{old:020}.log.deleted"))
        retired += [drop(f"{old:020}.{kind}") for kind in ("index", "timeindex", "txnindex")]
        if old != base:
            retired.append(drop(f"{old:020}.snapshot"))
    return [
        [move(f"{name}.cleaned", f"{name}.swap") for name in indexes],
        [move(f"{log}.cleaned", f"{log}.swap")],
        [*retired, *(move(f"{name}.swap", name) for name in indexes)],
        [move(f"{log}.swap", log)],
        [drop(f"{old:020}.log.deleted") for old in olds],
    ]


def subsets(rng: random.Random, n: int) -> list[set[int]]:
    """Prefixes of n steps, all but one, just one, and some by chance."""
    found = [set(range(i)) for i in range(n + 1)] + [set(range(n)) - {i} for i in range(n)] + [{i} for i in range(n)]
    return found + [{i for i in range(n) if rng.random() < 0.5} for _ in range(10)]


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "unclean"])
def test_a_crash_at_every_step_of_a_swap(open_store: Callable[..., LocalStore], tmp_path: Path, clean: bool) -> None:
    """Whichever steps since the last sync are on the disk, the log is the old one or the new one, and nothing else lies about."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    model, rng = Model(), random.Random(3)
    for _ in range(4):
        for _ in range(10):
            put(log, model, some_records(rng, 10))
        log.roll()
    put(log, model, [Record(0, NOW, b"end", b"1")])
    log.flush()
    compaction, parts = Cleaner(path).open(log, NOW) or (None, [])
    assert compaction is not None
    compaction.map(0, 1 << 20)
    compaction.clean(0, len(parts) - 1)
    before = read_all(log, 0)
    if clean:
        store.close()
    else:
        store.crash()
    work, seen, outcomes = path.with_name("w-0"), set(), []
    olds = [part[0] for part in parts]
    groups = steps(work, olds, 0)
    for g, group in enumerate(groups):
        for chosen in subsets(rng, len(group)):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(path, work)
            for step in [*(step for whole in groups[:g] for step in whole), *(group[i] for i in sorted(chosen))]:
                step()
            state = tuple(sorted(p.name for p in work.iterdir()))
            if state in seen:
                continue
            seen.add(state)
            store = open_store(memory=4 << 20)
            log = store.open(work, clean=clean, leader_epoch=int(not clean), **SETTINGS)
            assert log.opened.lost_bytes == 0
            outcomes.append(read_all(log, 0) == before)
            model.check(log, 0 if outcomes[-1] else parts[-1][1])
            assert not [p.name for p in work.iterdir() if p.suffix in (".cleaned", ".swap", ".deleted")]
            store.close()
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("what", ["index", "timeindex", "snapshot"])
def test_recovery_of_a_compacted_segment_without_its_files(open_store: Callable[..., LocalStore], tmp_path: Path, what: str) -> None:
    """A segment with gaps is taken whole after a crash, its indexes made anew; one that ends in the middle is not."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    cleaner, model, rng = Cleaner(path, segment_bytes=30_000), Model(), random.Random(4)
    for _ in range(4):
        for _ in range(20):
            put(log, model, some_records(rng, 100), producer_id=-1)
        log.roll()
    put(log, model, [Record(0, NOW, b"end", b"1")])
    log.flush()
    cleaner.run(log, NOW)
    before = read_all(log, 0)
    store.crash()
    for file in path.glob(f"*.{what}"):
        file.unlink()
    store = open_store(memory=4 << 20)
    log = store.open(path, leader_epoch=1, **SETTINGS)
    assert (log.opened.recovered, log.opened.lost_bytes) == (True, 0)
    assert read_all(log, 0) == before
    model.check(log, cleaner.end)
    store.close()


def test_plan(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Dirty share, shortest and longest lag, and an end that a lost checkpoint or a newer one than the log may have."""
    path = tmp_path / "t-0"
    store = open_store(memory=4 << 20)
    log = store.open(path, **SETTINGS)
    for i in range(4):
        put(log, Model(), [Record(0, NOW + 1000 * i, b"k", b"0" * 1000)])
        log.roll()

    def plan(checkpoint: int | None, now: int = 0, lag_min: int = 0, lag_max: int = 2**63 - 1) -> Any:
        return make_plan(
            str(path), log_start=0, limit=log.compactable(), checkpoint=checkpoint, now_ms=NOW + now, lag_min_ms=lag_min, lag_max_ms=lag_max
        )

    assert (plan(None).ratio, plan(2).ratio, plan(4).ratio, plan(99).first_dirty) == (1.0, 0.5, 0.0, 0)
    assert (plan(2).due(0.5), plan(2).due(0.49), plan(4).due(0)) == (False, True, False)
    assert plan(None, now=5000, lag_min=3500).end == 2
    assert plan(3, now=5000, lag_max=1999).due(1)
    assert not plan(3, now=5000, lag_max=2000).due(1)
    store.close()
