"""DeleteRecords v0-2: records below an offset go (KIP-107)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_HIGH_WATERMARK = -1


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {"topics": await asyncio.gather(*(_topic(ctx, topic) for topic in message["topics"] if topic["partitions"]))}


async def _topic(ctx: Context, asked: Message) -> dict[str, Any]:
    topic = ctx.topics.get(asked["name"])
    answers: dict[int, dict[str, Any]] = {}
    wanted: dict[int, int] = {}
    for partition in asked["partitions"]:
        index, offset = partition["partition_index"], partition["offset"]
        error = Error.NONE
        if topic is None or not 0 <= index < topic.partition_count:
            error = Error.UNKNOWN_TOPIC_OR_PARTITION
        elif topic.internal:
            error = Error.INVALID_TOPIC_EXCEPTION
        elif "delete" not in ctx.configs.layers.topic_value("cleanup.policy", topic.configs):
            error = Error.POLICY_VIOLATION
        elif offset < _HIGH_WATERMARK:
            error = Error.OFFSET_OUT_OF_RANGE
        else:
            wanted[index] = offset
        answers[index] = _answer(index, error)
    if topic is not None and wanted:
        try:
            results = await ctx.topics.delete_records(topic, wanted)
        except KafkaError as failure:
            answers |= {index: _answer(index, failure.code) for index in wanted}
        else:
            answers |= {index: _answer(index, result.error, result.low_watermark) for index, result in results.items()}
    return {"name": asked["name"], "partitions": list(answers.values())}


def _answer(index: int, error: Error, low_watermark: int = -1) -> dict[str, Any]:
    return {"partition_index": index, "low_watermark": -1 if error else low_watermark, "error_code": error}
