"""Watches the disks under the data directories: one that is nearly full takes no more records, one that has failed goes offline.

A full disk stops producers only, and only those that need more space: what is below the reserve (fastlog.disk.reserve.bytes) is left to
deletions, retention, metadata and committed offsets, and reads need none. Once there is room again, producers go on by themselves.
A failed disk takes its own partitions offline, until the broker is started again; those on other disks go on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

from fastlog.storage.disk import Space, give_back, measure, probe, reserve_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from fastlog.broker.context import Context
    from fastlog.broker.partitions import Partition, Topic
    from fastlog.storage.directory import DataDirectory

log = logging.getLogger("fastlog.disks")
LOOK_S: Final = 0.5
"""Time between two looks at the space that is left."""
PROBE_S: Final = 5.0
"""Time between two probes of a disk on which nothing has failed."""
FULL: Final = 1.125
ROOM: Final = 1.25
"""A disk is called full when less than so many times its reserve are free, and no longer full when so many are."""
SLACK: Final = 2 << 20
"""As if that much more were reserved: what one batch may need."""


class Disks:
    """All methods belong to the event loop's thread."""

    def __init__(self, context: Context, on_full: Callable[[], Awaitable[None]]) -> None:
        """`on_full`: called when a disk became full, to drop what need not be kept."""
        self._context = context
        self._on_full = on_full
        self._task: asyncio.Task[None] | None = None
        self._space: dict[str, Space] = {}
        self._full: set[str] = set()
        self._probed: dict[str, float] = {}
        self._ill: dict[str, int] = {}
        """How many partitions of each directory were offline at the last look."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for directory in list(self._context.topics.directories.values()):
                try:
                    await self.look(directory)
                except Exception:
                    log.exception("looking after %s failed", directory.path)
            await asyncio.sleep(LOOK_S)

    def _partitions(self, directory: DataDirectory) -> Iterator[tuple[Topic, Partition]]:
        for topic in self._context.topics.all():
            for partition in topic.partitions[: topic.made]:
                if partition.directory is directory and partition.offline is None:
                    yield topic, partition

    async def look(self, directory: DataDirectory) -> None:
        """Looks after one disk."""
        if directory.failed is not None:
            return
        plane, now = self._context.plane, asyncio.get_running_loop().time()
        ill = 0
        for topic, partition in self._partitions(directory):
            at = plane.positions(topic.topic_id, partition.index)
            ill += at is not None and at.offline != 0
        try:
            if ill > self._ill.get(directory.id, 0) or now - self._probed.get(directory.id, 0) > PROBE_S:
                await asyncio.to_thread(probe, directory.path, directory.id)
                self._probed[directory.id] = now
            self._ill[directory.id] = ill
            space = await asyncio.to_thread(measure, directory.path)
            reserve = reserve_of(space, self._context.configs.get("fastlog.disk.reserve.bytes"))
            if space.usable < reserve * FULL + SLACK:
                await asyncio.to_thread(give_back, directory.path)
                space = await asyncio.to_thread(measure, directory.path)
        except OSError as error:
            await self._failed(directory, error)
            return
        self._space[directory.id] = space
        if directory.id not in self._full and space.usable < reserve * FULL + SLACK:
            self._full.add(directory.id)
            log.error(
                "%s is full: %d KiB are left, of which %d KiB are reserved (fastlog.disk.reserve.bytes); producers that need more space "
                "get KAFKA_STORAGE_ERROR until there is room, all else goes on",
                *(directory.path, space.usable >> 10, reserve >> 10),
            )
            await self._on_full()
        elif directory.id in self._full and space.usable >= reserve * ROOM + SLACK:
            self._full.discard(directory.id)
            log.warning("%s has room again: %d KiB are left", directory.path, space.usable >> 10)

    async def _failed(self, directory: DataDirectory, error: OSError) -> None:
        partitions = list(self._partitions(directory))
        directory.failed = error.strerror or str(error)
        log.critical(
            "the disk under %s has failed (%s): its %d partitions are offline until the next start; those on other disks go on",
            *(directory.path, directory.failed, len(partitions)),
        )
        for topic, partition in partitions:
            await self._context.plane.fail_partition(topic.topic_id, partition.index, error.errno or errno.EIO)
            topic.listed_ms = None

    def samples(self) -> Iterator[tuple[str, Path, int]]:
        """(name, data directory, value)."""
        for directory in self._context.topics.directories.values():
            space = self._space.get(directory.id, Space(0, 0))
            yield "total_bytes", directory.path, space.total
            yield "usable_bytes", directory.path, space.usable
            yield "full", directory.path, int(directory.id in self._full)
            yield "failed", directory.path, int(directory.failed is not None)
