"""AddOffsetsToTxn v0-4: a transaction is going to commit offsets of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.transactions import fenced_before, transactions_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_FENCED_FIRST: Final = 2


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    error = await transactions_of(ctx).add_offsets(
        message["transactional_id"], message["producer_id"], message["producer_epoch"], message["group_id"]
    )
    return {"error_code": fenced_before(error, request.version, _FENCED_FIRST)}
