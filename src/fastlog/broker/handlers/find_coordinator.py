"""FindCoordinator v0-6: which broker coordinates a group or transactional id. There is one broker: this one, once its topic exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.broker.transactions import transactions_of
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_GROUP = 0
_TRANSACTION = 1
_NOBODY = {"node_id": -1, "host": "", "port": -1}


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    batched = request.version >= 4
    keys: list[str] = message["coordinator_keys"] if batched else [message["key"]]
    error, why = await _find(ctx, request, message["key_type"])
    if error is Error.NONE:
        why = "" if batched else "NONE"  # as Kafka says it
    broker = ctx.cluster.broker(request.listener)
    found: Message = _NOBODY if error is not Error.NONE else {name: broker[name] for name in _NOBODY}
    found = found | {"error_code": error, "error_message": why}
    return {"coordinators": [found | {"key": key} for key in keys]} if batched else found


async def _find(ctx: Context, request: RequestContext, key_type: int) -> tuple[Error, str | None]:
    if key_type not in (_GROUP, _TRANSACTION):
        return Error.INVALID_REQUEST, f"no coordinator of type {key_type} here"
    try:
        if key_type == _TRANSACTION:
            await transactions_of(ctx).ensure_topic()
        else:
            await coordinator_of(ctx).ensure_topic()
    except KafkaError as failure:
        return failure.code, failure.message or "the coordinator is not available"
    return Error.NONE, None
