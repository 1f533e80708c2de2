"""What settings belong to (ConfigResource), and changing them: the part that AlterConfigs and IncrementalAlterConfigs share."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.broker.configs import may_change
from fastlog.broker.said import said
from fastlog.broker.topic_names import why_invalid
from fastlog.config.broker import BROKER_KEYS
from fastlog.config.keys import ConfigError
from fastlog.config.topic import TOPIC_KEYS
from fastlog.metadata.store import StoreError
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastlog.broker.context import Context
    from fastlog.config.keys import Key
    from fastlog.protocol.messages import Message

TOPIC: Final = 2
BROKER: Final = 4

Change: TypeAlias = "Callable[[dict[str, str], Mapping[str, Key]], dict[str, str]]"
"""From what a resource sets, and the settings that there are for its kind, to what it will set. Raises KafkaError."""


async def alter_all(resources: list[Message], alter: Callable[[Message], Awaitable[None]]) -> list[dict[str, Any]]:
    """Alters each resource; the responses. A resource that is named twice is refused, twice."""
    counts = Counter((resource["resource_type"], resource["resource_name"]) for resource in resources)

    async def one(resource: Message) -> dict[str, Any]:
        kind, name = resource["resource_type"], resource["resource_name"]
        error, why = Error.NONE, None
        try:
            if counts[kind, name] > 1:
                raise KafkaError(Error.INVALID_REQUEST, "Each resource must appear at most once.")
            if len({config["name"] for config in resource["configs"]}) < len(resource["configs"]):
                raise KafkaError(Error.INVALID_REQUEST, "Error due to duplicate config keys")
            await alter(resource)
        except KafkaError as failure:
            error, why = failure.code, said(failure)
        return {"error_code": error, "error_message": why, "resource_type": kind, "resource_name": name}

    return list(await asyncio.gather(*(one(resource) for resource in resources)))


async def alter(ctx: Context, kind: int, name: str, change: Change, *, validate_only: bool) -> None:
    """Changes what a topic or broker sets; durable and in force when it returns. Raises KafkaError; then nothing changed."""
    if kind == TOPIC:
        await _alter_topic(ctx, name, change, validate_only=validate_only)
    elif kind == BROKER:
        await _alter_broker(ctx, name, change, validate_only=validate_only)
    else:
        raise KafkaError(Error.INVALID_REQUEST, f"Unknown resource type {kind}")


async def _alter_topic(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    if not name:
        raise KafkaError(Error.INVALID_REQUEST, "Default topic resources are not allowed.")
    why = why_invalid(name)
    if why is not None:
        raise KafkaError(Error.INVALID_TOPIC_EXCEPTION, why)
    topic = ctx.topics.get(name)
    if topic is None:
        raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    await ctx.topics.alter_configs(topic, lambda own: change(own, TOPIC_KEYS), validate_only=validate_only)


async def _alter_broker(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    if name:
        try:
            broker_id = int(name)
        except ValueError:
            raise KafkaError(Error.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}") from None
        if broker_id != ctx.cluster.node_id:
            raise KafkaError(Error.INVALID_REQUEST, f"Unexpected broker id, expected {ctx.cluster.node_id}, but received {name}")
        name = str(broker_id)

    def checked(own: dict[str, str]) -> dict[str, str]:
        wanted = change(dict(own), BROKER_KEYS)
        changed = [key for key in sorted(own.keys() | wanted.keys()) if own.get(key) != wanted.get(key)]
        unknown = [key for key in changed if key not in BROKER_KEYS]
        if unknown:
            raise KafkaError(Error.INVALID_CONFIG, f"Unknown broker config name: {unknown[0]}")
        fixed = [key for key in changed if not may_change(key)]
        if fixed:
            raise KafkaError(Error.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
        try:
            for key, text in wanted.items():
                BROKER_KEYS[key].parse(text)
        except ConfigError as error:
            raise KafkaError(Error.INVALID_REQUEST, str(error)) from None
        return wanted

    try:
        await ctx.configs.alter_dynamic(name, checked, validate_only=validate_only)
    except StoreError as error:
        ctx.log.error("%s", error)
        raise KafkaError(Error.KAFKA_STORAGE_ERROR, "the broker's metadata can't be written") from error
