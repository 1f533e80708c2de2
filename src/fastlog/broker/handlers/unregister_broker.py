"""UnregisterBroker v0: forgets a broker that is gone (KIP-631). There is none but this one, which is not gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    broker_id = message["broker_id"]
    if broker_id == ctx.cluster.node_id:
        return {"error_code": Error.INVALID_REQUEST, "error_message": f"Broker {broker_id} is running and can't be unregistered."}
    return {"error_code": Error.BROKER_ID_NOT_REGISTERED, "error_message": f"Broker ID {broker_id} is not currently registered"}
