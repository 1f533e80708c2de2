"""DescribeTransactions v0: the state of transactional ids (KIP-664)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.transactions import transactions_of

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    return {"transaction_states": await transactions_of(ctx).describe(message["transactional_ids"])}
