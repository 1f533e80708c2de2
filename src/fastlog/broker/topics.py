"""The topic manager: what topics there are, and how they come, change and go.

Order of a creation: the record is durable in the metadata store, then the partitions' directories are made, then the record says that
they are, durably, then clients see the topic, then the request is answered. Of a deletion: the record says that it is being deleted,
then clients no longer see it, then the data goes, then the record. A start finishes what a crash left in between (`opening`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

from fastlog.broker.partitions import Partition, Topic
from fastlog.broker.plane import DeleteRecordsResult, OpenResult, PartitionSpec
from fastlog.broker.topic_names import CLUSTER_METADATA, INTERNAL, collision_key, why_invalid
from fastlog.config.keys import ConfigError
from fastlog.config.topic import check_topic_config
from fastlog.metadata.store import ABSENT, StoreError
from fastlog.metadata.topics import PREFIX, TopicRecord
from fastlog.protocol.errors import Error, KafkaError
from fastlog.storage.placement import Placement, remove_partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fastlog.broker.configs import ConfigManager
    from fastlog.broker.epochs import EpochFiles
    from fastlog.broker.plane import LogSettings, Plane
    from fastlog.metadata.store import MetadataStore
    from fastlog.storage.directory import DataDirectory

log = logging.getLogger("fastlog.topics")
PARTITIONS_PER_REQUEST_MAX = 10_000
OPENING_MAX = 256
"""Partitions that are opened, closed or deleted at the same time."""


class TopicListener(Protocol):
    def __call__(self, name: str, *, created: bool) -> None: ...


class TopicManager:
    """All methods belong to the event loop's thread."""

    def __init__(
        self, plane: Plane, store: MetadataStore, configs: ConfigManager, directories: Sequence[DataDirectory], node_id: int
    ) -> None:
        self.directories = {directory.id: directory for directory in directories}
        self.missing_directories: Sequence[Path] = ()
        """Those that were given and can't be used."""
        self.node_id = node_id
        self.plane = plane
        self.store = store
        self.configs = configs
        self.placement = Placement(directories, ())
        self.epoch_files: EpochFiles | None = None
        """Of the start."""
        self._topics: dict[str, Topic] = {}
        self._by_id: dict[UUID, Topic] = {}
        self._collisions: dict[str, str] = {}
        self.changes = 0
        """Grows whenever a topic comes, goes or gets more partitions."""
        self._held: dict[str, asyncio.Future[None]] = {}
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self.log_starts: dict[str, dict[tuple[str, int], int]] = {}
        """By data directory's id: the logs that begin inside a segment, as its checkpoint has them."""
        self._saving_starts = asyncio.Lock()
        self._on_delete: list[Callable[[str], None]] = []
        self._on_change: list[TopicListener] = []
        self._on_deleting: list[Callable[[Topic], Awaitable[None]]] = []
        configs.on_change(self._push_all)

    # ---- reading ----

    def get(self, name: str) -> Topic | None:
        """The topic of that name that clients see."""
        return self._topics.get(name)

    find = get

    def by_id(self, topic_id: UUID) -> Topic | None:
        return self._by_id.get(topic_id)

    def all(self) -> Iterator[Topic]:
        """All topics that clients see, by name."""
        return iter([self._topics[name] for name in sorted(self._topics)])

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def version(self) -> int:
        """Of all that is known of topics: grows with every change, over restarts too."""
        return self.store.revision

    def on_change(self, listener: TopicListener) -> None:
        """To be called when a topic came, got more partitions, or is not seen by clients any more."""
        self._on_change.append(listener)

    def _changed(self, name: str, *, created: bool = False) -> None:
        for listener in self._on_change:
            listener(name, created=created)

    def on_delete(self, listener: Callable[[str], None]) -> None:
        """To be called with the name of each topic that was deleted."""
        self._on_delete.append(listener)

    def on_deleting(self, listener: Callable[[Topic], Awaitable[None]]) -> None:
        """To be called, and waited for, before the data of a topic goes."""
        self._on_deleting.append(listener)

    # ---- one change of a topic at a time ----

    @contextlib.asynccontextmanager
    async def hold(self, *names: str) -> AsyncIterator[None]:
        """Keeps other changes of topics of these names (and of those they collide with) out."""
        keys = {collision_key(name) for name in names}
        while waiting := [self._held[key] for key in keys if key in self._held]:
            await asyncio.wait(waiting)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._held[key] = done
        try:
            yield
        finally:
            for key in keys:
                del self._held[key]
            done.set_result(None)

    # ---- creating ----

    def check_new(self, name: str) -> None:
        """Raises KafkaError when no topic of that name may be created."""
        if name == CLUSTER_METADATA:
            raise KafkaError(Error.INVALID_REQUEST, f"Creation of internal topic {name} is prohibited.")
        why = why_invalid(name)
        if why is not None:
            raise KafkaError(Error.INVALID_TOPIC_EXCEPTION, why)
        if name in self._topics:
            raise KafkaError(Error.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        other = self._collisions.get(collision_key(name))
        if other is not None:
            raise KafkaError(Error.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {other}")

    def check_configs(self, configs: Mapping[str, str]) -> None:
        """Raises KafkaError when a topic can't have these settings."""
        try:
            check_topic_config(dict(configs))
        except ConfigError as error:
            raise KafkaError(Error.INVALID_CONFIG, str(error)) from None

    async def create(self, name: str, partitions: int, configs: Mapping[str, str], *, validate_only: bool = False) -> Topic | None:
        """The new topic; None when it was only to be checked. Raises KafkaError; then there is no such topic, nor will be."""
        if partitions > PARTITIONS_PER_REQUEST_MAX:
            raise KafkaError(Error.POLICY_VIOLATION, "Excessively large number of partitions per request.")
        if partitions <= 0:
            raise KafkaError(Error.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
        async with self.hold(name):
            self.check_new(name)
            self.check_configs(configs)
            if validate_only:
                return None
            topic = Topic(name, uuid4(), [], dict(configs))
            self._place(topic, partitions)
            try:
                await self._save(topic, topic.record())
            except BaseException:
                self._unplace(topic, 0)
                raise
            try:
                await self._make(topic)
            except KafkaError:
                await self._remove(topic)
                raise
            self.add(topic)
            self._changed(name, created=True)
            return topic

    async def ensure_internal_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        """The topic, created unless it exists. Raises KafkaError."""
        topic = self.get(name)
        while topic is None:
            try:
                topic = await self.create(name, partitions, configs)
            except KafkaError as error:
                if error.code != Error.TOPIC_ALREADY_EXISTS:
                    raise
                topic = self.get(name)
        return topic

    async def auto_create(self, name: str) -> Topic | None:
        """The topic that a client asked for and that was not there; None when the broker's settings say no. Raises KafkaError."""
        if not self.configs.get("auto.create.topics.enable") or name in INTERNAL or name == CLUSTER_METADATA:
            return None
        try:
            return await self.create(name, self.configs.get("num.partitions"), {})
        except KafkaError as error:
            if error.code == Error.TOPIC_ALREADY_EXISTS:
                return self.get(name)
            raise

    def _place(self, topic: Topic, count: int) -> None:
        """Adds partitions up to `count`, each in a data directory. Raises KafkaError; then there are as many as before."""
        self.placement.refresh()
        before = len(topic.partitions)
        for index in range(before, count):
            directory = self.placement.choose()
            topic.partitions.append(Partition(index, directory.id, directory, epoch=0))
            path = directory.partition_path(topic.name, index)
            if path.exists():  # nobody's, so not ours to write into, nor to remove
                self._unplace(topic, before)
                raise KafkaError(Error.KAFKA_STORAGE_ERROR, f"{path} is there already and belongs to no topic: move it away")

    def _unplace(self, topic: Topic, count: int) -> None:
        """Takes back the partitions from `count` on."""
        for partition in topic.partitions[count:]:
            self.placement.count(partition.directory_id, -1)
        del topic.partitions[count:]

    async def _make(self, topic: Topic) -> None:
        """Makes the partitions that are not yet made, and shows the topic to clients. Raises KafkaError."""
        rules, settings = self.configs.batch_rules(topic.configs), self.configs.log_settings(topic.configs, internal=topic.internal)
        new = topic.partitions[topic.made :]
        results = await asyncio.gather(*(self.open(topic, partition, settings, create=True) for partition in new))
        for partition, result in zip(new, results, strict=True):
            if result.error:
                why = f"partition {topic.name}-{partition.index} can't be made: {result.why}"
                log.error(why)
                raise KafkaError(Error.KAFKA_STORAGE_ERROR, why)
        await self._save(topic, topic.record(made=len(topic.partitions)))
        topic.made = len(topic.partitions)
        topic.listed_ms = None
        self.changes += 1
        await self.plane.publish_topic(topic.name, topic.topic_id, topic.made, rules, topic.internal)
        topic.pushed = rules, settings

    async def open(self, topic: Topic, partition: Partition, settings: LogSettings, *, create: bool, together: bool = False) -> OpenResult:
        """Opens one partition in the data plane, or makes it. What fails is in the result. `together`: see PartitionSpec."""
        directory = partition.directory
        if directory is None:
            return OpenResult(Error.KAFKA_STORAGE_ERROR, f"its data directory (id {partition.directory_id}) is not among those given")
        path = str(directory.partition_path(topic.name, partition.index))
        spec = PartitionSpec(
            topic_id=topic.topic_id,
            topic=topic.name,
            partition=partition.index,
            path=path,
            leader_epoch=partition.epoch,
            create=create,
            clean=directory.clean,
            settings=settings,
            together=together,
        )
        async with self._opening:
            result = await self.plane.open_partition(spec)
            if create and not result.error:
                partition.epochs.assign(partition.epoch, 0)
                partition.saved = partition.epoch
                # not synced: without the file, a start takes it that one epoch wrote all there is
                await asyncio.to_thread(partition.epochs.save, path, durable=False)
        return result

    def add(self, topic: Topic) -> None:
        """From now on there is this topic."""
        self._topics[topic.name] = topic
        self._by_id[topic.topic_id] = topic
        self.changes += 1
        self._collisions[collision_key(topic.name)] = topic.name

    # ---- deleting ----

    async def delete(self, topic: Topic) -> None:
        """The topic and its records are gone when this returns. Raises KafkaError."""
        if topic.internal:
            raise KafkaError(Error.INVALID_REQUEST, f"Deletion of internal topic {topic.name} is prohibited.")
        async with self.hold(topic.name):
            if self._by_id.get(topic.topic_id) is not topic:
                raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION)
            await self._save(topic, topic.record(deleting=True))
            del self._topics[topic.name], self._by_id[topic.topic_id]
            self.changes += 1
            self._changed(topic.name)
            await self.plane.unpublish_topic(topic.topic_id)
            for leave in self._on_deleting:
                await leave(topic)
            await self._remove(topic)
            del self._collisions[collision_key(topic.name)]
            for listener in self._on_delete:
                listener(topic.name)

    async def _remove(self, topic: Topic) -> None:
        """Removes the data of a topic that clients don't see, then its record. Raises KafkaError."""
        await asyncio.gather(*(self._remove_data(topic, partition) for partition in topic.partitions))
        # before the record goes: a later topic of the same name must not find them
        forgotten = {directory_id for directory_id, starts in self.log_starts.items() if any(name == topic.name for name, _ in starts)}
        for directory_id in forgotten:
            starts = self.log_starts[directory_id]
            self.log_starts[directory_id] = {key: offset for key, offset in starts.items() if key[0] != topic.name}
        await self._save_log_starts(forgotten)
        self._unplace(topic, 0)
        await self._write({PREFIX + topic.name: None}, {PREFIX + topic.name: topic.revision})

    async def _remove_data(self, topic: Topic, partition: Partition) -> None:
        async with self._opening:
            await self.plane.delete_partition(topic.topic_id, partition.index)
            if partition.directory is not None:  # one that could not be opened is unknown to the data plane
                path = partition.directory.partition_path(topic.name, partition.index)
                try:
                    await asyncio.to_thread(remove_partition, path)
                except OSError as error:
                    log.error("%s could not be removed: %s", path, error)

    # ---- changing ----

    async def add_partitions(self, topic: Topic, count: int, *, validate_only: bool = False) -> None:
        """Raises the number of partitions to `count`. Raises KafkaError; then the topic is as it was."""
        if topic.internal:
            raise KafkaError(Error.INVALID_REQUEST, f"The number of partitions of internal topic {topic.name} can't be changed.")
        async with self.hold(topic.name):
            self._check_current(topic)
            if count == topic.made:
                raise KafkaError(Error.INVALID_PARTITIONS, f"Topic already has {topic.made} partition(s).")
            if count < topic.made:
                raise KafkaError(
                    Error.INVALID_PARTITIONS,
                    f"The topic {topic.name} currently has {topic.made} partition(s); {count} would not be an increase.",
                )
            if count - topic.made > PARTITIONS_PER_REQUEST_MAX:
                raise KafkaError(Error.POLICY_VIOLATION, "Excessively large number of partitions per request.")
            if validate_only:
                return
            self._place(topic, count)
            await self._save(topic, topic.record())
            try:
                await self._make(topic)
            except KafkaError:
                await self._take_back(topic)
                raise
            self._changed(topic.name)

    async def _take_back(self, topic: Topic) -> None:
        """Removes partitions that could not all be made."""
        for partition in topic.partitions[topic.made :]:
            await self._remove_data(topic, partition)
        self._unplace(topic, topic.made)
        await self._save(topic, topic.record())

    async def alter_configs(self, topic: Topic, change: Callable[[dict[str, str]], dict[str, str]], *, validate_only: bool = False) -> None:
        """Replaces what the topic sets itself by what `change` makes of it, durably, and makes it count.

        Raises KafkaError, also what `change` raises; then nothing changed.
        """
        async with self.hold(topic.name):
            self._check_current(topic)
            wanted = change(dict(topic.configs))
            self.check_configs(wanted)
            if validate_only or wanted == topic.configs:
                return
            before, topic.configs = topic.configs, wanted
            try:
                await self._save(topic, topic.record())
            except BaseException:
                topic.configs = before
                raise
            await self.push(topic)

    async def delete_records(self, topic: Topic, wanted: Mapping[int, int]) -> dict[int, DeleteRecordsResult]:
        """For each partition, records below an offset (-1: below the high watermark) are gone, durably. Raises KafkaError."""
        async with self.hold(topic.name):
            self._check_current(topic)
            done = await asyncio.gather(*(self._delete_records(topic, index, offset) for index, offset in wanted.items()))
            results = dict(zip(wanted, done, strict=True))
            moved = {topic.partitions[index].directory_id for index, result in results.items() if not result.error}
            await self._save_log_starts(moved)
            return results

    async def _delete_records(self, topic: Topic, index: int, offset: int) -> DeleteRecordsResult:
        partition = topic.partitions[index]
        directory = partition.directory
        if partition.offline is not None or directory is None:
            return DeleteRecordsResult(Error.KAFKA_STORAGE_ERROR)
        result = await self.plane.delete_records(topic.topic_id, index, offset)
        if not result.error:
            self.log_starts.setdefault(directory.id, {})[topic.name, index] = result.low_watermark
            if partition.epochs.truncate_start(result.low_watermark):
                path = str(directory.partition_path(topic.name, index))
                with contextlib.suppress(OSError):  # a start finds the same from the log's start
                    await asyncio.to_thread(partition.epochs.save, path, durable=False)
        return result

    async def _save_log_starts(self, directory_ids: Iterable[str]) -> None:
        """Makes the log starts in these data directories durable. Raises KafkaError."""
        async with self._saving_starts:
            for directory_id in directory_ids:
                directory = self.directories[directory_id]
                try:
                    await asyncio.to_thread(directory.save_log_starts, dict(self.log_starts.get(directory_id, {})))
                except OSError as error:
                    log.error("the log starts in %s can't be saved: %s", directory.path, error)
                    raise KafkaError(Error.KAFKA_STORAGE_ERROR) from error

    def _check_current(self, topic: Topic) -> None:
        if self._by_id.get(topic.topic_id) is not topic:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION)

    async def push(self, topic: Topic) -> None:
        """Tells the data plane what the topic's settings are, unless it knows."""
        rules, settings = self.configs.batch_rules(topic.configs), self.configs.log_settings(topic.configs, internal=topic.internal)
        if topic.pushed == (rules, settings):
            return
        if topic.pushed is None or topic.pushed[0] != rules:
            await self.plane.publish_topic(topic.name, topic.topic_id, topic.made, rules, topic.internal)
        if topic.pushed is None or topic.pushed[1] != settings:
            await asyncio.gather(
                *(self.plane.set_log_settings(topic.topic_id, p.index, settings) for p in topic.partitions if p.offline is None)
            )
        topic.pushed = rules, settings

    async def _push_all(self) -> None:
        for topic in self.all():
            async with self.hold(topic.name):
                if self._by_id.get(topic.topic_id) is topic:
                    await self.push(topic)

    async def _save(self, topic: Topic, record: TopicRecord) -> None:
        """Makes the topic's record durable. Raises KafkaError."""
        key = PREFIX + topic.name
        topic.revision = await self._write({key: record.encode()}, {key: topic.revision or ABSENT})

    async def _write(self, changes: Mapping[str, bytes | None], expect: Mapping[str, int]) -> int:
        try:
            return await self.store.write(changes, expect)
        except StoreError as error:
            log.error("%s", error)
            raise KafkaError(Error.KAFKA_STORAGE_ERROR, "the broker's metadata can't be written") from error

    # ---- the end ----

    async def close(self) -> set[str]:
        """Closes all partitions in order. Returns the ids of the data directories in which one could not be."""
        found = [(t, p) for t in self._topics.values() for p in t.partitions if p.offline is None]
        closed = await asyncio.gather(*(self._close(topic, partition) for topic, partition in found))
        return {partition.directory_id for (_, partition), in_order in zip(found, closed, strict=True) if not in_order}

    async def _close(self, topic: Topic, partition: Partition) -> bool:
        async with self._opening:
            at = self.plane.positions(topic.topic_id, partition.index)
            try:
                await self.plane.close_partition(topic.topic_id, partition.index)
            except OSError as error:
                log.error("partition %s-%d was not closed in order: %s", topic.name, partition.index, error)
                return False
        return at is not None and not at.offline
