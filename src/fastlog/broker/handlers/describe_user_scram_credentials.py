"""DescribeUserScramCredentials v0: the users with a password for SASL/SCRAM, without the passwords (KIP-554)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fastlog.broker.scram import MECHANISMS, iterations_of
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    names = [user["name"] for user in message["users"] or ()] or ctx.configs.users.names()
    return {
        "error_code": Error.NONE,
        "error_message": "",
        "results": [_described(ctx, name, times) for name, times in Counter(names).items()],
    }


def _described(ctx: Context, name: str, times: int) -> dict[str, Any]:
    own = ctx.configs.users.get(name)
    error, why = Error.NONE, ""
    if times > 1:
        error, why = Error.DUPLICATE_RESOURCE, f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
    elif not own:
        error, why = Error.RESOURCE_NOT_FOUND, f"Attempt to describe a user credential that does not exist: {name}"
    infos = [
        {"mechanism": number, "iterations": iterations_of(own[mechanism])} for number, mechanism in MECHANISMS.items() if mechanism in own
    ]
    return {"user": name, "error_code": error, "error_message": why, "credential_infos": [] if error else infos}
