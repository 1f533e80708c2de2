"""DescribeGroups v0-6: state, members and assignments of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import ALL_OPERATIONS, coordinator_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_OPERATIONS_FIRST = 3


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    groups = await coordinator_of(ctx).describe_groups(message["groups"], request.version)
    if request.version >= _OPERATIONS_FIRST and message["include_authorized_operations"]:
        for group in groups:
            if group.get("error_code", Error.NONE) == Error.NONE:
                group["authorized_operations"] = ALL_OPERATIONS
    return {"groups": groups}
