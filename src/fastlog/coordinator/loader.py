"""Reads a partition of `__consumer_offsets` from its beginning to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastlog.coordinator.records import CoordinatorRecord, OffsetRecord, decode
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.records import Batch, iter_batches

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from fastlog.coordinator.metrics import Metrics
    from fastlog.coordinator.ports import Log

log = logging.getLogger("fastlog.groups")

_RECORDS_A_TURN: Final = 500  # then the event loop gets its turn
_COMMIT: Final = b"\x00\x01"  # type of a control record, after its version


class LogLoader:
    """One reading of one partition."""

    def __init__(self, plane: Log, topic_id: UUID, partition: int, buffer_size: int, metrics: Metrics) -> None:
        self.records = 0
        self._open: dict[int, list[tuple[int, CoordinatorRecord]]] = {}  # of transactions, by producer id, with their offsets
        self._newest: dict[tuple[str, str, int], int] = {}  # offset of the last record of a key, while transactions are open
        self._plane = plane
        self._topic_id = topic_id
        self._partition = partition
        self._buffer_size = buffer_size
        self._metrics = metrics

    async def load(self, replay: Callable[[CoordinatorRecord], None]) -> int:
        """Replays every record and returns the log end offset. Raises KafkaError when the partition can't be read."""
        positions = self._plane.positions(self._topic_id, self._partition)
        offset = 0 if positions is None else positions.log_start
        while True:
            chunk = await self._plane.read(self._topic_id, self._partition, offset, self._buffer_size, to_log_end=True)
            if chunk.error is Error.OFFSET_OUT_OF_RANGE and chunk.log_start > offset:
                offset = chunk.log_start  # retention went on meanwhile
                continue
            if chunk.error is not Error.NONE:
                raise KafkaError(chunk.error, f"reading at offset {offset}")
            if not chunk.data:
                if self._open:
                    log.warning(
                        "__consumer_offsets-%d: %d transactions were not ended; their offsets are left out",
                        self._partition,
                        len(self._open),
                    )
                return offset
            before = offset
            try:
                for batch in iter_batches(chunk.data):
                    await self._replay_batch(batch, offset, replay)
                    offset = batch.last_offset + 1
            except ValueError as failure:
                raise KafkaError(Error.CORRUPT_MESSAGE, f"after offset {offset}: {failure}") from failure
            if offset == before:
                raise KafkaError(Error.CORRUPT_MESSAGE, f"no whole batch at offset {offset}")

    async def _replay_batch(self, batch: Batch, from_offset: int, replay: Callable[[CoordinatorRecord], None]) -> None:
        """A batch may begin before `from_offset`; what is before that is skipped."""
        if batch.control:
            self._end_transaction(batch, replay)
            return
        for record in batch.records:
            if record.offset < from_offset:
                continue
            self.records += 1
            self._metrics.load_records += 1
            if self.records % _RECORDS_A_TURN == 0:
                await asyncio.sleep(0)
            try:
                decoded = decode(record.key or b"", record.value)
            except ValueError as failure:
                log.error("__consumer_offsets-%d: the record at offset %d can't be read: %s", self._partition, record.offset, failure)
                decoded = None
            if decoded is None:
                self._metrics.load_records_skipped += 1
            elif batch.transactional:
                self._open.setdefault(batch.producer_id, []).append((record.offset, decoded))
            else:
                if self._open and isinstance(decoded, OffsetRecord):
                    self._newest[decoded[:3]] = record.offset
                replay(decoded)

    def _end_transaction(self, batch: Batch, replay: Callable[[CoordinatorRecord], None]) -> None:
        """What a transaction committed holds from its end on, unless something newer was written while it was open."""
        held = self._open.pop(batch.producer_id, [])
        committed = any(record.key is not None and record.key[2:4] == _COMMIT for record in batch.records)
        for offset, record in held if committed else ():
            if not isinstance(record, OffsetRecord):
                replay(record)
            elif self._newest.get(record[:3], -1) < offset:
                self._newest[record[:3]] = offset
                replay(record)
        if not self._open:
            self._newest.clear()
