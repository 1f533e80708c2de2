"""ListConfigResources v0-1: what has settings of its own, or may have (KIP-1142; v0, KIP-714: subscriptions of client metrics)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.resources import BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    node = str(ctx.cluster.node_id)
    listed = {
        GROUP: ctx.configs.groups.names(),
        CLIENT_METRICS: ctx.configs.client_metrics.names(),
        BROKER_LOGGER: [node],
        BROKER: [node],
        TOPIC: [topic.name for topic in ctx.topics.all()],
    }
    asked = set(message["resource_types"] or listed) if request.version >= 1 else {CLIENT_METRICS}
    if not asked <= listed.keys():
        return {"error_code": Error.UNSUPPORTED_VERSION, "config_resources": []}
    resources = [{"resource_name": name, "resource_type": kind} for kind, names in listed.items() if kind in asked for name in names]
    return {"error_code": Error.NONE, "config_resources": resources}
