"""The cleaner: compacts the logs of topics with cleanup.policy=compact, the dirtiest first, on threads of its own.

What a compaction does to files is `fastlog.native.compact`'s; which segments give way is decided here, and their owner shard swaps them.
A log that can't be compacted (damaged records, say) is named once in the log, counted, and left alone until the next start; it stops no
other. A full disk or a changed log ends a compaction without a trace: it is tried again later.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastlog._core import Compaction, CompactionCancelledError, DamagedLogError
from fastlog.protocol.errors import Error, KafkaError
from fastlog.storage.compaction import CHECKPOINT, group_parts, load_clean_ends, make_plan, save_clean_ends, transaction_indexes
from fastlog.storage.files import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from uuid import UUID

    from fastlog.broker.context import Context
    from fastlog.broker.partitions import Topic
    from fastlog.storage.compaction import Plan

log = logging.getLogger("fastlog.cleaner")
NICE: Final = 10
"""Of the cleaner's threads: whoever serves clients is let by."""
SLICE_NS: Final = 100_000
"""How long such a thread may go on after a shard that shares its core wants to run; the kernel's own slice is some milliseconds."""
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
"""The system call's number (sched(7), sched_setattr(2)), by machine."""
CLEANED: Final = (".log.cleaned", ".index.cleaned", ".timeindex.cleaned", ".txnindex.cleaned")


@dataclass(slots=True)
class _Choice:
    topic: Topic
    index: int
    directory: Path
    directory_id: str
    plan: Plan

    @property
    def name(self) -> str:
        return f"{self.topic.name}-{self.index}"

    @property
    def key(self) -> tuple[UUID, int]:
        return self.topic.topic_id, self.index


