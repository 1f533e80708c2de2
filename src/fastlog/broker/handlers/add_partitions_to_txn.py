"""AddPartitionsToTxn v0-5: what a transaction is going to write to. From version 4 on, of several transactions, for other brokers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastlog.broker.transactions import fenced_before, transactions_of
from fastlog.coordinator.transactions.state import EPOCH_BUMPS
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_BATCHED_FIRST: Final = 4
_FENCED_FIRST: Final = 2


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if request.version < _BATCHED_FIRST:
        transaction = {name.removeprefix("v3_and_below_"): value for name, value in message.items() if name.startswith("v3_and_below_")}
        return {"results_by_topic_v3_and_below": await _add(ctx, request.version, transaction)}
    transactions = message["transactions"]
    results = await asyncio.gather(*(_add(ctx, request.version, transaction) for transaction in transactions))
    by_transaction = [
        {"transactional_id": transaction["transactional_id"], "topic_results": topics}
        for transaction, topics in zip(transactions, results, strict=True)
    ]
    return {"error_code": Error.NONE, "results_by_transaction": by_transaction}


async def _add(ctx: Context, version: int, transaction: Message) -> list[Message]:
    """All partitions of one transaction or none: where one does not exist the others are not tried."""
    asked = [(topic["name"], index) for topic in transaction["topics"] for index in topic["partitions"]]
    errors = dict.fromkeys(asked, Error.OPERATION_NOT_ATTEMPTED)
    missing = [partition for partition in errors if not _exists(ctx, *partition)]
    if missing:
        errors |= dict.fromkeys(missing, Error.UNKNOWN_TOPIC_OR_PARTITION)
    else:
        service = transactions_of(ctx)
        who = (transaction["transactional_id"], transaction["producer_id"], transaction["producer_epoch"])
        if transaction.get("verify_only", False):
            partitions = list(errors)
            errors = dict(zip(partitions, await service.verify_partitions(*who, partitions), strict=True))
        else:
            client_version = EPOCH_BUMPS if version >= _BATCHED_FIRST else 0
            error = await service.add_partitions(*who, list(errors), client_version=client_version)
            errors = dict.fromkeys(errors, fenced_before(error, version, _FENCED_FIRST))
    topics: dict[str, list[Message]] = {} if missing else {topic["name"]: [] for topic in transaction["topics"]}
    for (name, index), error in errors.items():
        topics.setdefault(name, []).append({"partition_index": index, "partition_error_code": error})
    return [{"name": name, "results_by_partition": partitions} for name, partitions in topics.items()]


def _exists(ctx: Context, name: str, index: int) -> bool:
    topic = ctx.topics.get(name)
    return topic is not None and 0 <= index < topic.partition_count
