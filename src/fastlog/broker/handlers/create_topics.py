"""CreateTopics v2-7: topics with their number of partitions and settings; durable when it is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from fastlog.broker.describing import topic_configs
from fastlog.broker.replicas import check_replicas, check_replication_factor
from fastlog.broker.said import said
from fastlog.broker.topics import PARTITIONS_PER_REQUEST_MAX
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.broker.mutations import Mutations
    from fastlog.protocol.messages import Message

_DEFAULT: Final = -1
_STRICT_FIRST: Final = 6
"""From this version on a client is refused what its quota does not allow (KIP-599)."""


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    asked = message["topics"]
    counts = Counter(topic["name"] for topic in asked)
    single = [topic for topic in asked if counts[topic["name"]] == 1]
    twice = [
        {"name": name, "error_code": Error.INVALID_REQUEST, "error_message": "Duplicate topic name."}
        for name, count in counts.items()
        if count > 1
    ]
    total = sum(max(topic["num_partitions"], len(topic["assignments"])) for topic in single)
    if total > PARTITIONS_PER_REQUEST_MAX:
        failure = KafkaError(Error.POLICY_VIOLATION, "Excessively large number of partitions per request.")
        return {"topics": [*(_refused(topic["name"], failure) for topic in single), *twice]}
    mutations = ctx.quotas.mutations(request.client_id, strict=request.version >= _STRICT_FIRST)
    created = await asyncio.gather(*(_create(ctx, topic, mutations, validate_only=message["validate_only"]) for topic in single))
    return {"topics": [*created, *twice], "throttle_time_ms": mutations.throttle_ms}


async def _create(ctx: Context, asked: Message, mutations: Mutations, *, validate_only: bool) -> dict[str, Any]:
    name = asked["name"]
    try:
        ctx.topics.check_new(name)
        configs = _configs(asked)
        ctx.topics.check_configs(configs)
        partitions = _partitions(ctx, asked)
        mutations.take(partitions)
        topic = await ctx.topics.create(name, partitions, configs, validate_only=validate_only)
    except KafkaError as failure:
        return _refused(name, failure)
    shown = [  # as it was asked for, where it was
        {key: config[key] for key in ("name", "read_only", "config_source", "is_sensitive")}
        | {"value": configs.get(config["name"], config["value"])}
        for config in topic_configs(ctx.configs.layers, configs)
    ]
    answer = {
        "name": name,
        "error_code": Error.NONE,
        "error_message": None,
        "num_partitions": partitions,
        "replication_factor": 1,
        "configs": shown,
    }
    return answer | {"topic_id": uuid4() if topic is None else topic.topic_id}  # of a topic that is only validated too, as Kafka's


def _refused(name: str, failure: KafkaError) -> dict[str, Any]:
    return {"name": name, "error_code": failure.code, "error_message": said(failure), "configs": []}


def _partitions(ctx: Context, asked: Message) -> int:
    """How many partitions are asked for. Raises KafkaError."""
    count, factor, assignments = asked["num_partitions"], asked["replication_factor"], asked["assignments"]
    if not assignments:
        if count < 1 and count != _DEFAULT:
            raise KafkaError(Error.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
        check_replication_factor(factor)
        return int(ctx.configs.get("num.partitions") if count == _DEFAULT else count)
    if factor != _DEFAULT:
        raise KafkaError(Error.INVALID_REQUEST, "A manual partition assignment was specified, but replication factor was not set to -1.")
    if count != _DEFAULT:
        raise KafkaError(Error.INVALID_REQUEST, "A manual partition assignment was specified, but numPartitions was not set to -1.")
    seen: set[int] = set()
    for assignment in assignments:
        index = assignment["partition_index"]
        if index in seen:
            raise KafkaError(Error.INVALID_REPLICA_ASSIGNMENT, f"Found multiple manual partition assignments for partition {index}")
        seen.add(index)
        check_replicas(assignment["broker_ids"], ctx.cluster.node_id)
    if seen != set(range(len(seen))):
        raise KafkaError(Error.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence")
    return len(seen)


def _configs(asked: Message) -> dict[str, str]:
    configs = {}
    for config in asked["configs"]:
        if config["value"] is None:
            raise KafkaError(Error.INVALID_CONFIG, f"Null value not supported for topic configs: {config['name']}")
        configs[config["name"]] = config["value"]
    return configs
