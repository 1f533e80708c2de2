"""DescribeTopicPartitions v0: partitions of topics by name, in pages (KIP-966)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.broker.listing import NO_ID, TOPIC_OPERATIONS, partitions_of
from fastlog.broker.topic_names import INTERNAL, why_invalid
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    cursor = message["cursor"]
    begin = cursor["topic_name"] if cursor is not None else ""
    asked = {topic["name"] for topic in message["topics"]}
    every = not asked
    names = sorted(name for name in ({topic.name for topic in ctx.topics.all()} if every else asked) if name >= begin)
    if cursor is not None and (cursor["partition_index"] < 0 or (not every and begin not in names)):
        return {"topics": [{"error_code": Error.INVALID_REQUEST, "name": name, "partitions": []} for name in sorted(asked)]}
    left = max(1, min(ctx.configs.get("max.request.partition.size.limit"), message["response_partition_limit"]))
    topics: list[dict[str, Any]] = []
    next_cursor = None
    for name in names:
        if left == 0:
            next_cursor = {"topic_name": name, "partition_index": 0}
            break
        found = ctx.topics.get(name)
        if found is None:
            error = Error.UNKNOWN_TOPIC_OR_PARTITION if why_invalid(name) is None else Error.INVALID_TOPIC_EXCEPTION
            if not every:
                topics.append(_topic(name, [], error))
            continue
        first = cursor["partition_index"] if cursor is not None and name == begin else 0
        page = partitions_of(ctx, found)[first : first + left]
        shown = [partition | {"eligible_leader_replicas": [], "last_known_elr": []} for partition in page]
        topics.append(_topic(name, shown, Error.NONE) | {"topic_id": found.topic_id})
        left -= len(page)
        if first + len(page) < found.partition_count:
            next_cursor = {"topic_name": name, "partition_index": first + len(page)}
            break
    return {"topics": topics, "next_cursor": next_cursor}


def _topic(name: str, partitions: list[dict[str, Any]], error: Error) -> dict[str, Any]:
    return {
        "error_code": error,
        "name": name,
        "topic_id": NO_ID,
        "is_internal": name in INTERNAL,
        "partitions": partitions,
        "topic_authorized_operations": TOPIC_OPERATIONS,
    }
