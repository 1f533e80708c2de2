"""DescribeClientQuotas v0-1: the quotas of entities that match (KIP-546)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.quotas import CLIENT, IP, USER
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.quotas import Entity
    from fastlog.protocol.messages import Message

_EXACT: Final = 0
_DEFAULT: Final = 1
_ANY: Final = 2


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    components = message["components"]
    try:
        _check(components)
    except KafkaError as failure:
        return {"error_code": failure.code, "error_message": failure.message, "entries": None}
    entries = [
        {
            "entity": [{"entity_type": kind, "entity_name": name} for kind, name in entity],
            "values": [{"key": key, "value": value} for key, value in quotas.items()],
        }
        for entity, quotas in ctx.quotas.all()
        if _matches(entity, components, strict=message["strict"])
    ]
    return {"error_code": Error.NONE, "error_message": "", "entries": entries}


def _check(components: list[Message]) -> None:
    kinds: set[str] = set()
    for component in components:
        kind, how, match = component["entity_type"], component["match_type"], component["match"]
        if not kind:
            raise KafkaError(Error.INVALID_REQUEST, "Invalid empty entity type.")
        if kind in kinds:
            raise KafkaError(Error.INVALID_REQUEST, f"Entity type {kind} cannot appear more than once in the filter.")
        if kind not in (USER, CLIENT, IP):
            raise KafkaError(Error.UNSUPPORTED_VERSION, f"Unsupported entity type {kind}")
        if how == _EXACT and match is None:
            raise KafkaError(Error.INVALID_REQUEST, "Request specified MATCH_TYPE_EXACT, but set match string to null.")
        if how in (_DEFAULT, _ANY) and match is not None:
            name = "MATCH_TYPE_DEFAULT" if how == _DEFAULT else "MATCH_TYPE_SPECIFIED"
            raise KafkaError(Error.INVALID_REQUEST, f"Request specified {name}, but also specified a match string.")
        if how not in (_EXACT, _DEFAULT, _ANY):
            raise KafkaError(Error.INVALID_REQUEST, f"Unknown match type {how}")
        kinds.add(kind)
    if IP in kinds and len(kinds) > 1:
        raise KafkaError(
            Error.INVALID_REQUEST,
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.",
        )


def _matches(entity: Entity, components: list[Message], *, strict: bool) -> bool:
    parts = dict(entity)
    if strict and len(parts) != len(components):
        return False
    for component in components:
        kind, how = component["entity_type"], component["match_type"]
        if kind not in parts:
            return False
        if how != _ANY and parts[kind] != component["match"]:
            return False
    return True
