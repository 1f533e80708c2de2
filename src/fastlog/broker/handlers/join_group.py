"""JoinGroup v0-9: becomes a member of a group's next generation; waits until that has formed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import client_of, coordinator_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_NULLABLE_FIRST = 7  # the protocol's name may be null, and is where there is none


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    response = await coordinator_of(ctx).join_group(client_of(request), message)
    name = response.get("protocol_name")
    response["protocol_name"] = (name or None) if request.version >= _NULLABLE_FIRST else (name or "")
    return response
