"""InitProducerId v0-5: a producer id for an idempotent producer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastlog.broker.groups import NO_TRANSACTIONS, coordinator_of
from fastlog.metadata.store import ConflictError, StoreError
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

log = logging.getLogger("fastlog.groups")

_NONE = -1  # a producer id or epoch that is not given


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if (message["producer_id"] == _NONE) != (message["producer_epoch"] == _NONE):
        return _refused(Error.INVALID_REQUEST)
    transactional_id = message["transactional_id"]
    if transactional_id is not None:
        if not transactional_id:
            return _refused(Error.INVALID_REQUEST)
        # The code that clients take as final; they were told so by FindCoordinator already.
        log.warning("%s (client id %r), transactional id %r: %s", request.peer, request.client_id, transactional_id, NO_TRANSACTIONS)
        return _refused(Error.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    # As Kafka: without a transactional id a producer that lost its place gets a new id, whatever id and epoch it had.
    try:
        producer_id = await coordinator_of(ctx).producer_ids.next_id()
    except (StoreError, ConflictError) as failure:
        log.error("no producer ids can be reserved: %s", failure)
        return _refused(Error.COORDINATOR_LOAD_IN_PROGRESS)  # what Kafka says then, and producers try again on
    return {"error_code": Error.NONE, "producer_id": producer_id, "producer_epoch": 0}


def _refused(error: Error) -> Message:
    return {"error_code": error, "producer_id": _NONE, "producer_epoch": _NONE}
