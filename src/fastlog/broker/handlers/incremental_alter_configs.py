"""IncrementalAlterConfigs v0-1: changes single settings (KIP-339; levels of loggers, KIP-412)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.broker import loggers
from fastlog.broker.resources import BROKER, BROKER_LOGGER, TOPIC, alter, alter_all, node_id
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
        if kind == BROKER_LOGGER:
            _alter_loggers(ctx, resource, validate_only=message["validate_only"])
            return

        def change(own: dict[str, str], keys: Mapping[str, Key]) -> dict[str, str]:
            _check_values(resource)
            for config in resource["configs"]:
                name, operation, value = config["name"], config["config_operation"], config["value"]
                if operation == SET:
                    own[name] = value
                elif operation == DELETE:
                    own.pop(name, None)
                elif operation in _NAMES:
                    key = keys.get(name)
                    if key is None or key.type is not Type.LIST or kind not in (TOPIC, BROKER):
                        raise _no_list(kind, operation, name, known=key is not None)
                    own[name] = _combine(_list(ctx, kind, key, own), value.split(","), operation)
                else:
                    raise KafkaError(Error.INVALID_REQUEST, f"Unknown config operation {operation} for {name}")
            return own

        await alter(ctx, kind, resource["resource_name"], change, validate_only=message["validate_only"])

    return {"responses": await alter_all(message["resources"], one)}


def _no_list(kind: int, operation: int, name: str, *, known: bool) -> KafkaError:
    """Kafka refuses it in a broker for brokers, in the controller for all else."""
    if kind != BROKER:
        return KafkaError(Error.INVALID_CONFIG, f"Can't {_NAMES[operation]} to key {name} because its type is not LIST.")
    if not known:
        return KafkaError(Error.INVALID_CONFIG, f"Unknown config name: {name}")
    return KafkaError(Error.INVALID_CONFIG, f"Config value {_NAMES[operation].lower()} is not allowed for config key: {name}")


def _check_values(resource: Message) -> None:
    """Raises KafkaError where a value is missing."""
    missing = [c["name"] for c in resource["configs"] if c["value"] is None and c["config_operation"] != DELETE]
    if missing:
        raise KafkaError(Error.INVALID_REQUEST, f"Null value not supported for : {','.join(missing)}")


def _alter_loggers(ctx: Context, resource: Message, *, validate_only: bool) -> None:
    name = resource["resource_name"]
    if node_id(name) != ctx.cluster.node_id:
        raise KafkaError(Error.INVALID_REQUEST, f"Unexpected node id. Expected {ctx.cluster.node_id}, but received {name}")
    _check_values(resource)
    changes = []
    for config in resource["configs"]:
        operation = config["config_operation"]
        if operation in _NAMES:
            raise KafkaError(Error.INVALID_REQUEST, f"{_NAMES[operation]} operation is not allowed for the BROKER_LOGGER resource")
        if operation not in (SET, DELETE):
            raise KafkaError(Error.INVALID_REQUEST, f"Unknown config operation {operation} for {config['name']}")
        changes.append((config["name"], config["value"] if operation == SET else None))
    loggers.alter(changes, validate_only=validate_only)


def _list(ctx: Context, kind: int, key: Key, own: Mapping[str, str]) -> list[str]:
    """What a list holds now: what the resource sets, else what counts in its place."""
    if key.name in own:
        return list(key.parse(own[key.name]))
    if kind == TOPIC:
        return list(ctx.configs.layers.topic_value(key.name, own))
    if kind == BROKER:
        return list(ctx.configs.get(key.name) or ())
    return list(key.parse(key.default or ""))


def _combine(items: list[str], given: list[str], operation: int) -> str:
    given = [item.strip() for item in given if item.strip()]
    if operation == APPEND:
        items = items + [item for item in given if item not in items]
    else:
        items = [item for item in items if item not in given]
    return ",".join(items)
