"""The metadata store: durable, conditional, watched; and what it says of files that it can't use."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fastlog.metadata.sqlite import EVENTS_KEPT, SqliteStore, open_store
from fastlog.metadata.store import ABSENT, CompactedError, ConflictError, CorruptError, Event, NewerFormatError, StoreError


async def _take(store: SqliteStore, prefix: str, after: int, count: int) -> list[Event]:
    events = store.watch(prefix, after)
    return [await asyncio.wait_for(anext(events), 5) for _ in range(count)]


def test_values_and_revisions_survive_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        assert store.revision == 0
        assert await store.get("/a") is None
        assert await store.write({"/a": b"1", "/b/x": b"2", "/b/y": b"3"}) == 1
        assert await store.write({"/b/x": None, "/a": b"4"}) == 2
        await store.close()
        again = await open_store(tmp_path / "m.db")
        assert again.revision == 2
        entry = await again.get("/a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"4", 2)
        assert [(e.key, e.value, e.revision) for e in await again.range("/b/")] == [("/b/y", b"3", 1)]
        await again.close()
        assert sorted(os.fspath(p.name) for p in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))) == ["m.db"], (
            "the log is folded into the file on close"
        )

    asyncio.run(run())


def test_a_compare_that_fails_writes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        first = await store.write({"/a": b"1"}, {"/a": ABSENT})
        with pytest.raises(ConflictError) as caught:
            await store.write({"/a": b"2", "/b": b"2"}, {"/a": ABSENT})
        assert (caught.value.key, caught.value.expected, caught.value.found) == ("/a", ABSENT, first)
        assert await store.get("/b") is None
        assert store.revision == first
        assert await store.write({"/a": b"2"}, {"/a": first, "/b": ABSENT}) == first + 1
        await store.close()

    asyncio.run(run())


def test_of_concurrent_compare_and_sets_one_wins(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        results = await asyncio.gather(*(store.write({"/a": str(i).encode()}, {"/a": ABSENT}) for i in range(20)), return_exceptions=True)
        assert sum(isinstance(r, int) for r in results) == 1
        assert sum(isinstance(r, ConflictError) for r in results) == 19
        await store.close()

    asyncio.run(run())


def test_watch_tells_what_came_after_a_revision(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        await store.write({"/t/a": b"1"})
        seen = store.revision
        await store.write({"/t/b": b"2", "/other": b"x"})
        waiting = asyncio.create_task(_take(store, "/t/", seen, 3))
        await asyncio.sleep(0)
        await store.write({"/t/b": None})
        await store.write({"/t/c": b"3"})
        assert await waiting == [Event("/t/b", b"2", 2), Event("/t/b", None, 3), Event("/t/c", b"3", 4)]
        ended = store.watch("/", store.revision)
        await store.close()
        assert [e async for e in ended] == []

    asyncio.run(run())


def test_watch_from_too_long_ago_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        await store.write({f"/{i}": b"" for i in range(EVENTS_KEPT)})
        await store.write({"/one more": b""})
        with pytest.raises(CompactedError):
            store.watch("/", 0)
        store.watch("/", 1)
        await store.close()
        again = await open_store(tmp_path / "m.db")
        with pytest.raises(CompactedError):
            again.watch("/", 1)
        await again.close()

    asyncio.run(run())


def test_prefixes_end_where_they_should(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        await store.write({"/t": b"", "/t/": b"", "/t/ä": b"", "/t/\U0010fffe": b"", "/t0": b"", "/u": b""})
        assert [e.key for e in await store.range("/t/")] == ["/t/", "/t/ä", "/t/\U0010fffe"]
        await store.close()

    asyncio.run(run())


_WRITER = """
import asyncio, sys
from pathlib import Path
from fastlog.metadata.sqlite import open_store
async def main():
    store = await open_store(Path(sys.argv[1]))
    i = 0
    while True:
        i += 1
        await store.write({"/n": str(i).encode(), "/copy": str(i).encode()})
        print(i, flush=True)
asyncio.run(main())
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        acknowledged = int((lines + [line for line in writer.stdout if line.endswith("\n")])[-1])

    async def read() -> tuple[int, int]:
        store = await open_store(path)
        n, copy = await store.get("/n"), await store.get("/copy")
        await store.close()
        assert n is not None
        assert copy is not None
        return int(n.value), int(copy.value)

    n, copy = asyncio.run(read())
    assert n == copy
    assert n >= acknowledged >= 50


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def make() -> None:
        await (await open_store(path)).close()

    asyncio.run(make())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(NewerFormatError, match=r"format 99.*newer fastlog"):
        asyncio.run(open_store(path))


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 20, b"x"])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"m\.db.*damaged"):
        asyncio.run(open_store(path))
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    with pytest.raises(CorruptError, match="something else"):
        asyncio.run(open_store(path))


def test_damage_is_found_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def make() -> None:
        store = await open_store(path)
        await store.write({f"/{i:05}": os.urandom(200) for i in range(500)})
        await store.close()

    asyncio.run(make())
    data = bytearray(path.read_bytes())
    for at in range(8192, len(data), 4096):
        data[at : at + 100] = os.urandom(100)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="damaged"):
        asyncio.run(open_store(path))


def test_a_second_opener_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path / "m.db")
        await store.write({"/a": b""})
        with pytest.raises(StoreError, match="in use"):
            await open_store(tmp_path / "m.db")
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.get("/a")

    asyncio.run(run())
