"""AlterUserScramCredentials v0: gives users a password for SASL/SCRAM, and takes it away (KIP-554).

As in a Kafka whose listeners ask for no password, they are kept and shown, and nobody is asked.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from fastlog.broker.resources import storing
from fastlog.broker.said import said
from fastlog.broker.scram import ITERATIONS, MECHANISMS, credential
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    failures: dict[str, KafkaError] = {}
    wanted: dict[str, tuple[str, str | None]] = {}
    """By user: the mechanism, and what is kept for it (None: nothing any more)."""
    for change, check in [(one, _deletion) for one in message["deletions"]] + [(one, _upsertion) for one in message["upsertions"]]:
        user = change["name"]
        if user in failures:
            continue
        try:
            if wanted.pop(user, None) is not None:
                raise KafkaError(Error.DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request")
            wanted[user] = check(ctx, change)
        except KafkaError as failure:
            failures[user] = failure
    results = [await _altered(ctx, user, mechanism, text) for user, (mechanism, text) in wanted.items()]
    results += [_result(user, failure) for user, failure in failures.items()]
    return {"results": results}


def _mechanism(change: Message) -> str:
    if not change["name"]:
        raise KafkaError(Error.UNACCEPTABLE_CREDENTIAL, "Username must not be empty")
    if change["mechanism"] not in MECHANISMS:
        raise KafkaError(Error.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    return MECHANISMS[change["mechanism"]]


def _deletion(ctx: Context, change: Message) -> tuple[str, str | None]:
    mechanism = _mechanism(change)
    if mechanism not in ctx.configs.users.get(change["name"]):
        raise KafkaError(Error.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist")
    return mechanism, None


def _upsertion(ctx: Context, change: Message) -> tuple[str, str | None]:
    mechanism = _mechanism(change)
    iterations = change["iterations"]
    if iterations < ITERATIONS[0]:
        raise KafkaError(Error.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
    if iterations > ITERATIONS[-1]:
        raise KafkaError(Error.UNACCEPTABLE_CREDENTIAL, "Too many iterations")
    digest = mechanism.removeprefix("SCRAM-").lower().replace("-", "")
    salted = change["salted_password"]
    stored = hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
    server = hmac.digest(salted, b"Server Key", digest)
    return mechanism, credential(salt=change["salt"], stored_key=stored, server_key=server, iterations=iterations)


async def _altered(ctx: Context, user: str, mechanism: str, text: str | None) -> dict[str, Any]:
    def change(own: dict[str, str]) -> dict[str, str]:
        kept = {name: other for name, other in own.items() if name != mechanism}
        return kept if text is None else kept | {mechanism: text}

    try:
        with storing(ctx):
            await ctx.configs.users.alter(user, change)
    except KafkaError as failure:
        return _result(user, failure)
    return {"user": user, "error_code": Error.NONE, "error_message": None}


def _result(user: str, failure: KafkaError) -> dict[str, Any]:
    return {"user": user, "error_code": failure.code, "error_message": said(failure)}
