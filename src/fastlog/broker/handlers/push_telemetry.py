"""PushTelemetry v0: metrics of a client (KIP-714). They are dropped: nothing subscribed to any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.listing import NO_ID
from fastlog.broker.telemetry import COMPRESSION_TYPES, subscription_id
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_NOT_COMPRESSED = 0


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    client = message["client_instance_id"]
    if client == NO_ID:
        error = Error.INVALID_REQUEST
    elif message["subscription_id"] != subscription_id(client):
        error = Error.UNKNOWN_SUBSCRIPTION_ID
    elif message["compression_type"] not in (_NOT_COMPRESSED, *COMPRESSION_TYPES):
        error = Error.UNSUPPORTED_COMPRESSION_TYPE
    elif len(message["metrics"]) > ctx.configs.get("telemetry.max.bytes"):
        error = Error.TELEMETRY_TOO_LARGE
    else:
        error = Error.NONE
    return {"error_code": error}
