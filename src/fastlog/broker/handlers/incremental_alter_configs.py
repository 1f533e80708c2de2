"""IncrementalAlterConfigs v0-1: changes single settings of topics and brokers (KIP-339)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker.resources import TOPIC, alter, alter_all
from fastlog.config.keys import Type
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlog.broker.context import Context, RequestContext
    from fastlog.config.keys import Key
    from fastlog.protocol.messages import Message

SET: Final = 0
DELETE: Final = 1
APPEND: Final = 2
SUBTRACT: Final = 3
_NAMES: Final = {APPEND: "APPEND", SUBTRACT: "SUBTRACT"}


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    async def one(resource: Message) -> None:
        kind = resource["resource_type"]

        def change(own: dict[str, str], keys: Mapping[str, Key]) -> dict[str, str]:
            missing = [c["name"] for c in resource["configs"] if c["value"] is None and c["config_operation"] != DELETE]
            if missing:
                raise KafkaError(Error.INVALID_REQUEST, f"Null value not supported for : {','.join(missing)}")
            for config in resource["configs"]:
                name, operation, value = config["name"], config["config_operation"], config["value"]
                if operation == SET:
                    own[name] = value
                elif operation == DELETE:
                    own.pop(name, None)
                elif operation in _NAMES:
                    key = keys.get(name)
                    if key is None or key.type is not Type.LIST:
                        why = f"Can't {_NAMES[operation]} to key {name} because its type is not LIST."
                        raise KafkaError(Error.INVALID_CONFIG, why)
                    own[name] = _combine(_list(ctx, kind, key, own), value.split(","), operation)
                else:
                    raise KafkaError(Error.INVALID_REQUEST, f"Unknown config operation {operation} for {name}")
            return own

        await alter(ctx, kind, resource["resource_name"], change, validate_only=message["validate_only"])

    return {"responses": await alter_all(message["resources"], one)}


def _list(ctx: Context, kind: int, key: Key, own: Mapping[str, str]) -> list[str]:
    """What a list holds now: what the resource sets, else what counts in its place."""
    if key.name in own:
        return list(key.parse(own[key.name]))
    if kind == TOPIC:
        return list(ctx.configs.layers.topic_value(key.name, own))
    return list(ctx.configs.get(key.name) or ())


def _combine(items: list[str], given: list[str], operation: int) -> str:
    given = [item.strip() for item in given if item.strip()]
    if operation == APPEND:
        items = items + [item for item in given if item not in items]
    else:
        items = [item for item in items if item not in given]
    return ",".join(items)
