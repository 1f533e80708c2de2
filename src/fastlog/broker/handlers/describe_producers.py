"""DescribeProducers v0: what partitions know of the producers that wrote to them (KIP-664)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastlog.broker.topic_names import why_invalid
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {"topics": await asyncio.gather(*(_topic(ctx, topic) for topic in message["topics"]))}


async def _topic(ctx: Context, asked: Message) -> dict[str, Any]:
    name, indexes = asked["name"], asked["partition_indexes"]
    why = why_invalid(name)
    if why is not None:
        return {"name": name, "partitions": [_partition(index, Error.INVALID_TOPIC_EXCEPTION, why) for index in indexes]}
    return {"name": name, "partitions": [await _describe(ctx, name, index) for index in indexes]}


async def _describe(ctx: Context, name: str, index: int) -> dict[str, Any]:
    topic = ctx.topics.get(name)
    if topic is None:
        return _partition(index, Error.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    if not 0 <= index < topic.partition_count:
        return _partition(index, Error.UNKNOWN_TOPIC_OR_PARTITION)
    positions = ctx.plane.positions(topic.topic_id, index)
    if positions is None or positions.offline:
        return _partition(index, Error.KAFKA_STORAGE_ERROR)
    answer = _partition(index)
    answer["active_producers"] = [
        {
            "producer_id": producer.producer_id,
            "producer_epoch": producer.producer_epoch,
            "last_sequence": producer.last_sequence,
            "last_timestamp": producer.last_timestamp,
            "coordinator_epoch": producer.coordinator_epoch,
            "current_txn_start_offset": producer.txn_start_offset,
        }
        for producer in await ctx.plane.describe_producers(topic.topic_id, index)
    ]
    return answer


def _partition(index: int, error: Error = Error.NONE, why: str | None = None) -> dict[str, Any]:
    return {"partition_index": index, "error_code": error, "error_message": why, "active_producers": []}
