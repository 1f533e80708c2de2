"""ConsumerGroupHeartbeat v0-1: joins, stays in and leaves a consumer group, and learns what it should own (KIP-848)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import client_of, coordinator_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return await coordinator_of(ctx).consumer_group_heartbeat(client_of(request), message, request.stands)
