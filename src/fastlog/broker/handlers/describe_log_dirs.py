"""DescribeLogDirs v1-5: the data directories, their partitions and their space (KIP-113, KIP-827)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error
from fastlog.storage.disk import measure

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = None if message["topics"] is None else {topic["topic"]: set(topic["partitions"]) for topic in message["topics"]}
    results = []
    for directory in ctx.topics.directories.values():
        result: dict[str, Any] = {"error_code": Error.NONE, "log_dir": str(directory.path), "topics": _topics(ctx, directory.id, asked)}
        try:
            if directory.failed is None:
                space = await asyncio.to_thread(measure, directory.path)
                result |= {"total_bytes": space.total, "usable_bytes": space.usable}
        except OSError as error:
            ctx.log.warning("the space of %s can't be told: %s", directory.path, error)
        if "total_bytes" not in result:
            result |= {"error_code": Error.KAFKA_STORAGE_ERROR, "topics": []}
        results.append(result)
    results += [{"error_code": Error.KAFKA_STORAGE_ERROR, "log_dir": str(path), "topics": []} for path in ctx.topics.missing_directories]
    return {"error_code": Error.NONE, "results": results}


def _topics(ctx: Context, directory_id: str, asked: dict[str, set[int]] | None) -> list[dict[str, Any]]:
    topics = []
    for topic in ctx.topics.all() if asked is None else filter(None, map(ctx.topics.get, asked)):
        wanted = range(topic.partition_count) if asked is None else sorted(asked[topic.name])
        partitions = []
        for index in wanted:
            if 0 <= index < topic.partition_count and topic.partitions[index].directory_id == directory_id:
                at = ctx.plane.positions(topic.topic_id, index)
                size = at.bytes if at is not None else 0
                partitions.append({"partition_index": index, "partition_size": size, "offset_lag": 0, "is_future_key": False})
        if partitions:
            topics.append({"name": topic.name, "partitions": partitions})
    return topics
