"""ConsumerGroupDescribe v0-1: state, members and assignments of consumer groups (KIP-848)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import ALL_OPERATIONS, coordinator_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    groups = await coordinator_of(ctx).describe_consumer_groups(message["group_ids"])
    if message["include_authorized_operations"]:
        for group in groups:
            if group["error_code"] == Error.NONE:
                group["authorized_operations"] = ALL_OPERATIONS
    return {"groups": groups}
