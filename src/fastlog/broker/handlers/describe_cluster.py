"""DescribeCluster v0-2: the cluster's id and its brokers (KIP-700)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.listing import CLUSTER_OPERATIONS, NOT_ASKED
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_BROKERS: Final = 1
_CONTROLLERS: Final = 2


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    kind = message["endpoint_type"]
    if kind != _BROKERS:
        if kind == _CONTROLLERS:
            error, why = (
                Error.MISMATCHED_ENDPOINT_TYPE,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            )
        else:
            error, why = Error.UNSUPPORTED_ENDPOINT_TYPE, f"Unsupported endpoint type {kind}"
        return {"error_code": error, "error_message": why, "cluster_id": ""}
    broker = ctx.cluster.broker(request.listener)
    return {
        "error_code": Error.NONE,
        "cluster_id": ctx.cluster.cluster_id,
        "controller_id": ctx.cluster.node_id,
        "brokers": [{"broker_id": broker["node_id"], "host": broker["host"], "port": broker["port"], "rack": broker["rack"]}],
        "cluster_authorized_operations": CLUSTER_OPERATIONS if message["include_cluster_authorized_operations"] else NOT_ASKED,
    }
