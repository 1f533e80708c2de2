"""ListPartitionReassignments v0: partitions on their way to other nodes (KIP-455). With one node there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {"error_code": Error.NONE, "error_message": None, "topics": []}
