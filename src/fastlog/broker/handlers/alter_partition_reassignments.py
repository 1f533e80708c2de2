"""AlterPartitionReassignments v0-1: which nodes hold a partition (KIP-455). With one node there is one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.broker.replicas import check_replicas
from fastlog.broker.said import said
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    responses = [
        {"name": topic["name"], "partitions": [_reassign(ctx, topic["name"], partition) for partition in topic["partitions"]]}
        for topic in message["topics"]
    ]
    return {
        "allow_replication_factor_change": message["allow_replication_factor_change"],
        "error_code": Error.NONE,
        "error_message": None if responses else "",
        "responses": responses,
    }


def _reassign(ctx: Context, name: str, asked: Message) -> dict[str, Any]:
    index, replicas = asked["partition_index"], asked["replicas"]
    error, why = Error.NONE, None
    topic = ctx.topics.get(name)
    try:
        if topic is None:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
        if not 0 <= index < topic.partition_count:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find partition {name}:{index}.")
        if replicas is None:  # cancels a reassignment
            raise KafkaError(Error.NO_REASSIGNMENT_IN_PROGRESS)
        check_replicas(replicas, ctx.cluster.node_id)
    except KafkaError as failure:
        error, why = failure.code, said(failure)
    return {"partition_index": index, "error_code": error, "error_message": why}
