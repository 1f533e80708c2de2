"""ElectLeaders v0-2: whether partitions need another leader (KIP-183, KIP-460). With one node, none ever does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


_TYPES: Final = (0, 1)
"""A preferred leader, or any at all (unclean)."""


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = message["topic_partitions"]
    kind = message["election_type"]
    results: list[dict[str, Any]]
    if kind not in _TYPES:
        why = f"Unknown election type {kind}"
        refused = [
            {
                "topic": topic["topic"],
                "partition_result": [
                    {"partition_id": index, "error_code": Error.INVALID_REQUEST, "error_message": why} for index in topic["partitions"]
                ],
            }
            for topic in asked or ()
        ]
        return {"error_code": Error.INVALID_REQUEST, "replica_election_results": refused}
    if asked is None:  # of all partitions, those are named that an election was held for
        results = [{"topic": topic.name, "partition_result": []} for topic in ctx.topics.all()]
    else:
        results = [{"topic": t["topic"], "partition_result": [_elect(ctx, t["topic"], index) for index in t["partitions"]]} for t in asked]
    return {"error_code": Error.NONE, "replica_election_results": results}


def _elect(ctx: Context, name: str, index: int) -> dict[str, Any]:
    topic = ctx.topics.get(name)
    if topic is None:
        error, why = Error.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}"
    elif not 0 <= index < topic.partition_count:
        error, why = Error.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}"
    else:
        error, why = Error.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."
    return {"partition_id": index, "error_code": error, "error_message": why}
