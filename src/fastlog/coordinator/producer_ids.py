"""Producer ids for idempotent producers, from blocks that are reserved durably before any id of them is given out.

A block that a stopped broker had not used up is lost, as in Kafka; int64 has room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class ProducerIds:
    """Gives out ids, each once. `reserve_block` reserves the next block and returns its ids, or raises."""

    def __init__(self, reserve_block: Callable[[], Awaitable[range]]) -> None:
        self._reserve_block = reserve_block
        self._next = 0
        self._end = 0
        self._reserving = asyncio.Lock()
        self.blocks = 0  # reserved since start

    async def next_id(self) -> int:
        while self._next >= self._end:
            async with self._reserving:
                if self._next < self._end:
                    continue  # somebody else's turn reserved one
                block = await self._reserve_block()
                assert len(block) > 0
                self._next, self._end = block.start, block.stop
                self.blocks += 1
        producer_id = self._next
        self._next += 1
        return producer_id
