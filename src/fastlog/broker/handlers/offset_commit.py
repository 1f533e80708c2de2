"""OffsetCommit v2-10: stores how far a group has got, per partition. From version 10 on topics are named by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import client_of, coordinator_of
from fastlog.protocol.errors import Error
from fastlog.protocol.packing import read_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_TOPIC_IDS_FIRST = 10


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    by_id = request.version >= _TOPIC_IDS_FIRST
    refused, accepted = _sorted(ctx, message, by_id=by_id)
    if not accepted:
        return {"topics": merge(refused, by_id=by_id)}
    response = await coordinator_of(ctx).commit_offsets(client_of(request), message | {"topics": accepted})
    return {"topics": merge([*refused, *response["topics"]], by_id=by_id)}


def begin(ctx: Context, request: RequestContext, body: memoryview, answer: Callable[[bytes], None]) -> bool:
    """Of a commit that can be answered with one error code for all of its partitions, which exist."""
    commit = read_commit(request.version, body)
    if commit is None:
        return False
    by_id = request.version >= _TOPIC_IDS_FIRST
    names: list[str] = []
    for name, topic_id, least, greatest in commit.topics:
        known = ctx.topics.by_id(topic_id) if by_id else ctx.topics.get(name)
        if known is None or least < 0 or greatest >= known.partition_count:
            return False
        names.append(known.name)
    return coordinator_of(ctx).begin_commit(client_of(request), commit, names, lambda error: answer(commit.answer(error)))


def _sorted(ctx: Context, message: Message, *, by_id: bool) -> tuple[list[Message], list[Message]]:
    """Topics of the response for what does not exist, and those of the request as far as they do, each with name and id."""
    refused: list[Message] = []
    accepted: list[Message] = []
    for topic in message["topics"]:
        known = ctx.topics.by_id(topic["topic_id"]) if by_id else ctx.topics.get(topic["name"])
        partitions: list[Message] = topic["partitions"]
        if known is None:
            error = Error.UNKNOWN_TOPIC_ID if by_id else Error.UNKNOWN_TOPIC_OR_PARTITION
            refused.append(_answer(topic, partitions, error))
            continue
        exists = [partition for partition in partitions if 0 <= partition["partition_index"] < known.partition_count]
        if len(exists) < len(partitions):
            missing = [partition for partition in partitions if not 0 <= partition["partition_index"] < known.partition_count]
            refused.append(_answer(topic, missing, Error.UNKNOWN_TOPIC_OR_PARTITION))
        if exists:
            # Named by name, a topic's id is not stored: a client that does not know ids means whatever topic has that name.
            accepted.append({"name": known.name, "topic_id": topic["topic_id"], "partitions": exists})
    return refused, accepted


def merge(topics: Iterable[Message], *, by_id: bool) -> list[Message]:
    """One entry for each topic, with the partitions of all of its entries."""
    merged: dict[object, Message] = {}
    for topic in topics:
        found = merged.setdefault(topic["topic_id"] if by_id else topic["name"], topic | {"partitions": []})
        found["partitions"] += topic["partitions"]
    return list(merged.values())


def _answer(topic: Message, partitions: list[Message], error: Error) -> Message:
    answers = [{"partition_index": partition["partition_index"], "error_code": error} for partition in partitions]
    return {"name": topic["name"], "topic_id": topic["topic_id"], "partitions": answers}
