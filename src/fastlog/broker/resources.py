"""What settings belong to (ConfigResource), and changing them: the part that AlterConfigs and IncrementalAlterConfigs share."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.broker.configs import MIN_IN_SYNC, may_change
from fastlog.broker.said import said
from fastlog.broker.topic_names import why_invalid
from fastlog.config.broker import BROKER_KEYS
from fastlog.config.client_metrics import CLIENT_METRICS_KEYS, check_interval, check_match
from fastlog.config.group import BOUNDED, GROUP_KEYS
from fastlog.config.keys import ConfigError
from fastlog.config.topic import TOPIC_KEYS
from fastlog.config.values import check_threads
from fastlog.metadata.store import StoreError
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from fastlog.broker.context import Context
    from fastlog.config.keys import Key
    from fastlog.protocol.messages import Message

TOPIC: Final = 2
BROKER: Final = 4
BROKER_LOGGER: Final = 8
CLIENT_METRICS: Final = 16
GROUP: Final = 32

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
    """Changes what a topic, broker, group or subscription of client metrics sets; durable and in force when it returns.

    Raises KafkaError; then nothing changed.
    """
    if kind == TOPIC:
        await _alter_topic(ctx, name, change, validate_only=validate_only)
    elif kind == BROKER:
        await _alter_broker(ctx, name, change, validate_only=validate_only)
    elif kind == GROUP:
        await _alter_group(ctx, name, change, validate_only=validate_only)
    elif kind == CLIENT_METRICS:
        await _alter_client_metrics(ctx, name, change, validate_only=validate_only)
    else:
        raise KafkaError(Error.INVALID_REQUEST, f"Unknown resource type {kind}")


async def _alter_topic(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    if not name:
        raise KafkaError(Error.INVALID_REQUEST, "Default topic resources are not allowed.")
    topic = ctx.topics.get(name)
    if topic is None:  # what is wrong with the settings is said first
        wanted = change({}, TOPIC_KEYS)
        why = why_invalid(name)
        if why is not None:
            raise KafkaError(Error.INVALID_TOPIC_EXCEPTION, why)
        ctx.topics.check_configs(wanted)
        raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    await ctx.topics.alter_configs(topic, lambda own: change(own, TOPIC_KEYS), validate_only=validate_only)


async def _alter_group(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    def checked(own: dict[str, str]) -> dict[str, str]:
        wanted = change(own, GROUP_KEYS)
        if not name:
            raise KafkaError(Error.INVALID_REQUEST, "Default group resources are not allowed.")
        try:
            for key in wanted:
                if key not in GROUP_KEYS:
                    raise ConfigError(f"Unknown group config name: {key}")
            parsed = {key: GROUP_KEYS[key].parse(text) for key, text in wanted.items()}
            for key, (low, high) in BOUNDED.items():
                if key in parsed and parsed[key] < ctx.configs.get(low):
                    raise ConfigError(f"{key} must be greater than or equal to {low}")
                if key in parsed and parsed[key] > ctx.configs.get(high):
                    raise ConfigError(f"{key} must be less than or equal to {high}")
            for kind in ("consumer", "share", "streams"):
                _check_heartbeat(ctx, kind, wanted)
        except ConfigError as error:
            raise KafkaError(Error.INVALID_CONFIG, str(error)) from None
        return wanted

    with storing(ctx):
        await ctx.configs.groups.alter(name, checked, validate_only=validate_only)


def _check_heartbeat(ctx: Context, kind: str, wanted: Mapping[str, str]) -> None:
    """A member must be able to send one before its session times out. Raises ConfigError."""
    session, heartbeat = f"{kind}.session.timeout.ms", f"{kind}.heartbeat.interval.ms"
    if ctx.configs.layers.group_value(session, wanted) <= ctx.configs.layers.group_value(heartbeat, wanted):
        raise ConfigError(f"{session} must be greater than {heartbeat}")


async def _alter_client_metrics(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    def checked(own: dict[str, str]) -> dict[str, str]:
        wanted = change(own, CLIENT_METRICS_KEYS)
        if not name:
            raise KafkaError(Error.INVALID_REQUEST, "Subscription name can't be empty")
        for key in wanted:
            if key not in CLIENT_METRICS_KEYS:
                raise KafkaError(Error.INVALID_REQUEST, f"Unknown client metrics configuration: {key}")
        code = Error.INVALID_CONFIG
        try:
            parsed = {key: CLIENT_METRICS_KEYS[key].parse(text) for key, text in wanted.items()}
            if "interval.ms" in parsed:
                code = Error.INVALID_REQUEST  # as in Kafka, of a number that is out of bounds
                check_interval(parsed["interval.ms"])
                code = Error.INVALID_CONFIG
            check_match(parsed.get("match", []))
        except ConfigError as error:
            raise KafkaError(code, str(error)) from None
        return wanted

    with storing(ctx):
        await ctx.configs.client_metrics.alter(name, checked, validate_only=validate_only)


@contextlib.contextmanager
def storing(ctx: Context) -> Iterator[None]:
    """A failure of the metadata store becomes an answer. Raises KafkaError."""
    try:
        yield
    except StoreError as error:
        ctx.log.error("%s", error)
        raise KafkaError(Error.KAFKA_STORAGE_ERROR, "the broker's metadata can't be written") from error


def node_id(name: str) -> int:
    """Of a broker resource's name. Raises KafkaError."""
    try:
        return int(name)
    except ValueError:
        raise KafkaError(Error.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}") from None


async def _alter_broker(ctx: Context, name: str, change: Change, *, validate_only: bool) -> None:
    if name:
        broker_id = node_id(name)
        if broker_id != ctx.cluster.node_id:
            raise KafkaError(Error.INVALID_REQUEST, f"Unexpected broker id, expected {ctx.cluster.node_id}, but received {name}")
        name = str(broker_id)

    def checked(own: dict[str, str]) -> dict[str, str]:
        layers = ctx.configs.layers
        wanted = change(dict(own), BROKER_KEYS)
        changed = [key for key in sorted(own.keys() | wanted.keys()) if own.get(key) != wanted.get(key)]
        unknown = [key for key in changed if key not in BROKER_KEYS]
        fixed = [key for key in changed if key in BROKER_KEYS and not may_change(key)]
        if fixed:
            raise KafkaError(Error.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
        try:
            for key, text in wanted.items():
                if key in BROKER_KEYS:
                    BROKER_KEYS[key].parse(text)
            check_threads(layers, replace(layers, **{"dynamic" if name else "dynamic_default": wanted}))
        except ConfigError as error:
            raise KafkaError(Error.INVALID_REQUEST, str(error)) from None
        if name and MIN_IN_SYNC in changed:
            raise KafkaError(Error.INVALID_CONFIG, f"Broker-level {MIN_IN_SYNC} cannot be altered while ELR is enabled.")
        if not name and MIN_IN_SYNC not in wanted:
            raise KafkaError(Error.INVALID_CONFIG, f"Cluster-level {MIN_IN_SYNC} cannot be removed while ELR is enabled.")
        if unknown:  # said last: Kafka says what is wrong with the others, and takes these
            raise KafkaError(Error.INVALID_CONFIG, f"Unknown broker config name: {unknown[0]}")
        return wanted

    with storing(ctx):
        await ctx.configs.alter_dynamic(name, checked, validate_only=validate_only)
