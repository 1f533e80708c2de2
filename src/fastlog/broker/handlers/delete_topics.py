"""DeleteTopics v1-6: topics by name, from version 6 on also by id (KIP-516). One that is named twice is not deleted at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fastlog.broker.listing import NO_ID
from fastlog.broker.said import said
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from uuid import UUID

    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.mutations import Mutations
    from fastlog.broker.partitions import Topic
    from fastlog.protocol.messages import Message

_STRICT_FIRST: Final = 5
"""From this version on a client is refused what its quota does not allow (KIP-599)."""


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if request.version < 6:
        asked = Counter((name, NO_ID) for name in message["topic_names"])
    else:
        asked = Counter((topic["name"], topic["topic_id"]) for topic in message["topics"])
    answers: list[dict[str, Any]] = []
    wanted: list[Topic] = []
    for (name, topic_id), count in asked.items():
        try:
            if count > 1:
                raise KafkaError(Error.INVALID_REQUEST, f"Duplicate topic {'name' if topic_id == NO_ID else 'id'}.")
            topic = _find(ctx, name, topic_id)
        except KafkaError as failure:
            answers.append(_answer(name, topic_id, failure))
        else:
            wanted.append(topic)
    by_both = [topic for topic in wanted if wanted.count(topic) > 1]
    for topic in by_both:
        twice = KafkaError(Error.INVALID_REQUEST, "The provided topic name maps to an ID that was already supplied.")
        answers.append(_answer(topic.name, topic.topic_id, twice))
    mutations = ctx.quotas.mutations(request.client_id, strict=request.version >= _STRICT_FIRST)
    answers += await asyncio.gather(*(_delete(ctx, topic, mutations) for topic in wanted if topic not in by_both))
    return {"responses": answers, "throttle_time_ms": mutations.throttle_ms}


def _find(ctx: Context, name: str | None, topic_id: UUID) -> Topic:
    if topic_id == NO_ID:
        if name is None:
            raise KafkaError(Error.INVALID_REQUEST, "Neither topic name nor id were specified.")
        topic = ctx.topics.get(name)
        if topic is None:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    else:
        if name is not None:
            raise KafkaError(Error.INVALID_REQUEST, "You may not specify both topic name and topic id.")
        topic = ctx.topics.by_id(topic_id)
        if topic is None:
            raise KafkaError(Error.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
    return topic


async def _delete(ctx: Context, topic: Topic, mutations: Mutations) -> dict[str, Any]:
    try:
        if not ctx.configs.get("delete.topic.enable"):
            raise KafkaError(Error.TOPIC_DELETION_DISABLED)
        mutations.take(topic.partition_count)
        await ctx.topics.delete(topic)
    except KafkaError as failure:
        return _answer(topic.name, topic.topic_id, failure)
    return {"name": topic.name, "topic_id": topic.topic_id, "error_code": Error.NONE}


def _answer(name: str | None, topic_id: UUID, failure: KafkaError) -> dict[str, Any]:
    return {"name": name, "topic_id": topic_id, "error_code": failure.code, "error_message": said(failure)}
