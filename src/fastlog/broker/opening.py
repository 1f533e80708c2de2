"""A start: every partition that the metadata knows is opened, what a crash left half done is finished, epochs are raised where needed.

Nothing here is ever deleted but what is known to be rubbish: partitions that were in the making (no client could write to them yet) and
what a deletion left. Directories that no topic owns are named in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastlog._core import DiskSync
from fastlog.broker.epochs import EpochFiles, raise_epochs
from fastlog.broker.partitions import Partition, Topic
from fastlog.metadata.topics import PREFIX, TopicRecord, decode_topic
from fastlog.protocol.errors import Error
from fastlog.storage.epochs import load_epochs
from fastlog.storage.files import DamagedFileError
from fastlog.storage.flushes import synced_whole
from fastlog.storage.placement import Placement, remove_partition, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastlog.broker.plane import OpenResult
    from fastlog.broker.topics import TopicManager
    from fastlog.storage.directory import DataDirectory

log = logging.getLogger("fastlog.opening")
TOGETHER_MIN = 256
"""From so many logs of a data directory on, of which the ends are searched for, one flush of the file system does for all. (It also waits
for what other programs wrote there, so it is not worth it for a few.)"""


@dataclass(slots=True)
class Opened:
    """What a start found, for the operator."""

    topics: int = 0
    partitions: int = 0
    recovered: int = 0
    """Partitions whose end had to be searched for."""
    cut: int = 0
    """Of these, those that had bytes past the end that was found."""
    lost_bytes: int = 0
    arena_bytes: int = 0
    """Taken over from the memory of a process that was killed."""
    offline: int = 0


async def open_topics(manager: TopicManager) -> Opened:
    """Opens all topics, so that they may be published. Raises CorruptError, StoreError, OSError."""
    entries = await manager.store.range(PREFIX)
    topics: list[Topic] = []
    gone: list[tuple[Topic, TopicRecord]] = []
    for entry in entries:
        name = entry.key.removeprefix(PREFIX)
        record = decode_topic(name, entry.value)
        topic = Topic(name, record.topic_id, [], record.configs, entry.revision, record.made)
        topic.partitions = [
            Partition(index, p.directory, manager.directories.get(p.directory), p.epoch) for index, p in enumerate(record.partitions)
        ]
        for partition in topic.partitions:
            for epoch, start in record.epochs.get(partition.index, ()):
                partition.epochs.assign(epoch, start)
        if record.deleting:
            gone.append((topic, record))
        else:
            topics.append(topic)
    directories = list(manager.directories.values())
    manager.placement = Placement(directories, (p.directory_id for topic in topics for p in topic.partitions))
    await _finish_deletions(manager, [topic for topic, _ in gone])
    await asyncio.gather(*(asyncio.to_thread(_survey, directory, topics) for directory in directories))
    found = [(topic, partition) for topic in topics for partition in topic.partitions]
    syncs = await asyncio.to_thread(_syncs, directories, [partition for _, partition in found])
    await asyncio.gather(*(asyncio.to_thread(_load_epochs, directory, found) for directory in directories))
    for topic in topics:
        topic.pushed = None, manager.configs.log_settings(topic.configs, internal=topic.internal)
    results = await asyncio.gather(
        *(_open(manager, topic, partition, together=partition.directory_id in syncs) for topic, partition in found)
    )
    opened = Opened(topics=len(topics), partitions=len(found))
    recovered: list[tuple[Topic, Partition]] = []
    for (topic, partition), result in zip(found, results, strict=True):
        _count(opened, topic, partition, result)
        if result.recovered and partition.offline is None:
            recovered.append((topic, partition))
    opened.offline += await raise_epochs(manager, topics, recovered, syncs)
    await _restore_log_starts(manager, topics, directories)
    for topic in topics:
        manager.add(topic)
        await manager.push(topic)
    manager.epoch_files = EpochFiles(manager, syncs)
    return opened


def _syncs(directories: Iterable[DataDirectory], partitions: Iterable[Partition]) -> dict[str, DiskSync]:
    """The data directories, by id, in which one flush does for all logs. Blocks."""
    count = Counter(p.directory_id for p in partitions if p.directory is not None and not p.directory.clean)
    syncs = {}
    for directory in directories:
        with contextlib.suppress(OSError):  # then each log has flushes of its own
            if count[directory.id] >= TOGETHER_MIN and synced_whole(directory.path):
                syncs[directory.id] = DiskSync(directory.path)
    return syncs


def _load_epochs(directory: DataDirectory, partitions: Iterable[tuple[Topic, Partition]]) -> None:
    """Reads the epochs of all partitions in a data directory. Blocks."""
    for topic, partition in partitions:
        if partition.directory is not directory or partition.index >= topic.made:
            continue
        try:
            epochs = load_epochs(str(directory.partition_path(topic.name, partition.index)))
        except (DamagedFileError, OSError) as error:
            log.warning("%s; the partition goes on with the epoch that the metadata has", error)
        else:
            partition.saved = epochs.latest
            for epoch, start in partition.epochs.entries:  # of the topic's record
                if epoch > partition.saved:
                    epochs.assign(epoch, start)
            partition.epochs = epochs
        partition.epoch = max(partition.epoch, partition.epochs.latest)


async def _open(manager: TopicManager, topic: Topic, partition: Partition, *, together: bool) -> OpenResult:
    assert topic.pushed is not None
    settings = topic.pushed[1]
    if partition.directory is None:
        return await manager.open(topic, partition, settings, create=False)  # says which is missing
    path = partition.directory.partition_path(topic.name, partition.index)
    if partition.index >= topic.made:
        await asyncio.to_thread(remove_partition, path)  # nobody could write to it yet
        return await manager.open(topic, partition, settings, create=True)
    return await manager.open(topic, partition, settings, create=False, together=together)


def _count(opened: Opened, topic: Topic, partition: Partition, result: OpenResult) -> None:
    name = f"{topic.name}-{partition.index}"
    if result.error:
        partition.offline = result.why
        opened.offline += 1
        log.error("partition %s is offline: %s", name, result.why)
        return
    opened.recovered += result.recovered
    opened.arena_bytes += result.arena_bytes
    if result.lost_bytes:
        opened.cut += 1
        opened.lost_bytes += result.lost_bytes
        log.warning("partition %s: %d bytes past its end were no part of the log and are gone: %s", name, result.lost_bytes, result.why)


async def _restore_log_starts(manager: TopicManager, topics: Sequence[Topic], directories: Sequence[DataDirectory]) -> None:
    """Logs from which records were deleted begin where they did."""
    by_name = {topic.name: topic for topic in topics}
    for directory in directories:
        try:
            starts = await asyncio.to_thread(directory.load_log_starts)
        except DamagedFileError as error:
            log.error("%s; logs begin with their first segment", error)
            continue
        kept = manager.log_starts.setdefault(directory.id, {})
        for (name, index), noted in starts.items():
            topic = by_name.get(name)
            if topic is None or index >= topic.made or topic.partitions[index].directory is not directory:
                continue
            at = manager.plane.positions(topic.topic_id, index)
            # Past the end: records that were not yet durable were deleted, and then lost. What comes at their offsets now was not deleted.
            offset = noted if at is None else min(noted, at.log_end)
            if offset < noted:
                log.warning("partition %s-%d began at %d, past the end that was found: it begins at %d", name, index, noted, offset)
            kept[name, index] = offset
            if at is not None and at.log_start < offset:
                result = await manager.plane.delete_records(topic.topic_id, index, offset)
                if result.error:
                    log.error("partition %s-%d: its log start %d is not restored: %s", name, index, offset, Error(result.error).name)
        if kept != starts:  # of topics that are gone too: a later one of the same name must not find them
            await asyncio.to_thread(directory.save_log_starts, kept)


async def _finish_deletions(manager: TopicManager, topics: Sequence[Topic]) -> None:
    for topic in topics:
        log.info("finishing the deletion of topic %s", topic.name)
        for partition in topic.partitions:
            if partition.directory is not None:
                await asyncio.to_thread(remove_partition, partition.directory.partition_path(topic.name, partition.index))
    if topics:
        await manager.store.write(
            {PREFIX + topic.name: None for topic in topics}, {PREFIX + topic.name: topic.revision for topic in topics}
        )


def _survey(directory: DataDirectory, topics: Sequence[Topic]) -> None:
    """Removes what deletions left, names what nobody owns. Blocks. Raises OSError."""
    known = {f"{topic.name}-{p.index}" for topic in topics for p in topic.partitions if p.directory is directory}
    strange, left = survey(directory, known)
    for name in left:
        remove_partition(directory.path / name)
    for name in strange:
        log.warning("%s belongs to no topic; it is left as it is", directory.path / name)
