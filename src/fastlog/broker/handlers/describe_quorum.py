"""DescribeQuorum v0-2: who keeps the metadata, and up to where (KIP-595, KIP-836). This node does; its store's revision is the offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastlog.broker.topic_names import CLUSTER_METADATA
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_EPOCH: Final = 1
_NODES_FIRST: Final = 2


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = [(topic["topic_name"], [p["partition_index"] for p in topic["partitions"]]) for topic in message["topics"]]
    if asked == [(CLUSTER_METADATA, [0])]:
        answer: Message = {"error_code": Error.NONE, "topics": [{"topic_name": CLUSTER_METADATA, "partitions": [_quorum(ctx)]}]}
        if request.version >= _NODES_FIRST:
            at = ctx.cluster.endpoint(request.listener)
            listener = {"name": "CONTROLLER", "host": at.host, "port": at.port}
            answer["nodes"] = [{"node_id": ctx.cluster.node_id, "listeners": [listener]}]
        return answer
    return {
        "error_code": Error.NONE,
        "topics": [{"topic_name": name, "partitions": [_none(request.version, index) for index in indexes]} for name, indexes in asked],
    }


def _quorum(ctx: Context) -> dict[str, Any]:
    now = ctx.clock.now_ms()
    voter = {
        "replica_id": ctx.cluster.node_id,
        "log_end_offset": ctx.store.revision,
        "last_fetch_timestamp": now,
        "last_caught_up_timestamp": now,
    }
    return {
        "partition_index": 0,
        "error_code": Error.NONE,
        "leader_id": ctx.cluster.node_id,
        "leader_epoch": _EPOCH,
        "high_watermark": ctx.store.revision,
        "current_voters": [voter],
        "observers": [],
    }


def _none(version: int, index: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"partition_index": index, "error_code": Error.UNKNOWN_TOPIC_OR_PARTITION}
    if version >= _NODES_FIRST:
        answer["error_message"] = "This server does not host this topic-partition."
    return answer
