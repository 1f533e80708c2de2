"""TxnOffsetCommit v0-5: offsets of a group that hold when the producer's transaction commits (KIP-447)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.groups import client_of, coordinator_of
from fastlog.coordinator.records import NO_TOPIC_ID
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_LOADING_FIRST: Final = 2  # versions before take COORDINATOR_LOAD_IN_PROGRESS for final


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    errors: dict[str, dict[int, Error]] = {}
    accepted: list[Message] = []
    for topic in message["topics"]:
        name = topic["name"]
        known = ctx.topics.get(name)
        count = known.partition_count if known is not None else 0
        answers = errors.setdefault(name, {})
        for partition in topic["partitions"]:
            answers[partition["partition_index"]] = Error.UNKNOWN_TOPIC_OR_PARTITION
        exists = [partition for partition in topic["partitions"] if 0 <= partition["partition_index"] < count]
        if exists:
            accepted.append({"name": name, "topic_id": NO_TOPIC_ID, "partitions": exists})
    if accepted:
        asked = message | {"topics": accepted, "generation_id_or_member_epoch": message["generation_id"]}
        response = await coordinator_of(ctx).commit_offsets_in_transaction(client_of(request), asked)
        for topic in response["topics"]:
            errors[topic["name"]] |= {partition["partition_index"]: partition["error_code"] for partition in topic["partitions"]}
    return {
        "topics": [
            {
                "name": name,
                "partitions": [{"partition_index": index, "error_code": _told(error, request.version)} for index, error in answers.items()],
            }
            for name, answers in errors.items()
        ]
    }


def _told(error: Error, version: int) -> Error:
    loading = error is Error.COORDINATOR_LOAD_IN_PROGRESS and version < _LOADING_FIRST
    return Error.COORDINATOR_NOT_AVAILABLE if loading else error
