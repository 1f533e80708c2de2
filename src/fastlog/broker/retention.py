"""Drops what topics do not keep any longer (cleanup.policy=delete), at log.retention.check.interval.ms."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fastlog.protocol.errors import KafkaError
from fastlog.storage.retention import first_kept, list_segments

if TYPE_CHECKING:
    from fastlog.broker.context import Context
    from fastlog.broker.partitions import Topic

log = logging.getLogger("fastlog.retention")


class Retention:
    """One task that goes over all partitions from time to time, one after the other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._context.configs.get("log.retention.check.interval.ms") / 1000)
            await self.check_all()

    async def check_all(self) -> None:
        """Drops what topics do not keep; what fails is in the log."""
        for topic in list(self._context.topics.all()):
            try:
                await self.check(topic)
            except (KafkaError, OSError) as error:
                log.warning("old segments of topic %s stay for now: %s", topic.name, error)
            except Exception:
                log.exception("looking for old segments of topic %s failed", topic.name)

    async def check(self, topic: Topic) -> None:
        """Drops what this topic does not keep. Raises KafkaError, OSError."""
        layers = self._context.configs.layers
        age_max_ms, bytes_max = layers.topic_value("retention.ms", topic.configs), layers.topic_value("retention.bytes", topic.configs)
        if "delete" not in layers.topic_value("cleanup.policy", topic.configs) or (age_max_ms < 0 and bytes_max < 0):
            return
        wanted = {}
        for partition in topic.partitions[: topic.partition_count]:
            offset = await self._first_kept(topic, partition.index, age_max_ms, bytes_max)
            if offset is not None:
                wanted[partition.index] = offset
        if wanted:
            for index, result in (await self._context.topics.delete_records(topic, wanted)).items():
                if result.error:
                    log.warning("old segments of %s-%d stay for now: %s", topic.name, index, result.error.name)
                else:
                    log.info("%s-%d is kept from offset %d on", topic.name, index, result.low_watermark)

    async def _first_kept(self, topic: Topic, index: int, age_max_ms: int, bytes_max: int) -> int | None:
        """The offset from which on a partition is kept, or None when nothing goes."""
        plane, directory = self._context.plane, topic.partitions[index].directory
        at = plane.positions(topic.topic_id, index)
        if at is None or at.offline or directory is None or at.log_start == at.high_watermark:
            return None
        first_young = None
        if age_max_ms >= 0:
            found = await plane.find_time(topic.topic_id, index, max(0, self._context.clock.now_ms() - age_max_ms))
            if found.error:
                raise KafkaError(found.error)
            first_young = found.offset  # what came after `at` was read is above its high watermark: it stays in any case
        elif at.bytes < bytes_max:
            return None
        if first_young == -1 and at.high_watermark == at.log_end:  # as Kafka does: all of it goes, so that its space is free again
            await plane.roll(topic.topic_id, index)
        segments = await asyncio.to_thread(list_segments, str(directory.partition_path(topic.name, index)))
        offset = first_kept(segments, at.bytes, at.high_watermark, first_young, bytes_max)
        return offset if offset > at.log_start else None
