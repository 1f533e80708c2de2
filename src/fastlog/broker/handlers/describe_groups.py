"""DescribeGroups v0-6: state, members and assignments of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_OPERATIONS_FIRST = 3
# What may be done with a group when nothing is forbidden: bits of AclOperation READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
_ALL_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    groups = await coordinator_of(ctx).describe_groups(message["groups"], request.version)
    if request.version >= _OPERATIONS_FIRST and message["include_authorized_operations"]:
        for group in groups:
            if group.get("error_code", Error.NONE) == Error.NONE:
                group["authorized_operations"] = _ALL_OPERATIONS
    return {"groups": groups}
