"""EndTxn v0-5: commits or aborts. Answered when the decision is durable; from version 5 on with the next transaction's id and epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.transactions import fenced_before, transactions_of
from fastlog.coordinator.transactions.state import EPOCH_BUMPS

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_FENCED_FIRST: Final = 2
_BUMPING_FIRST: Final = 5


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    response = await transactions_of(ctx).end_transaction(
        message["transactional_id"],
        message["producer_id"],
        message["producer_epoch"],
        commit=message["committed"],
        client_version=EPOCH_BUMPS if request.version >= _BUMPING_FIRST else 0,
    )
    return response | {"error_code": fenced_before(response["error_code"], request.version, _FENCED_FIRST)}
