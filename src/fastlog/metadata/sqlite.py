"""The metadata store of one node: a SQLite file in the first data directory.

Journal: WAL with synchronous=FULL and an exclusive lock. A commit is then one write and one fsync of the log (a rollback journal needs
three and changes the directory twice), durable when it returns, and there is no shared-memory file. SQLite syncs the directory when it
makes the log file; the directory entry of the database itself is synced here. All access is from one thread of the store's own, since
a commit waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from fastlog.metadata.store import ABSENT, CompactedError, ConflictError, CorruptError, Entry, Event, NewerFormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

FORMAT: Final = 1
"""PRAGMA user_version. A release reads its own format and older ones (and upgrades them in one transaction), and refuses newer ones."""
APPLICATION_ID: Final = 0x666C6F67  # "flog": file(1) and we tell it from any other SQLite file by this
EVENTS_KEPT: Final = 1024
MAGIC: Final = b"SQLite format 3\0"
RESTORE: Final = "restore the file from a backup, or see `fastlog log repair --metadata`"

T = TypeVar("T")


def _below(prefix: str) -> str:
    """The first key after all that start with `prefix`."""
    return prefix + "\U0010ffff"


class SqliteStore:
    """See MetadataStore. Made by `open_store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor, revision: int) -> None:
        self._path = path
        self._db = connection
        self._thread = thread
        self._revision = revision
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._forgotten = revision  # events up to this revision are not in _events
        self._watchers: set[asyncio.Queue[Event | None]] = set()
        self._closed = False

    @property
    def path(self) -> Path:
        return self._path

    @property
    def revision(self) -> int:
        return self._revision

    async def _run(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(f"{self._path} is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except sqlite3.Error as error:
            raise _explained(self._path, error) from error

    async def get(self, key: str) -> Entry | None:
        def read() -> Entry | None:
            row = self._db.execute("SELECT key, value, revision FROM entries WHERE key = ?", (key,)).fetchone()
            return None if row is None else Entry(*row)

        return await self._run(read)

    async def range(self, prefix: str) -> Sequence[Entry]:
        def read() -> list[Entry]:
            rows = self._db.execute(
                "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key", (prefix, _below(prefix))
            )
            return [Entry(*row) for row in rows]

        return await self._run(read)

    async def write(self, changes: Mapping[str, bytes | None], expect: Mapping[str, int] | None = None) -> int:
        def commit() -> int:
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                for key, wanted in (expect or {}).items():
                    row = db.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
                    found = ABSENT if row is None else int(row[0])
                    if found != wanted:
                        raise ConflictError(key, wanted, found)
                revision = self._revision + 1
                for key, value in changes.items():
                    if value is None:
                        db.execute("DELETE FROM entries WHERE key = ?", (key,))
                    else:
                        db.execute("INSERT OR REPLACE INTO entries (key, value, revision) VALUES (?, ?, ?)", (key, value, revision))
                db.execute("UPDATE head SET revision = ?", (revision,))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._revision = revision  # in this thread: the next transaction may start before the event loop hears of this one
            return revision

        changes = dict(changes)
        revision = await self._run(commit)
        for key, value in changes.items():
            self._tell(Event(key, value, revision))
        return revision

    def _tell(self, event: Event) -> None:
        if len(self._events) == self._events.maxlen:
            self._forgotten = self._events[0].revision
        self._events.append(event)
        for queue in self._watchers:
            queue.put_nowait(event)

    def watch(self, prefix: str, after: int) -> AsyncIterator[Event]:
        if after < self._forgotten:
            raise CompactedError(f"changes after revision {after} are not kept, only those after {self._forgotten}")
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in self._events:
            queue.put_nowait(event)
        if self._closed:
            queue.put_nowait(None)
        self._watchers.add(queue)
        return self._watch(queue, prefix, after)

    async def _watch(self, queue: asyncio.Queue[Event | None], prefix: str, after: int) -> AsyncIterator[Event]:
        try:
            while (event := await queue.get()) is not None:
                if event.revision > after and event.key.startswith(prefix):
                    yield event
        finally:
            self._watchers.discard(queue)

    async def close(self) -> None:
        """Ends all watches. The log is written back into the file, which is then whole by itself."""
        if self._closed:
            return
        await self._run(self._db.close)
        self._closed = True
        self._thread.shutdown()
        for queue in self._watchers:
            queue.put_nowait(None)


def _explained(path: Path, error: sqlite3.Error) -> StoreError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptError(f"the metadata in {path} is damaged ({error}): {RESTORE}; the records beside it are not affected")
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(f"the metadata in {path} is in use by another process")
    return StoreError(f"the metadata in {path}: {error}")


async def open_store(path: Path) -> SqliteStore:
    """Opens the store, or makes it. Raises NewerFormatError, CorruptError, StoreError."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="metadata")
    try:
        connection, revision = await asyncio.get_running_loop().run_in_executor(thread, _open, path)
    except BaseException:
        thread.shutdown()
        raise
    return SqliteStore(path, connection, thread, revision)


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    fresh = not path.exists()
    if not fresh:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
        if head and head != MAGIC:  # SQLite would take a file of a few bytes for an empty database
            raise CorruptError(f"the metadata in {path} is damaged (not a database): {RESTORE}")
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        revision = _prepare(path, db)
        if fresh:
            _sync_directory(path.parent)
    except sqlite3.Error as error:
        db.close()
        raise _explained(path, error) from error
    except BaseException:
        db.close()
        raise
    return db, revision


def _prepare(path: Path, db: sqlite3.Connection) -> int:
    """Checks what is there, or makes the tables. Returns the revision."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if version > FORMAT and owner == APPLICATION_ID:
        raise NewerFormatError(f"{path} has metadata format {version}; this release reads formats up to {FORMAT}: use a newer fastlog")
    if tables == 0:
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID")
        db.execute("CREATE TABLE head (revision INTEGER NOT NULL)")
        db.execute("INSERT INTO head VALUES (0)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")
        return 0
    if owner != APPLICATION_ID:
        raise CorruptError(f"{path} is a SQLite file of something else (application id {owner:#x})")
    check = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if check != "ok":
        raise CorruptError(f"the metadata in {path} is damaged ({check}): {RESTORE}")
    row = db.execute("SELECT revision FROM head").fetchone()
    if row is None:
        raise CorruptError(f"the metadata in {path} has lost its revision: restore the file from a backup")
    return int(row[0])


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
