"""SyncGroup v0-5: the leader gives everybody's assignment, each member gets its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_PROTOCOL_FIRST = 5  # protocol type and name must be given (KIP-559)


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if request.version >= _PROTOCOL_FIRST and (message["protocol_type"] is None or message["protocol_name"] is None):
        return {"error_code": Error.INCONSISTENT_GROUP_PROTOCOL}
    return await coordinator_of(ctx).sync_group(message)
