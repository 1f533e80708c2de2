"""AlterReplicaLogDirs v1-2: moves partitions between data directories (KIP-113). Of what is asked, only staying can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    answers: dict[str, list[dict[str, Any]]] = {}
    for directory in message["dirs"]:
        for topic in filter(lambda topic: topic["partitions"], directory["topics"]):
            listed = answers.setdefault(topic["name"], [])
            listed += [
                {"partition_index": index, "error_code": _move(ctx, directory["path"], topic["name"], index)}
                for index in topic["partitions"]
            ]
    return {"results": [{"topic_name": name, "partitions": partitions} for name, partitions in answers.items()]}


def _move(ctx: Context, path: str, name: str, index: int) -> Error:
    wanted = next((directory for directory in ctx.topics.directories.values() if str(directory.path) == path), None)
    if wanted is None:
        return Error.LOG_DIR_NOT_FOUND
    topic = ctx.topics.get(name)
    if topic is None or not 0 <= index < topic.partition_count:
        return Error.UNKNOWN_TOPIC_OR_PARTITION
    # a partition stays where it was made: moving one while it is written to is not built
    return Error.NONE if topic.partitions[index].directory is wanted else Error.KAFKA_STORAGE_ERROR
