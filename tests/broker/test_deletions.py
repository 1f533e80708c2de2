"""Deleted topics and kills: whichever step of a deletion was the last, the next start finishes it, and nothing of it is found later."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import threading
import time
from contextlib import suppress
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlog.broker import cleaner
from fastlog.client import Admin, ClientError, Producer
from fastlog.metadata.sqlite import SqliteStore
from fastlog.storage import placement
from fastlog.storage.compaction import CHECKPOINT, load_clean_ends, save_clean_ends
from fastlog.storage.directory import LOG_STARTS, DataDirectory
from tests.broker.fake_plane import FakeDisk, FakePlane
from tests.broker.running import running

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.conftest import Start


class CrashError(BaseException):
    """From here on nothing is done any more."""


class Steps:
    """Counts what a deletion does to the disk, the metadata and the data plane; at number `last` the process is gone."""

    CALLS = (
        (SqliteStore, "write"),
        (FakePlane, "unpublish_topic"),
        (FakePlane, "delete_partition"),
        (cleaner, "save_clean_ends"),
        (placement, "sync_directory"),
        (Path, "rename"),
        (DataDirectory, "save_log_starts"),
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self._left = last
        self._lock = threading.Lock()
        self.crashed = False
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))
        monkeypatch.setattr(shutil, "rmtree", self._half_removed(shutil.rmtree))

    def _step(self) -> None:
        with self._lock:
            self.crashed = self.crashed or self._left == 0
            self._left -= 1
        if self.crashed:
            raise CrashError

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(real):

            @wraps(real)
            async def later(*arguments: Any) -> Any:
                self._step()
                return await real(*arguments)

            return later

        @wraps(real)
        def now(*arguments: Any) -> Any:
            self._step()
            return real(*arguments)

        return now

    def _half_removed(self, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def remove(path: Any) -> None:
            self._step()
            for file in sorted(Path(path).iterdir())[:1]:
                file.unlink()
            self._step()
            real(path)

        return remove


def test_every_step_of_a_deletion_may_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(data: Path, steps: int) -> bool:
        """Whether the deletion came to its end before."""
        disk = FakeDisk()
        async with running(data, disk=disk) as broker:
            await broker.create("t", 3)
            await broker.append("t", 1, 5)
            (topic,) = (await broker.call("DeleteRecords", topics=[_from("t", 1, 2)], timeout_ms=1000))["topics"]
            assert topic["partitions"][0]["error_code"] == 0
            for file in ("00000000000000000000.log", "00000000000000000000.index"):
                (data / "t-1" / file).write_bytes(b"")
        save_clean_ends(data, {("t", 1): 4})
        async with running(data, disk=disk, kill=True) as broker:
            doomed = broker.topics.get("t")
            assert doomed is not None
            with monkeypatch.context() as patch:
                crash = Steps(patch, steps)
                deletion = asyncio.ensure_future(broker.topics.delete(doomed))
                await asyncio.wait({deletion}, timeout=60)
                assert deletion.done()
                if not crash.crashed:
                    deletion.result()
                else:
                    assert isinstance(deletion.exception(), CrashError)
        disk.logs = {path: log for path, log in disk.logs.items() if Path(path).exists()}  # noqa: ASYNC240
        async with running(data, disk=disk) as broker:
            if steps == 0:
                assert broker.topics.get("t") is not None  # it was never said to be deleted
                return False
            assert broker.topics.get("t") is None
            assert not list(data.glob("t-*"))  # noqa: ASYNC240
            assert (await broker.create("t", 3))["error_code"] == 0
            await broker.append("t", 1, 7)
        async with running(data, disk=disk) as broker:
            topic = broker.topics.get("t")
            at = broker.plane.positions(topic.topic_id, 1) if topic is not None else None
            assert at is not None
            assert (at.log_start, at.log_end) == (0, 7)
            assert (data / LOG_STARTS).read_text() == "0\n0\n"
        assert load_clean_ends(data) == {}, CHECKPOINT
        return not crash.crashed

    assert any(asyncio.run(run(tmp_path / f"{steps}", steps)) for steps in range(100))


def _from(topic: str, partition: int, offset: int) -> dict[str, Any]:
    return {"name": topic, "partitions": [{"partition_index": partition, "offset": offset}]}


def test_topics_are_whole_or_gone_after_a_kill(start_broker: Start, engine: str, fresh_name: str) -> None:
    """kill -9 while topics are deleted, their partitions being closed, renamed and removed on worker threads."""
    broker = start_broker(io=engine)
    rng = random.Random(5)
    names = [f"{fresh_name}-{i}" for i in range(4)]
    with Admin(bootstrap_servers=broker.bootstrap) as admin:
        for name in names:
            admin.create_topic(name, 12)
    with Producer(bootstrap_servers=broker.bootstrap) as producer:
        for name, partition, _ in itertools.product(names, range(12), range(3)):
            producer.send(name, b"x" * 100, partition=partition)
    for doomed in names[:3]:
        begun = threading.Event()

        def delete(topic: str = doomed, begun: threading.Event = begun) -> None:
            with suppress(ClientError, OSError), Admin(bootstrap_servers=broker.bootstrap) as admin:
                begun.set()
                admin.delete_topic(topic)

        deleting = threading.Thread(target=delete)
        deleting.start()
        begun.wait(30)
        time.sleep(rng.uniform(0, 0.06))
        broker.kill()
        broker.start()
        deleting.join()
        with Admin(bootstrap_servers=broker.bootstrap) as admin:
            there = {topic.name: topic for topic in admin.topics()}
            left = {path.name.rpartition("-")[0] for path in broker.data.iterdir() if path.is_dir()}
            for name in names:
                if name in there:
                    assert admin.end_offsets([(name, p) for p in range(12)]) == {(name, p): 3 for p in range(12)}
                else:
                    assert name in names[:3]
                    assert not any(name in directory for directory in left)
    assert names[3] in there
