"""Files of removed segments become space for next ones: which do, what they are made to be, and that nobody ever sees what they held."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.storage.disk import give_back
from fastlog.storage.inspect import check as damage
from tests.storage.build import Expected, batch, check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

SETTINGS: dict[str, Any] = {"segment_bytes": 1 << 20, "recycle_bytes": 8 << 20}
SIZE = 60_000
A_SEGMENT = 17
"""Batches that fit into one."""


def write(log: LocalLog, expected: Expected, count: int, size: int = SIZE) -> None:
    for _ in range(count):
        data = batch(1, size)
        assert log.append(data).error == 0
        expected.add(data, log.positions.leader_epoch)


def settle(store: LocalStore, eventually: Callable[..., None], **wanted: int) -> None:
    """Until the store has counted so many of something, at least."""

    def enough() -> bool:
        store.run(0.01)
        stats = store.stats()
        return all(stats[name] >= count for name, count in wanted.items())

    eventually(enough, 30)


def pool(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.recycled"))


def test_removed_segments_are_used_again(open_store: Callable[..., LocalStore], place: Path, eventually: Callable[..., None]) -> None:
    """Deleted records and a deleted log feed the pool; logs take from it what they would else zero; each holds what was appended to it,
    over restarts and crashes. Appends go on while segments are removed."""
    store = open_store(memory=16 << 20)
    one, other = store.open(place / "a-0", **SETTINGS), store.open(place / "b-0", partition=1, **SETTINGS)
    mine, others = Expected(), Expected()
    write(one, mine, 3 * A_SEGMENT + 1)
    write(other, others, 1)
    mine.start = one.delete_records(2 * A_SEGMENT)
    write(other, others, 3)
    settle(store, eventually, segments_removed=2, segments_recycled=2)
    assert [path.stat().st_size for path in pool(place)] == [1 << 20] * 2
    mine.start = one.delete_records(3 * A_SEGMENT)
    settle(store, eventually, segments_recycled=3)
    for path in pool(place):
        assert not any(path.read_bytes().count(data[16:61]) for _, data in mine.batches)
    before = store.stats()
    write(other, others, 3 * A_SEGMENT)
    settle(store, eventually, segments_reused=2)
    after = store.stats()
    assert after["zeroed_bytes"] - before["zeroed_bytes"] < after["written_bytes"] - before["written_bytes"] - 40 * SIZE
    check(other, others)
    mine.batches = [pair for pair in mine.batches if pair[0] >= mine.start]
    check(one, mine)
    one.delete()
    settle(store, eventually, segments_removed=4)
    store.crash()
    store = open_store(memory=16 << 20)
    other = store.open(place / "b-0", partition=1, leader_epoch=1, **SETTINGS)
    assert (other.opened.recovered, other.opened.lost_bytes) == (True, 0)
    check(other, others)
    write(other, others, A_SEGMENT)
    check(other, others)
    store.close()
    store = open_store(memory=16 << 20)
    check(store.open(place / "b-0", partition=1, leader_epoch=1, clean=True, **SETTINGS), others)


def test_a_deleted_log_feeds_the_pool(open_store: Callable[..., LocalStore], place: Path, eventually: Callable[..., None]) -> None:
    store = open_store(memory=16 << 20)
    log = store.open(place / "a-0", **SETTINGS)
    write(log, Expected(), 3 * A_SEGMENT + 1)
    settle(store, eventually)
    log.flush()
    store.run(0.2)
    log.delete()
    stats = store.stats()
    assert stats["segments_removed"] == 4
    assert stats["segments_recycled"] == len(pool(place)) >= 2
    assert not (place / "a-0").exists()


def test_what_somebody_else_holds_is_not_used_again(
    open_store: Callable[..., LocalStore], place: Path, eventually: Callable[..., None]
) -> None:
    """A file that is open, or that has another name, is removed, and stays what it was for whoever has it."""
    store = open_store(memory=16 << 20)
    log = store.open(place / "a-0", **SETTINGS)
    expected = Expected()
    write(log, expected, 3 * A_SEGMENT + 1)
    settle(store, eventually)
    first, second, *_ = sorted((place / "a-0").glob("*.log"))
    os.link(second, place / "backup")
    content = first.read_bytes(), second.read_bytes()
    with first.open("rb") as reader:
        log.delete_records(3 * A_SEGMENT)
        settle(store, eventually, segments_removed=3, segments_recycled=1)
        assert (reader.read(), (place / "backup").read_bytes()) == content
    assert len(pool(place)) == 1
    assert store.stats()["segments_recycled"] == 1


@pytest.mark.parametrize("settings", [{"recycle_bytes": 0}, {"recycle_bytes": 1 << 19}, {"size": 500}, {"acks": 1}])
def test_what_is_not_worth_it_is_removed(
    open_store: Callable[..., LocalStore], place: Path, eventually: Callable[..., None], settings: dict[str, int]
) -> None:
    """Without a pool, past its bound, of small batches, of a log that never asks for stable storage."""
    store = open_store(memory=16 << 20)
    size, acks = settings.get("size", SIZE), settings.get("acks", -1)
    log = store.open(place / "a-0", segment_bytes=1 << 20, recycle_bytes=settings.get("recycle_bytes", 8 << 20))
    for _ in range((2 << 20) // size):
        log.append(batch(1, size), acks)
    log.flush()
    log.roll()
    log.delete_records(log.positions.log_end)
    settle(store, eventually, segments_removed=2)
    assert store.stats()["segments_recycled"] == 0
    assert not pool(place)


def test_the_pool_is_given_back(open_store: Callable[..., LocalStore], place: Path, eventually: Callable[..., None]) -> None:
    store = open_store(memory=16 << 20)
    log = store.open(place / "a-0", **SETTINGS)
    expected = Expected()
    write(log, expected, 2 * A_SEGMENT + 1)
    expected.start = log.delete_records(2 * A_SEGMENT)
    settle(store, eventually, segments_recycled=2)
    give_back(place)
    assert not pool(place)
    write(log, expected, 2 * A_SEGMENT)
    expected.batches = [pair for pair in expected.batches if pair[0] >= expected.start]
    check(log, expected)


def test_a_check_of_files_knows_recycled_space(
    open_store: Callable[..., LocalStore], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """`fastlog log check` takes what lies past the end for what it is, and still finds what is wrong before it."""
    store = open_store(memory=16 << 20)
    log = store.open(tmp_path / "a-0", **SETTINGS)
    expected = Expected()
    write(log, expected, 3 * A_SEGMENT + 1)
    log.delete_records(3 * A_SEGMENT)
    settle(store, eventually, segments_recycled=3)
    write(log, expected, 2 * A_SEGMENT + 3)
    settle(store, eventually, segments_reused=1)
    log.flush()
    store.crash()
    newest = max((tmp_path / "a-0").glob("*.log"))
    data = newest.read_bytes()
    end = sum(len(stored) for base, stored in expected.batches if base >= int(newest.stem))
    assert data[end:].strip(b"\0"), "there is nothing past the end"
    assert not list(damage(tmp_path))
    with newest.open("r+b") as file:
        file.seek(end - 100)
        file.write(b"\xff\0\xff")
    assert [problem.file for problem in damage(tmp_path)] == [newest.name]
