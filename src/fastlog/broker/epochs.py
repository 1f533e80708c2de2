"""Leader epochs over an unclean start: raised durably before anything is appended, all in one transaction, in the topics' records.

The partitions' own leader-epoch-checkpoints follow while clients are served: thousands of them take as long as the rest of a start.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from fastlog.metadata.topics import PREFIX
from fastlog.storage.epochs import save_epochs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastlog._core import DiskSync
    from fastlog.broker.partitions import Partition, Topic
    from fastlog.broker.topics import TopicManager

log = logging.getLogger("fastlog.epochs")
TOGETHER: Final = 512
"""Checkpoints that are written with one pair of flushes. Changes of their topics wait meanwhile."""


async def raise_epochs(
    manager: TopicManager, topics: Sequence[Topic], recovered: Sequence[tuple[Topic, Partition]], syncs: Mapping[str, DiskSync]
) -> int:
    """New epochs for partitions that were not left in order; and the records of topics that were in the making. One transaction. What
    recovery did in the directories that `syncs` has is durable first. Returns how many partitions are offline as that was not to be had.
    Raises StoreError.
    """
    failed = sum(await asyncio.gather(*(_flush(manager, recovered, id_, sync) for id_, sync in syncs.items())))
    changed = {topic.name: topic for topic in topics if topic.made < len(topic.partitions)}
    stale = {id(partition) for _, partition in recovered}
    for topic in topics:
        for partition in topic.partitions:
            if partition.offline is None and (id(partition) in stale or partition.epochs.latest < partition.epoch):
                _begin_epoch(manager, topic, partition, raised=id(partition) in stale)
                changed[topic.name] = topic
    if changed:
        for topic in changed.values():
            if all(p.offline is None for p in topic.partitions[topic.made :]):
                topic.made = len(topic.partitions)
        revision = await manager.store.write(
            {PREFIX + name: topic.record().encode() for name, topic in changed.items()},
            {PREFIX + name: topic.revision for name, topic in changed.items()},
        )
        for topic in changed.values():
            topic.revision = revision
    await asyncio.gather(*(manager.plane.set_leader_epoch(topic.topic_id, p.index, p.epoch) for topic, p in recovered))
    return failed


async def _flush(manager: TopicManager, recovered: Iterable[tuple[Topic, Partition]], directory_id: str, sync: DiskSync) -> int:
    """Makes durable what recovery left in a data directory. Where that fails its partitions are offline; returns how many."""
    try:
        await asyncio.to_thread(sync.sync)
    except OSError as error:
        found = [(topic, p) for topic, p in recovered if p.directory_id == directory_id]
        for topic, partition in found:
            name = f"{topic.name}-{partition.index}"
            log.error("partition %s is offline: what its recovery wrote is not durable: %s", name, error.strerror)
            await manager.plane.fail_partition(topic.topic_id, partition.index, error.errno or errno.EIO)
        return len(found)
    return 0


def _begin_epoch(manager: TopicManager, topic: Topic, partition: Partition, *, raised: bool) -> None:
    at = manager.plane.positions(topic.topic_id, partition.index)
    assert at is not None
    if raised:
        partition.epoch = max(partition.epoch, at.leader_epoch) + 1  # the log may know of more than metadata that were made anew
    partition.epochs.truncate_end(at.log_end)
    if not partition.epochs.entries and at.log_end > at.log_start:
        partition.epochs.assign(max(partition.epoch - 1, 0), at.log_start)  # there was no checkpoint: one epoch wrote all
    partition.epochs.assign(partition.epoch, at.log_end)


class EpochFiles:
    """Writes the checkpoints of partitions whose newest epochs are in their topics' records only. Belongs to the event loop's thread."""

    def __init__(self, manager: TopicManager, syncs: Mapping[str, DiskSync]) -> None:
        """`syncs`: the data directories, by id, in which one flush does for many files."""
        self._manager = manager
        self._syncs = syncs
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Returns soon: what is not written stays in the records, where the next start finds it."""
        self._ending = True
        await self.done()

    async def done(self) -> None:
        """Returns when all are written, or could not be."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        found: defaultdict[str, list[tuple[Topic, Partition]]] = defaultdict(list)
        for topic in self._manager.all():
            for partition in topic.partitions[: topic.made]:
                if partition.offline is None and partition.epochs.latest > partition.saved:
                    found[partition.directory_id].append((topic, partition))
        for directory_id, some in found.items():
            for at in range(0, len(some), TOGETHER):
                if self._ending:
                    return
                await self._save(self._syncs.get(directory_id), some[at : at + TOGETHER])

    async def _save(self, sync: DiskSync | None, some: Sequence[tuple[Topic, Partition]]) -> None:
        async with self._manager.hold(*{topic.name for topic, _ in some}):
            left = [
                (str(p.directory.partition_path(topic.name, p.index)), p)
                for topic, p in some
                if p.directory is not None and self._manager.by_id(topic.topic_id) is topic
            ]

            def save() -> None:
                if sync is not None:
                    save_epochs({path: p.epochs for path, p in left}, sync.sync)
                    return
                for path, p in left:
                    p.epochs.save(path)

            try:
                await asyncio.to_thread(save)
            except OSError as error:
                log.error("leader epochs stay in the metadata only: %s", error)
                return
            for _, partition in left:
                partition.saved = partition.epochs.latest