class Cleaner:
    """All methods belong to the event loop's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ends: dict[str, dict[tuple[str, int], int]] = {}
        """By data directory's id: first dirty offset of each log, as its checkpoint has them."""
        self._saving = asyncio.Lock()
        self._choosing = asyncio.Lock()
        self._running: dict[tuple[UUID, int], tuple[Compaction | None, asyncio.Future[None]]] = {}
        self._uncleanable: dict[tuple[UUID, int], int] = {}
        """Logs that can't be compacted, and their bytes."""
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: ThreadPoolExecutor | None = None
        self.totals: Counter[str] = Counter()
        self._dirtiest = 0.0
        self._last_seconds = 0.0

    async def start(self) -> None:
        """Begins to look for work."""
        for directory in self._context.topics.directories.values():
            try:
                found = await asyncio.to_thread(load_clean_ends, directory.path)
            except (DamagedFileError, OSError) as error:
                log.warning("%s; its logs are compacted from their start", error)
                found = {}
            self._ends[directory.id] = {key: end for key, end in found.items() if self._context.topics.get(key[0]) is not None}
            if len(self._ends[directory.id]) < len(found):  # of topics whose deletion a crash cut short: a later one must not find them
                await self._save(directory.id)
        self._context.topics.on_deleting(self.leave)
        if self._context.configs.get("log.cleaner.enable"):
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._run()) for _ in range(self._context.configs.get("log.cleaner.threads"))]

    async def stop(self) -> None:
        """Ends what is under way; nothing of it is left but what was swapped already."""
        for task in self._tasks:
            task.cancel()
        for compaction, _ in self._running.values():
            if compaction is not None:
                compaction.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown()

    async def leave(self, topic: Topic) -> None:
        """Ends the compaction of a topic that is being deleted, and forgets about it."""
        ended = []
        for key, (compaction, done) in self._running.items():
            if key[0] == topic.topic_id:
                if compaction is not None:
                    compaction.cancel()
                ended.append(done)
        if ended:
            await asyncio.wait(ended)
        for key in [key for key in self._uncleanable if key[0] == topic.topic_id]:
            del self._uncleanable[key]
        for directory_id, ends in self._ends.items():
            mine = [name for name in ends if name[0] == topic.name]
            for name in mine:
                del ends[name]
            if mine:
                await self._save(directory_id)

    def samples(self) -> Iterator[tuple[str, float, bool]]:
        """(name, value, whether it is a counter)."""
        for name in ("runs", "failures", "read_bytes", "written_bytes", "records_read", "records_kept", "keyless"):
            yield f"{name}_total", self.totals[name], True
        yield "running", len(self._running), False
        yield "uncleanable_partitions", len(self._uncleanable), False
        yield "uncleanable_bytes", sum(self._uncleanable.values()), False
        yield "max_dirty_ratio", self._dirtiest, False
        yield "last_run_seconds", self._last_seconds, False

    # ---- choosing ----

    async def _run(self) -> None:
        while True:
            worked = False
            try:
                worked = await self.clean_dirtiest()
            except Exception:
                log.exception("looking for logs to compact failed")
            if not worked:
                await asyncio.sleep(max(1, self._context.configs.get("log.cleaner.backoff.ms")) / 1000)

    async def clean_dirtiest(self) -> bool:
        """Compacts the log that needs it most. False when none does, or it did not work out."""
        async with self._choosing:
            choice = await self._choose()
            if choice is None:
                return False
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._running[choice.key] = None, done
        try:
            return await self._clean(choice)
        finally:
            del self._running[choice.key]
            done.set_result(None)

    async def _choose(self) -> _Choice | None:
        layers = self._context.configs.layers
        best: _Choice | None = None
        dirtiest = 0.0
        for topic in list(self._context.topics.all()):
            if "compact" not in layers.topic_value("cleanup.policy", topic.configs):
                continue
            ratio_min = layers.topic_value("min.cleanable.dirty.ratio", topic.configs)
            for partition in topic.partitions[: topic.made]:
                if partition.offline is None and (topic.topic_id, partition.index) not in self._running.keys() | self._uncleanable.keys():
                    choice = await self._plan(topic, partition.index)
                    if choice is None:
                        continue
                    dirtiest = max(dirtiest, choice.plan.ratio)
                    if choice.plan.due(ratio_min) and (best is None or choice.plan.ratio > best.plan.ratio):
                        best = choice
        self._dirtiest = dirtiest
        return best

    async def _plan(self, topic: Topic, index: int) -> _Choice | None:
        """What could be compacted of a partition; None: nothing."""
        plane, layers = self._context.plane, self._context.configs.layers
        directory, at = topic.partitions[index].directory, plane.positions(topic.topic_id, index)
        if directory is None or at is None or at.offline:
            return None
        limit = await plane.compactable(topic.topic_id, index)
        checkpoint = self._ends.get(directory.id, {}).get((topic.name, index))
        if limit is None or limit == checkpoint or limit <= at.log_start:
            return None
        path = directory.partition_path(topic.name, index)
        try:
            plan = await asyncio.to_thread(
                make_plan,
                str(path),
                log_start=at.log_start,
                limit=limit,
                checkpoint=checkpoint,
                now_ms=self._context.clock.now_ms(),
                lag_min_ms=layers.topic_value("min.compaction.lag.ms", topic.configs),
                lag_max_ms=layers.topic_value("max.compaction.lag.ms", topic.configs),
            )
        except OSError as error:
            log.warning("%s-%d is not compacted for now: %s", topic.name, index, error)
            return None
        return _Choice(topic, index, path, directory.id, plan) if plan.parts else None

    # ---- compacting ----

    async def _on_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # most starts compact nothing

            count = self._context.configs.get("log.cleaner.threads")
            self._threads = ThreadPoolExecutor(count, "cleaner", _stand_back)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _clean(self, choice: _Choice) -> bool:
        try:
            return await self._compact(choice)
        except CompactionCancelledError:
            return False
        except (DamagedLogError, MemoryError, OSError, KafkaError) as error:
            self.totals["failures"] += 1
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                log.warning("%s is not compacted for now: no space is left beside it", choice.name)
            elif isinstance(error, OSError) and error.errno == errno.ENOENT:
                log.info("%s changed while it was compacted; it is tried again", choice.name)
            elif isinstance(error, (KafkaError, MemoryError)):
                log.warning("%s is not compacted for now: %s", choice.name, error or "no memory")
            else:
                self._uncleanable[choice.key] = sum(part.bytes for part in choice.plan.parts)
                log.error("%s can't be compacted and grows until that is put right and the broker started again: %s", choice.name, error)
            return False

    async def _compact(self, choice: _Choice) -> bool:
        """Raises CompactionCancelledError, DamagedLogError, MemoryError, OSError, KafkaError."""
        configs, plan, path = self._context.configs, choice.plan, str(choice.directory)
        settings = configs.log_settings(choice.topic.configs)
        threads = configs.get("log.cleaner.threads")
        began = time.monotonic()
        compaction = Compaction(
            os.fsencode(path),
            [(part.base_offset, part.next_offset, part.bytes) for part in plan.parts],
            transactions=await asyncio.to_thread(transaction_indexes, path),
            interval=settings.index_interval_bytes,
            rate=max(1, int(min(configs.get("log.cleaner.io.max.bytes.per.second") / threads, 2**62))),
            now_ms=self._context.clock.now_ms(),
            retention_ms=configs.layers.topic_value("delete.retention.ms", choice.topic.configs),
        )
        self._running[choice.key] = compaction, self._running[choice.key][1]
        written = 0
        try:
            memory = configs.get("log.cleaner.dedupe.buffer.size") // threads
            end = await self._on_thread(compaction.map, plan.first_dirty, memory)
            if end <= plan.first_dirty:
                raise DamagedLogError(f"the batch at offset {end} has more keys than log.cleaner.dedupe.buffer.size has room for")
            parts = [part for part in plan.parts if part.base_offset < end]
            for first, last in await asyncio.to_thread(group_parts, path, parts, settings.segment_bytes, settings.segment_index_bytes):
                written += await self._on_thread(compaction.clean, first, last)
                await self._swap(choice, parts[first].base_offset, parts[last].next_offset)
        finally:
            counts = compaction.counts
            for name in ("read_bytes", "written_bytes", "records_read", "records_kept", "keyless"):
                self.totals[name] += counts[name]
        self.totals["runs"] += 1
        self._last_seconds = time.monotonic() - began
        self._ends.setdefault(choice.directory_id, {})[choice.topic.name, choice.index] = end
        await self._save(choice.directory_id)
        read = sum(part.bytes for part in parts)
        log.info(
            "%s is compacted to offset %d: %d bytes became %d, %d of %d records stayed, in %.1f s",
            *(choice.name, end, read, written, counts["records_kept"], counts["records_read"], self._last_seconds),
        )
        return True

    async def _swap(self, choice: _Choice, base_offset: int, end: int) -> None:
        """The new segment takes the place of the old ones. Raises CompactionCancelledError when those have changed, KafkaError."""
        topic_id, index = choice.key
        error, why = await self._context.plane.swap_segments(topic_id, index, base_offset, end)
        if not error:
            return
        await asyncio.to_thread(_drop_cleaned, choice.directory, base_offset)
        if error in (Error.OFFSET_OUT_OF_RANGE, Error.UNKNOWN_TOPIC_OR_PARTITION):
            raise CompactionCancelledError
        raise KafkaError(error, why)

    async def _save(self, directory_id: str) -> None:
        async with self._saving:
            directory = self._context.topics.directories.get(directory_id)
            if directory is None:
                return
            try:
                await asyncio.to_thread(save_clean_ends, directory.path, dict(self._ends[directory_id]))
            except OSError as error:
                log.warning("%s can't be written (%s): after a restart some logs are compacted again", directory.path / CHECKPOINT, error)


def _drop_cleaned(directory: Path, base_offset: int) -> None:
    for suffix in CLEANED:
        (directory / f"{base_offset:020}{suffix}").unlink(missing_ok=True)


def _stand_back() -> None:
    """Has the calling thread give way at once. Kernels before 6.12 know no slices and take the rest."""
    import ctypes
    import struct

    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    call = SCHED_SETATTR.get(os.uname().machine)
    if call is not None:
        # struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period
        attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, NICE, 0, SLICE_NS, 0, 0)
        if ctypes.CDLL(None, use_errno=True).syscall(call, 0, attributes, 0) < 0:
            log.debug("the cleaner's thread keeps the kernel's slice: %s", os.strerror(ctypes.get_errno()))
