"""DescribeUserScramCredentials v0: the users with a password (KIP-554). There is no SASL, so there are none.

It is served all the same because Kafka's tools ask for it whenever they describe users, who may have quotas.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    times = Counter(user["name"] for user in message["users"] or ())
    return {"error_code": Error.NONE, "error_message": "", "results": [_described(name, count) for name, count in times.items()]}


def _described(name: str, count: int) -> dict[str, Any]:
    if count > 1:
        error, why = Error.DUPLICATE_RESOURCE, "Cannot describe SCRAM credentials for the same user twice in a single request: "
    else:
        error, why = Error.RESOURCE_NOT_FOUND, "Attempt to describe a user credential that does not exist: "
    return {"user": name, "error_code": error, "error_message": why + name, "credential_infos": []}
