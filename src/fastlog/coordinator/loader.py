"""Reads a partition of a coordinator's log from its beginning to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.records import Batch, iter_batches

if TYPE_CHECKING:
    from uuid import UUID

    from fastlog.coordinator.operation import StateMachine
    from fastlog.coordinator.ports import Log

log = logging.getLogger("fastlog.groups")

_RECORDS_A_TURN: Final = 500  # then the event loop gets its turn
_COMMIT: Final = b"\x00\x01"  # type of a control record, after its version


class LogLoader:
    """One reading of one partition, which is called `name`."""

    def __init__(self, name: str, plane: Log, topic_id: UUID, partition: int, buffer_size: int) -> None:
        self.records = 0
        self.skipped = 0  # of kinds that the machine does not know, or unreadable
        self._name = name
        self._plane = plane
        self._topic_id = topic_id
        self._partition = partition
        self._buffer_size = buffer_size

    async def load(self, machine: StateMachine) -> int:
        """Replays everything into the machine and returns the log end offset. Raises KafkaError when the partition can't be read."""
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
                return offset
            before = offset
            try:
                for batch in iter_batches(chunk.data):
                    await self._replay_batch(batch, offset, machine)
                    offset = batch.last_offset + 1
            except ValueError as failure:
                raise KafkaError(Error.CORRUPT_MESSAGE, f"after offset {offset}: {failure}") from failure
            if offset == before:
                raise KafkaError(Error.CORRUPT_MESSAGE, f"no whole batch at offset {offset}")

    async def _replay_batch(self, batch: Batch, from_offset: int, machine: StateMachine) -> None:
        """A batch may begin before `from_offset`; what is before that is skipped."""
        if batch.control:
            committed = any(record.key is not None and record.key[2:4] == _COMMIT for record in batch.records)
            machine.replay_marker(batch.producer_id, committed)
            return
        producer_id = batch.producer_id if batch.transactional else -1
        for record in batch.records:
            if record.offset < from_offset:
                continue
            self.records += 1
            if self.records % _RECORDS_A_TURN == 0:
                await asyncio.sleep(0)
            try:
                decoded = machine.decode(record.key or b"", record.value)
            except ValueError as failure:
                log.error("%s: the record at offset %d can't be read: %s", self._name, record.offset, failure)
                decoded = None
            if decoded is None:
                self.skipped += 1
            else:
                machine.replay(decoded, record.offset, producer_id)
