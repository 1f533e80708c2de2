"""ListTransactions v0-2: the transactional ids there are, by state, producer id, age and (KIP-1152) name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.transactions import transactions_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return await transactions_of(ctx).list(
        message["state_filters"], message["producer_id_filters"], message["duration_filter"], message["transactional_id_pattern"]
    )
