"""ApiVersions v0-4: which requests are served in which versions, and which features the cluster has.

An unsupported version is answered by the dispatcher (KIP-511). A feature is finalized (KIP-584) at the level whose requests are
served: the share and streams group protocols are not, and a Kafka cluster at their level 0 does not list them. Eligible leader
replicas (KIP-966) are none on one node; what remains of them is that min.insync.replicas is set for the whole cluster.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_KEY

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

SUPPORTED: Final = {
    "eligible.leader.replicas.version": (0, 1),
    "group.version": (0, 1),
    "kraft.version": (0, 1),
    "metadata.version": (7, 30),
    "share.version": (0, 1),
    "streams.version": (0, 1),
    "transaction.version": (0, 2),
}
FINALIZED: Final = {"eligible.leader.replicas.version": 1, "group.version": 1, "metadata.version": 30, "transaction.version": 2}
_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_APIS: Final = [
    {"api_key": key, "min_version": api.advertised[0], "max_version": api.advertised[1]}
    for key, api in sorted(API_BY_KEY.items())
    if api.advertised is not None
]


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    if request.version >= 3:
        names = (message["client_software_name"], message["client_software_version"])
        if not all(_SOFTWARE.fullmatch(name) for name in names):
            return {"error_code": Error.INVALID_REQUEST}
    response: Message = {"error_code": Error.NONE, "api_keys": _APIS}
    if request.version >= 3:
        response["supported_features"] = [
            {"name": name, "min_version": low, "max_version": high}
            for name, (low, high) in SUPPORTED.items()
            if low > 0 or request.version >= 4  # clients of version 3 can't read a 0 (KAFKA-17492)
        ]
        response["finalized_features_epoch"] = ctx.store.revision
        response["finalized_features"] = [
            {"name": name, "min_version_level": level, "max_version_level": level} for name, level in FINALIZED.items()
        ]
    return response
