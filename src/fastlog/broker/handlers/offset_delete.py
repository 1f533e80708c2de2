"""OffsetDelete v0: deletes a group's committed offsets of partitions that it does not consume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.broker.handlers.offset_commit import merge
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    refused: list[Message] = []
    accepted: list[Message] = []
    for topic in message["topics"]:
        known = ctx.topics.get(topic["name"])
        count = 0 if known is None else known.partition_count
        exists: list[Message] = []
        missing: list[Message] = []
        for partition in topic["partitions"]:
            (exists if 0 <= partition["partition_index"] < count else missing).append(partition)
        if exists:
            accepted.append({"name": topic["name"], "partitions": exists})
        if missing:
            error = Error.UNKNOWN_TOPIC_OR_PARTITION
            answers = [{"partition_index": partition["partition_index"], "error_code": error} for partition in missing]
            refused.append({"name": topic["name"], "partitions": answers})
    # Asked even when nothing is left to delete: a group that is not there must be said.
    response = await coordinator_of(ctx).delete_offsets({"group_id": message["group_id"], "topics": accepted})
    if response["error_code"] != Error.NONE:
        return {"error_code": response["error_code"], "topics": []}
    return {"error_code": Error.NONE, "topics": merge([*refused, *response["topics"]], by_id=False)}
