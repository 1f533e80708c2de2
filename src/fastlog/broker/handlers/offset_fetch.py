"""OffsetFetch v1-10: committed offsets of a group, from version 8 on of several groups; from version 10 on topics are named by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_GROUP_ERROR_FIRST = 2  # before, only partitions have an error code
_BATCHED_FIRST = 8
_TOPIC_IDS_FIRST = 10


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    stable: bool = message["require_stable"]
    if request.version >= _BATCHED_FIRST:
        return {"groups": [await _fetch(ctx, request.version, group, stable) for group in message["groups"]]}
    response = await _fetch(ctx, request.version, message, stable)
    topics = [{"name": topic["name"], "partitions": topic["partitions"]} for topic in response["topics"]]
    return {"error_code": response["error_code"], "topics": topics}


async def _fetch(ctx: Context, version: int, group: Message, stable: bool) -> Message:
    """One group; `group` has `group_id` and `topics` (None: all)."""
    by_id = version >= _TOPIC_IDS_FIRST
    group_id: str = group["group_id"]
    asked: list[Message] | None = group["topics"]
    unknown: list[Message] = []
    if by_id and asked is not None:
        named: list[Message] = []
        for topic in asked:
            known = ctx.topics.by_id(topic["topic_id"])
            if known is None:
                unknown.append(_failed(topic, Error.UNKNOWN_TOPIC_ID))
            else:
                named.append(topic | {"name": known.name})
        asked = named
    try:
        topics = await coordinator_of(ctx).fetch_offsets(
            group_id, asked, group.get("member_id"), group.get("member_epoch", -1), require_stable=stable
        )
    except KafkaError as failure:
        if version < _GROUP_ERROR_FIRST:
            return {"error_code": Error.NONE, "topics": [_failed(topic, failure.code) for topic in asked or ()]}
        return {"group_id": group_id, "error_code": failure.code, "topics": []}
    if by_id and asked is None:
        topics = [topic | {"topic_id": known.topic_id} for topic in topics if (known := ctx.topics.get(topic["name"])) is not None]
    return {"group_id": group_id, "error_code": Error.NONE, "topics": [*topics, *unknown]}


def _failed(topic: Message, error: Error) -> Message:
    answers = [
        {"partition_index": index, "committed_offset": -1, "committed_leader_epoch": -1, "metadata": "", "error_code": error}
        for index in topic["partition_indexes"]
    ]
    return {"name": topic["name"], "topic_id": topic.get("topic_id", None), "partitions": answers}
