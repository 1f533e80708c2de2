"""LeaveGroup v0-5: one member leaves, or from version 3 on several are made to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_BATCHED_FIRST = 3


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if request.version >= _BATCHED_FIRST:
        return await coordinator_of(ctx).leave_group(message)
    alone = {"member_id": message["member_id"], "group_instance_id": None, "reason": None}
    response = await coordinator_of(ctx).leave_group({"group_id": message["group_id"], "members": [alone]})
    error = response["error_code"]
    return {"error_code": response["members"][0]["error_code"] if error == Error.NONE else error}
