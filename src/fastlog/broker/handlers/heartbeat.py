"""Heartbeat v0-4: a member is alive; tells it of a rebalance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return await coordinator_of(ctx).heartbeat(message, request.stands)
