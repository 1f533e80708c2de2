"""Processes that die: what they acknowledged is there. Disks that fail: what was promised is told apart from what was not."""

from __future__ import annotations

import fcntl
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastlog.native.logtool import LogError
from tests.storage.build import Expected, batch, check, count_of, read_all, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlog.native.logtool import LocalLog, LocalStore

ROOT = Path(__file__).parents[2]
STORAGE_ERROR = 56


def kill_while_writing(path: Path, engine: str, arena: Path | None, acks: int, size: int, lines: int) -> int:
    """Runs the writer until it acknowledged so many appends, kills it and waits until its requests have ended.

    Returns the last offset acknowledged.
    """
    lock_path = path.with_name("lock")
    arguments = [str(path), engine, str(arena or "-"), str(acks), str(size), str(lock_path)]
    process = subprocess.Popen([sys.executable, "-m", "tests.storage.writer", *arguments], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout
    last = -1
    for _ in range(lines):
        line = process.stdout.readline()
        assert line.strip().isdigit(), line
        last = int(line)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    for line in rest:
        if line.endswith(b"\n"):
            last = int(line)
    with lock_path.open("r") as lock:
        deadline = time.monotonic() + 20
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return last
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.005)


def verify(log: LocalLog, last: int) -> None:
    """All up to the last acknowledged is there, in order, whole; sequences continue."""
    end = log.positions.log_end
    assert end > last
    found = split(read_all(log, 0))
    assert [int.from_bytes(one[:8], "big") for one in found] == list(range(end))
    assert [int.from_bytes(one[53:57], "big") for one in found] == list(range(end))
    assert all(count_of(one) == 1 for one in found)
    if found:
        assert log.append(found[-1])[:2] == (0, end - 1)  # still known as a duplicate
    assert log.append(batch(1, producer_id=1, producer_epoch=0, base_sequence=end))[:2] == (0, end)


