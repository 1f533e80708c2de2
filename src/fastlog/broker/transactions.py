"""What the handlers of transaction requests have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context
    from fastlog.coordinator.transactions.service import TransactionService


def transactions_of(ctx: Context) -> TransactionService:
    service: TransactionService = ctx.transactions
    return service


def fenced_before(error: Error, version: int, first: int) -> Error:
    """PRODUCER_FENCED as it is told to clients of an API's versions before `first`, which do not know it."""
    return Error.INVALID_PRODUCER_EPOCH if error is Error.PRODUCER_FENCED and version < first else error
