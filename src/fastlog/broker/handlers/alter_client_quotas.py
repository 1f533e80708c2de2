"""AlterClientQuotas v0-1: sets and takes away quotas (KIP-546)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from fastlog.broker.quotas import CLIENT, CONNECTION, FETCH, IP, MUTATION, PRODUCE, REQUEST, USER
from fastlog.broker.said import said
from fastlog.config.keys import INT32_MAX, INT64_MAX
from fastlog.metadata.store import StoreError
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.quotas import Entity
    from fastlog.protocol.messages import Message

_OF_CLIENTS: Final = {PRODUCE: INT64_MAX, FETCH: INT64_MAX, REQUEST: None, MUTATION: None}
_OF_ADDRESSES: Final = {CONNECTION: INT32_MAX}
"""Quotas, and how much a whole number may be; None: any number."""


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = [({part["entity_type"]: part["entity_name"] for part in entry["entity"]}, entry["ops"]) for entry in message["entries"]]
    answers: dict[Entity, dict[str, Any]] = {}
    for parts, ops in asked:
        entity: Entity = tuple(sorted(parts.items(), key=lambda part: part[0]))
        error, why = Error.NONE, None
        try:
            # as in Kafka, the first of them has been done
            if entity in answers or len({op["key"] for op in ops}) < len(ops):
                listed = ", ".join(f"{kind}={name}" for kind, name in entity)
                raise KafkaError(Error.INVALID_REQUEST, f"Ignoring duplicate entity ClientQuotaEntity(entries={{{listed}}})")
            await _alter(ctx, parts, entity, ops, validate_only=message["validate_only"])
        except KafkaError as failure:
            error, why = failure.code, said(failure)
        shown = [{"entity_type": kind, "entity_name": name} for kind, name in parts.items()]
        answers[entity] = {"error_code": error, "error_message": why, "entity": shown}
    return {"entries": list(answers.values())}


async def _alter(ctx: Context, parts: Mapping[str, str | None], entity: Entity, ops: list[Message], *, validate_only: bool) -> None:
    """Raises KafkaError."""
    keys = await _keys_of(parts)
    changes: dict[str, float | None] = {}
    for op in ops:
        key, value = op["key"], op["value"]
        if op["remove"]:
            if key in keys:  # what can't be set was not set
                changes[key] = None
            continue
        if key not in keys:
            raise KafkaError(Error.INVALID_REQUEST, f"Invalid configuration key {key}")
        _check(key, value, keys[key])
        changes[key] = value
    if validate_only:
        return
    try:
        await ctx.quotas.alter(entity, changes)
    except StoreError as error:
        ctx.log.error("%s", error)
        raise KafkaError(Error.KAFKA_STORAGE_ERROR, "the broker's metadata can't be written") from error


async def _keys_of(parts: Mapping[str, str | None]) -> Mapping[str, int | None]:
    """The quotas that an entity may have. Raises KafkaError when there can be no such entity."""
    if not parts:
        raise KafkaError(Error.INVALID_REQUEST, "Invalid empty client quota entity")
    for kind, name in parts.items():
        if kind not in (USER, CLIENT, IP):
            raise KafkaError(Error.INVALID_REQUEST, f"Unhandled client quota entity type: {kind}")
        if name == "":
            raise KafkaError(Error.INVALID_REQUEST, f"Empty {kind} not supported")
    if IP not in parts:
        return _OF_CLIENTS
    if len(parts) > 1:
        why = "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId"
        raise KafkaError(Error.INVALID_REQUEST, why)
    address = parts[IP]
    if address is not None:
        try:
            await asyncio.get_running_loop().getaddrinfo(address, None)
        except (OSError, UnicodeError):
            raise KafkaError(Error.INVALID_REQUEST, f"{address} is not a valid IP or resolvable host.") from None
    return _OF_ADDRESSES


def _check(key: str, value: float, whole_max: int | None) -> None:
    if not value > 0:
        raise KafkaError(Error.INVALID_REQUEST, f"Quota {key} must be greater than 0")
    if whole_max is None:
        return
    if value > whole_max:
        kind = "INT" if whole_max == INT32_MAX else "LONG"
        raise KafkaError(Error.INVALID_REQUEST, f"Proposed value for {key} is too large for a {kind}.")
    if value != int(value):
        raise KafkaError(Error.INVALID_REQUEST, f"{key} cannot be a fractional value.")
