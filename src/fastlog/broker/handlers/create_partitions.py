"""CreatePartitions v0-3: more partitions for topics that there are (KIP-195)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from fastlog.broker.replicas import check_replicas
from fastlog.broker.said import said
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = message["topics"]
    counts = Counter(topic["name"] for topic in asked)
    results = [
        {"name": name, "error_code": Error.INVALID_REQUEST, "error_message": "Duplicate topic name."}
        for name, count in counts.items()
        if count > 1
    ]
    single = [topic for topic in asked if counts[topic["name"]] == 1]
    results += await asyncio.gather(*(_add(ctx, topic, validate_only=message["validate_only"]) for topic in single))
    return {"results": results}


async def _add(ctx: Context, asked: Message, *, validate_only: bool) -> dict[str, Any]:
    name, count, assignments = asked["name"], asked["count"], asked["assignments"]
    try:
        topic = ctx.topics.get(name)
        if topic is None:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION)
        if assignments is not None and count > topic.partition_count:
            more = count - topic.partition_count
            if len(assignments) != more:
                raise KafkaError(
                    Error.INVALID_REPLICA_ASSIGNMENT,
                    f"Attempted to add {more} additional partition(s), but only {len(assignments)} assignment(s) were specified.",
                )
            for assignment in assignments:
                check_replicas(assignment["broker_ids"], ctx.cluster.node_id)
        await ctx.topics.add_partitions(topic, count, validate_only=validate_only)
    except KafkaError as failure:
        return {"name": name, "error_code": failure.code, "error_message": said(failure)}
    return {"name": name, "error_code": Error.NONE}
