"""OffsetForLeaderEpoch v2-4: where a leader epoch ended, so that a reader learns that what it read was cut off (KIP-320)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error
from fastlog.storage.epochs import UNDEFINED

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_ANY_EPOCH = -1


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {
        "topics": [
            {"topic": topic["topic"], "partitions": [_end(ctx, topic["topic"], partition) for partition in topic["partitions"]]}
            for topic in message["topics"]
        ]
    }


def _end(ctx: Context, name: str, asked: Message) -> dict[str, Any]:
    error, (epoch, end_offset) = Error.NONE, UNDEFINED
    index, current = asked["partition"], asked["current_leader_epoch"]
    topic = ctx.topics.get(name)
    if topic is None or not 0 <= index < topic.partition_count:
        error = Error.UNKNOWN_TOPIC_OR_PARTITION
    else:
        partition = topic.partitions[index]
        at = ctx.plane.positions(topic.topic_id, index)
        if at is None or at.offline:
            error = Error.KAFKA_STORAGE_ERROR
        elif current != _ANY_EPOCH and current > partition.epoch:
            error = Error.UNKNOWN_LEADER_EPOCH
        elif current != _ANY_EPOCH and current < partition.epoch:
            error = Error.FENCED_LEADER_EPOCH
        else:
            epoch, end_offset = partition.epochs.end_offset(asked["leader_epoch"], at.log_end)
    return {"error_code": error, "partition": index, "leader_epoch": epoch, "end_offset": end_offset}
