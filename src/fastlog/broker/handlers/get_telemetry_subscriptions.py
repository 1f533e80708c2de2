"""GetTelemetrySubscriptions v0: which metrics a client should push (KIP-714): none."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from fastlog.broker.listing import NO_ID
from fastlog.broker.telemetry import COMPRESSION_TYPES, PUSH_INTERVAL_MS, subscription_id
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    client = message["client_instance_id"]
    if client == NO_ID:
        client = uuid4()
    return {
        "error_code": Error.NONE,
        "client_instance_id": client,
        "subscription_id": subscription_id(client),
        "accepted_compression_types": list(COMPRESSION_TYPES),
        "push_interval_ms": PUSH_INTERVAL_MS,
        "telemetry_max_bytes": ctx.configs.get("telemetry.max.bytes"),
        "delta_temporality": True,
        "requested_metrics": [],
    }
