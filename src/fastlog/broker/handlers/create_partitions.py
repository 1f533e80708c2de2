"""CreatePartitions v0-3: more partitions for topics that there are (KIP-195)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fastlog.broker.replicas import check_replicas
from fastlog.broker.said import said
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.mutations import Mutations
    from fastlog.protocol.messages import Message

_STRICT_FIRST: Final = 3
"""From this version on a client is refused what its quota does not allow (KIP-599)."""


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = message["topics"]
    counts = Counter(topic["name"] for topic in asked)
    results = [
        {"name": name, "error_code": Error.INVALID_REQUEST, "error_message": "Duplicate topic name."}
        for name, count in counts.items()
        if count > 1
    ]
    single = [topic for topic in asked if counts[topic["name"]] == 1]
    mutations = ctx.quotas.mutations(request.client_id, strict=request.version >= _STRICT_FIRST)
    results += await asyncio.gather(*(_add(ctx, topic, mutations, validate_only=message["validate_only"]) for topic in single))
    return {"results": results, "throttle_time_ms": mutations.throttle_ms}


async def _add(ctx: Context, asked: Message, mutations: Mutations, *, validate_only: bool) -> dict[str, Any]:
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
        mutations.take(max(0, count - topic.partition_count))
        await ctx.topics.add_partitions(topic, count, validate_only=validate_only)
    except KafkaError as failure:
        return {"name": name, "error_code": failure.code, "error_message": said(failure)}
    return {"name": name, "error_code": Error.NONE}
