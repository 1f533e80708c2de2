"""Metadata v0-13: the broker to connect to, topics and their partitions; creates what is missing where client and broker allow it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastlog.broker.listing import CLUSTER_OPERATIONS, NO_ID, NOT_ASKED, TOPIC_OPERATIONS, partitions_of
from fastlog.broker.topic_names import INTERNAL, why_invalid
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.partitions import Topic
    from fastlog.protocol.messages import Message

_IDS_FIRST = 12


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = message["topics"]
    if request.version >= _IDS_FIRST and asked and any(topic["topic_id"] != NO_ID for topic in asked):
        asked = [topic for topic in asked if topic["topic_id"] != NO_ID]  # beside ids, names do not count
    every = asked is None or (request.version == 0 and not asked)
    if not every and any(_impossible(request.version, topic) for topic in asked):
        return _refused(request.version, asked)
    operations = TOPIC_OPERATIONS if message["include_topic_authorized_operations"] else NOT_ASKED
    if every:
        topics = [_shown(ctx, topic, operations) for topic in ctx.topics.all()]
    else:
        topics = await _named(ctx, asked, operations, create=message["allow_auto_topic_creation"])
    return {
        "brokers": [ctx.cluster.broker(request.listener)],
        "cluster_id": ctx.cluster.cluster_id,
        "controller_id": ctx.cluster.node_id,
        "topics": topics,
        "cluster_authorized_operations": CLUSTER_OPERATIONS if message["include_cluster_authorized_operations"] else NOT_ASKED,
        "error_code": Error.NONE,
    }


def _impossible(version: int, topic: Message) -> bool:
    """Versions 10 and 11 have the fields for ids, but brokers do not take them yet (KAFKA-10774)."""
    if topic["topic_id"] != NO_ID:
        return version < _IDS_FIRST
    return topic["name"] is None


def _refused(version: int, asked: list[Message]) -> Message:
    topics = [
        {"error_code": Error.INVALID_REQUEST, "name": topic["name"] or "", "topic_id": topic["topic_id"], "partitions": []}
        for topic in asked
    ]
    return {"topics": topics, "error_code": Error.INVALID_REQUEST}


async def _named(ctx: Context, asked: list[Message], operations: int, *, create: bool) -> list[dict[str, Any]]:
    """Each topic once, however often it is asked for."""
    ids = list(dict.fromkeys(topic["topic_id"] for topic in asked if topic["topic_id"] != NO_ID))
    names = list(dict.fromkeys(topic["name"] for topic in asked if topic["topic_id"] == NO_ID))
    shown = []
    for topic_id in ids:
        found = ctx.topics.by_id(topic_id)
        if found is None:
            shown.append({"error_code": Error.UNKNOWN_TOPIC_ID, "name": None, "topic_id": topic_id, "partitions": []})
        else:
            shown.append(_shown(ctx, found, operations))
    shown += await asyncio.gather(*(_one(ctx, name, operations, create) for name in names))
    return shown


async def _one(ctx: Context, name: str, operations: int, create: bool) -> dict[str, Any]:
    topic = ctx.topics.get(name)
    error = Error.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None:
        if why_invalid(name) is not None:
            error = Error.INVALID_TOPIC_EXCEPTION
        elif create:
            try:
                topic = await ctx.topics.auto_create(name)
            except KafkaError as failure:
                ctx.log.warning("topic %s can't be created for a client that asked for it: %s", name, failure)
                error = failure.code
    if topic is None:
        missing = {"error_code": error, "name": name, "is_internal": name in INTERNAL, "partitions": []}
        return missing | {"topic_authorized_operations": operations}
    return _shown(ctx, topic, operations)


def _shown(ctx: Context, topic: Topic, operations: int) -> dict[str, Any]:
    return {
        "error_code": Error.NONE,
        "name": topic.name,
        "topic_id": topic.topic_id,
        "is_internal": topic.internal,
        "partitions": partitions_of(ctx, topic),
        "topic_authorized_operations": operations,
    }
