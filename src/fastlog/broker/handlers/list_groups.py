"""ListGroups v0-5: the groups of this broker, from version 4 on by state, from version 5 on by type too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return await coordinator_of(ctx).list_groups(message["states_filter"], message["types_filter"])
