"""DescribeConfigs v1-4: settings of topics and brokers, with where their values come from (KIP-133, KIP-226, KIP-569)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.broker import loggers
from fastlog.broker.describing import broker_configs, client_metrics_configs, default_broker_configs, group_configs, topic_configs
from fastlog.broker.resources import BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC
from fastlog.broker.said import said
from fastlog.broker.topic_names import why_invalid
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    results = []
    for resource in message["resources"]:
        kind, name = resource["resource_type"], resource["resource_name"]
        result: dict[str, Any] = {"error_code": Error.NONE, "error_message": "", "resource_type": kind, "resource_name": name}
        try:
            result["configs"] = _describe(ctx, kind, name, resource["configuration_keys"] or [])
        except KafkaError as failure:
            result |= {"error_code": failure.code, "error_message": said(failure) or "", "configs": []}
        for config in result["configs"]:
            if not message["include_synonyms"]:
                config["synonyms"] = []
            if not message["include_documentation"]:
                config["documentation"] = None
        results.append(result)
    return {"results": results}


def _describe(ctx: Context, kind: int, name: str, keys: list[str]) -> list[dict[str, Any]]:
    layers = ctx.configs.layers
    if kind == TOPIC:
        why = why_invalid(name)
        if why is not None:
            raise KafkaError(Error.INVALID_TOPIC_EXCEPTION, why)
        topic = ctx.topics.get(name)
        if topic is None:
            raise KafkaError(Error.UNKNOWN_TOPIC_OR_PARTITION)
        return topic_configs(layers, topic.configs, keys)
    if kind == BROKER:
        if not name:
            return default_broker_configs(layers, keys)
        if _broker_id(name) != ctx.cluster.node_id:
            raise KafkaError(
                Error.INVALID_REQUEST, f"Unexpected broker id, expected {ctx.cluster.node_id} or empty string, but received {name}"
            )
        return broker_configs(layers, keys)
    if kind == BROKER_LOGGER:
        if not name:
            raise KafkaError(Error.INVALID_REQUEST, "Broker id must not be empty")
        if _broker_id(name) != ctx.cluster.node_id:
            raise KafkaError(Error.INVALID_REQUEST, f"Unexpected broker id, expected {ctx.cluster.node_id} but received {name}")
        return loggers.described(keys)
    if kind == GROUP:
        if not name:
            raise KafkaError(Error.INVALID_REQUEST, "Group name must not be empty")
        return group_configs(layers, ctx.configs.groups.get(name), keys)
    if kind == CLIENT_METRICS:
        if not name:
            raise KafkaError(Error.INVALID_REQUEST, "Client metrics subscription name must not be empty")
        return client_metrics_configs(ctx.configs.client_metrics.get(name), keys)
    raise KafkaError(
        Error.INVALID_REQUEST,
        "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible "
        "broker. See the broker logs for more details.",
    )


def _broker_id(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise KafkaError(Error.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}") from None
