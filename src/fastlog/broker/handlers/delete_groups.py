"""DeleteGroups v0-2: deletes groups without members, and their offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {"results": await coordinator_of(ctx).delete_groups(message["groups_names"])}