@pytest.mark.parametrize(("acks", "size", "lines"), [(1, 20_000, 400), (1, 500, 3000), (-1, 20_000, 200), (-1, 500, 500), (0, 3000, 900)])
@pytest.mark.parametrize("in_arena", [True, False], ids=["arena", "anonymous"])
def test_killed_while_writing(
    open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path, engine: str, acks: int, size: int, lines: int, in_arena: bool
) -> None:
    rng = random.Random(size + lines)
    arenas = []
    arena = None
    if in_arena:
        arena = arena_path.with_name("first")
        arenas = [arena]
    last = kill_while_writing(tmp_path / "t-0", engine, arena, acks, size, rng.randint(lines // 2, lines))
    store = open_store(relics=arenas)
    log = store.open(tmp_path / "t-0", segment_bytes=3_000_000)
    assert log.opened.recovered
    store.drop_relics()
    assert not any(p.exists() for p in arenas)
    verify(log, last if acks or in_arena else -1)
    if in_arena and acks == 1:
        assert log.opened.arena_bytes > 0
    store.close()


def test_relics_are_taken_once(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path, engine: str) -> None:
    """A start that dies too, after it opened the log and appended: the dead arena is still there, and no longer counts."""
    first, second = arena_path.with_name("first"), arena_path.with_name("second")
    last = kill_while_writing(tmp_path / "t-0", engine, first, 1, 3000, 300)
    store = open_store(relics=[first], arena=second)
    log = store.open(tmp_path / "t-0", segment_bytes=3_000_000)
    assert log.positions.log_end > last
    end = log.positions.log_end
    for i in range(30):
        assert log.append(batch(1, 5000, producer_id=1, producer_epoch=0, base_sequence=end + i), 1).base_offset == end + i
    store.crash()
    store = open_store(relics=[first, second])
    log = store.open(tmp_path / "t-0", segment_bytes=3_000_000)
    verify(log, end + 29)
    store.drop_relics()
    store.close()


def test_relics_are_checked(open_store: Callable[..., LocalStore], tmp_path: Path, arena_path: Path) -> None:
    store = open_store(arena=arena_path)
    log = store.open(tmp_path / "t-0")
    log.append(batch(), 1)
    store.crash()
    readable, linked, short, other = (arena_path.with_name(name) for name in ("readable", "linked", "short", "other"))
    readable.write_bytes(arena_path.read_bytes())
    readable.chmod(0o644)
    linked.symlink_to(arena_path)
    short.write_bytes(b"x")
    short.chmod(0o600)
    other.write_bytes(bytes(1 << 20))
    other.chmod(0o600)
    store = open_store(relics=[readable, linked, short, other, arena_path.with_name("missing"), arena_path])
    assert all(name in store.why for name in ("readable", "linked", "short", "other"))
    assert store.relic_bytes > 0
    assert store.open(tmp_path / "t-0").positions.log_end == 1
    store.drop_relics()
    assert readable.exists()
    assert not arena_path.exists()
    store.close()


def test_the_arena_is_private_and_goes_with_a_clean_end(open_store: Callable[..., LocalStore], arena_path: Path) -> None:
    store = open_store(arena=arena_path, memory=4 << 20)
    assert arena_path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="exists"):
        open_store(arena=arena_path)
    store.close()
    assert not arena_path.exists()


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Sets how far files of this process may be written: what lies past it fails as on a broken disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("where", ["write", "allocation"])
def test_a_failing_disk_takes_the_partition_offline(
    open_store: Callable[..., LocalStore],
    tmp_path: Path,
    file_limit: Callable[[int], None],
    capfd: pytest.CaptureFixture[str],
    where: str,
) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    other = store.open(tmp_path / "u-0", partition=1)
    for i in range(10):
        assert log.append(batch(1, 50_000), (-1, 1)[i % 2]).base_offset == i
    assert other.append(batch()).error == 0
    file_limit(log.positions.bytes if where == "write" else 2 << 20)
    pending = [log.submit(batch(1, 50_000), (-1, 1)[i % 2]) for i in range(60)]
    watch = log.watch(1000)
    results = [one.result() for one in pending]
    kept = sum(r.error == 0 for r in results)
    assert [r[:2] for r in results] == [(0, 10 + i) for i in range(kept)] + [(STORAGE_ERROR, -1)] * (60 - kept)
    assert log.positions.offline == STORAGE_ERROR
    assert log.positions.log_end == log.positions.high_watermark
    store.run()
    assert watch.fired
    assert log.append(batch()).error == STORAGE_ERROR
    assert log.read(0).error == STORAGE_ERROR
    assert log.find_time(0).error == STORAGE_ERROR
    assert store.stats()["offline"] == 1
    assert other.append(batch()).error == 0
    assert "goes offline" in capfd.readouterr().err
    with pytest.raises(LogError, match="offline"):
        log.close()
    log = store.open(tmp_path / "t-0")
    assert log.positions.log_end >= 10 + kept
    assert len(split(read_all(log, 0))) == log.positions.log_end
    store.close()


@pytest.mark.root("mounts a small tmpfs")
def test_a_full_disk(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Appends fail without taking the partition offline; reads go on; with room again, appends go on by themselves."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], check=False, capture_output=True).returncode:
        pytest.skip("this host lets nobody mount")
    try:
        store = open_store()
        log = store.open(small / "t-0")
        filler = small / "filler"
        filler.write_bytes(bytes(1 << 20))
        count = 0
        while log.append(batch(1, 50_000), 1).error == 0:
            count += 1
            assert count < 100
        assert log.positions.offline == 0
        assert log.positions.log_end == count
        assert len(split(read_all(log, 0))) == count
        assert log.append(batch(1, 50_000)).error == STORAGE_ERROR
        filler.unlink()
        assert log.append(batch(1, 50_000))[:2] == (0, count)
        store.close()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.root("mounts a ramfs")
def test_without_direct_io(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """Where there is neither O_DIRECT nor fallocate: written through the page cache and flushed."""
    place = tmp_path / "ramfs"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", place], check=False, capture_output=True).returncode:
        pytest.skip("this host lets nobody mount")
    try:
        expected = Expected()
        for clean in (False, True, False):
            store = open_store(memory=1 << 20)
            log = store.open(place / "t-0", segment_bytes=300_000, clean=clean)
            assert log.opened.lost_bytes == 0
            for i in range(60):
                data = batch(1, 1 + (i * 7919) % 30_000)
                expected.add(data)
                assert log.append(data, (-1, 1)[i % 2]).error == 0
            log.flush()
            check(log, expected)
            store.crash() if clean else store.close()
        store = open_store()
        check(store.open(place / "t-0"), expected)
        store.close()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_no_descriptors_left(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    logs = [store.open(tmp_path / f"t-{i}", partition=i, segment_bytes=20_000) for i in range(3)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for log in logs:
        for _ in range(100):
            log.append(batch(1, 2000), 1)
        for offset in range(0, 100, 9):
            log.read(offset)
    for log in list(logs):
        log.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - len(logs)
    store.close()
