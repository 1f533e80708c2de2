"""WriteTxnMarkers v1-2: ends of transactions, as other coordinators and `kafka-transactions.sh abort` write them (KIP-98, KIP-664)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastlog.coordinator.operation import Marker
from fastlog.coordinator.service import OFFSETS_TOPIC
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    written = await asyncio.gather(*(_write(ctx, marker) for marker in message["markers"]))
    answers: dict[int, dict[str, dict[int, Error]]] = {}
    for producer_id, topics in written:  # as in Kafka, a producer that is named twice is answered once
        known = answers.setdefault(producer_id, {})
        for name, partitions in topics.items():
            known.setdefault(name, {}).update(partitions)
    return {"markers": [{"producer_id": producer_id, "topics": _topics(topics)} for producer_id, topics in answers.items()]}


async def _write(ctx: Context, asked: Message) -> tuple[int, dict[str, dict[int, Error]]]:
    marker = Marker(
        producer_id=asked["producer_id"],
        epoch=asked["producer_epoch"],
        coordinator_epoch=asked["coordinator_epoch"],
        commit=asked["transaction_result"],
        version=asked.get("transaction_version", 0),
    )
    where = [(topic["name"], index) for topic in asked["topics"] for index in topic["partition_indexes"]]
    errors = await asyncio.gather(*(_end(ctx, name, index, marker) for name, index in where))
    found: dict[str, dict[int, Error]] = {}
    for (name, index), error in zip(where, errors, strict=True):
        found.setdefault(name, {})[index] = error
    return marker.producer_id, found


async def _end(ctx: Context, name: str, index: int, marker: Marker) -> Error:
    topic = ctx.topics.get(name)
    if topic is None or not 0 <= index < topic.partition_count:
        return Error.UNKNOWN_TOPIC_OR_PARTITION
    if name == OFFSETS_TOPIC:  # its coordinator has to know what of the transaction holds now
        error: Error = await ctx.coordinator.end_transaction(index, marker)
        return Error.NOT_LEADER_OR_FOLLOWER if error in _NOT_READY else error
    result = await ctx.plane.write_txn_marker(
        topic.topic_id,
        index,
        producer_id=marker.producer_id,
        producer_epoch=marker.epoch,
        coordinator_epoch=marker.coordinator_epoch,
        commit=marker.commit,
        version=marker.version,
    )
    return result.error


_NOT_READY = (Error.COORDINATOR_NOT_AVAILABLE, Error.COORDINATOR_LOAD_IN_PROGRESS, Error.NOT_COORDINATOR)


def _topics(topics: dict[str, dict[int, Error]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "partitions": [{"partition_index": index, "error_code": error} for index, error in partitions.items()]}
        for name, partitions in topics.items()
    ]
