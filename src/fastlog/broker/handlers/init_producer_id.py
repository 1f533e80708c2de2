"""InitProducerId v0-5: a producer id for an idempotent producer, and the next epoch for a transactional one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastlog.broker.groups import coordinator_of
from fastlog.broker.transactions import fenced_before, transactions_of
from fastlog.metadata.store import ConflictError, StoreError
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

log = logging.getLogger("fastlog.groups")

_NONE = -1  # a producer id or epoch that is not given
_FENCED_FIRST = 4


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    producer_id, epoch = message["producer_id"], message["producer_epoch"]
    if (producer_id == _NONE) != (epoch == _NONE):
        return _refused(Error.INVALID_REQUEST)
    transactional_id = message["transactional_id"]
    if transactional_id is not None:
        expected = None if producer_id == _NONE else (producer_id, epoch)
        response = await transactions_of(ctx).init_producer(transactional_id, message["transaction_timeout_ms"], expected)
        return response | {"error_code": fenced_before(response["error_code"], request.version, _FENCED_FIRST)}
    # As Kafka: without a transactional id a producer that lost its place gets a new id, whatever id and epoch it had.
    try:
        producer_id = await coordinator_of(ctx).producer_ids.next_id()
    except (StoreError, ConflictError) as failure:
        log.error("no producer ids can be reserved: %s", failure)
        return _refused(Error.COORDINATOR_LOAD_IN_PROGRESS)  # what Kafka says then, and producers try again on
    return {"error_code": Error.NONE, "producer_id": producer_id, "producer_epoch": 0}


def _refused(error: Error) -> Message:
    return {"error_code": error, "producer_id": _NONE, "producer_epoch": _NONE}
