"""Topics, partitions, configs, the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step, topic_id
from tests.differential.symbols import NO_UUID

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step

_TOPICS = ["§a", "§b", "§c", "§new", "§missing"]
_CONFIGS = [
    ("retention.ms", ["1000", "-1", "-2", "abc", "", "9223372036854775807", "9223372036854775808"]),
    ("cleanup.policy", ["delete", "compact", "compact,delete", "delete,delete", "", "none", " delete ", "DELETE"]),
    ("compression.type", ["producer", "gzip", "snappy", "lz4", "zstd", "uncompressed", "none", "brotli"]),
    ("max.message.bytes", ["0", "-1", "1000012", "2147483647", "2147483648"]),
    ("segment.bytes", ["1048576", "14", "13", "0", "2147483647"]),
    ("segment.ms", ["1", "0", "-1", "600000"]),
    ("min.insync.replicas", ["1", "0", "2", "-1"]),
    ("message.timestamp.type", ["CreateTime", "LogAppendTime", "createtime", ""]),
    ("message.timestamp.before.max.ms", ["0", "-1", "3600000"]),
    ("unclean.leader.election.enable", ["true", "false", "TRUE", "yes", ""]),
    ("preallocate", ["true", "0"]),
    ("min.cleanable.dirty.ratio", ["0.5", "0", "1", "1.1", "-0.1", "abc", "1e-1"]),
    ("flush.messages", ["1", "0"]),
    ("delete.retention.ms", ["0", "-1"]),
    ("file.delete.delay.ms", ["0", "60000"]),
    ("index.interval.bytes", ["0", "4096", "-1"]),
    ("segment.index.bytes", ["4", "3", "10485760"]),
    ("segment.jitter.ms", ["0", "-1", "5"]),
    ("retention.bytes", ["-1", "1000", "-5"]),
    ("max.compaction.lag.ms", ["1", "0", "100"]),
    ("min.compaction.lag.ms", ["0", "-1", "50"]),
    ("compression.gzip.level", ["-1", "0", "9", "10"]),
    ("compression.zstd.level", ["3", "23", "-131073"]),
    ("compression.lz4.level", ["1", "17", "18", "0"]),
    ("follower.replication.throttled.replicas", ["*", "0:1", "", "x"]),
    ("remote.storage.enable", ["false", "true"]),
    ("local.retention.ms", ["-2", "1000"]),
    ("message.format.version", ["3.0"]),
    ("no.such.config", ["1"]),
    ("", ["1"]),
]


def _config(chance: random.Random) -> tuple[str, str]:
    name, values = chance.choice(_CONFIGS)
    return name, chance.choice(values)


def topics(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 3, "§b": 1})
    for _ in range(length):
        yield _topic_step(chance)


def _new_topic(chance: random.Random) -> dict[str, Any]:
    configs = [dict(zip(("name", "value"), _config(chance), strict=True)) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
    made: dict[str, Any] = {"name": chance.choice(_TOPICS), "configs": configs}
    if chance.random() < 0.3:
        made |= {"num_partitions": -1, "replication_factor": -1}
        made["assignments"] = [{"partition_index": i, "broker_ids": [1]} for i in range(chance.randrange(3))]
    else:
        made |= {"num_partitions": chance.choice([1, 2, 3, -1]), "replication_factor": chance.choice([1, 1, 1, -1])}
    return made


def _topic_step(chance: random.Random) -> Step:
    validate = chance.random() < 0.2
    match chance.randrange(9):
        case 0 | 1:
            message = {"topics": [_new_topic(chance) for _ in range(chance.choice([1, 1, 2]))], "timeout_ms": 30_000}
            return step("CreateTopics", chance, message | {"validate_only": validate})
        case 2:
            asked = some(chance, _TOPICS)
            by_id = chance.random() < 0.5
            topics = [{"name": None, "topic_id": topic_id(n, chance)} if by_id else {"name": n, "topic_id": NO_UUID} for n in asked]
            return step("DeleteTopics", chance, {"topics": topics, "topic_names": asked, "timeout_ms": 30_000})
        case 3 | 4:
            topics = []
            for name in some(chance, _TOPICS):
                new = None if chance.random() < 0.7 else [{"broker_ids": [1]} for _ in range(chance.randrange(3))]
                topics.append({"name": name, "count": chance.choice([1, 2, 3, 4, 5, 0]), "assignments": new})
            return step("CreatePartitions", chance, {"topics": topics, "timeout_ms": 30_000, "validate_only": validate})
        case 5:
            named = some(chance, _TOPICS)
            message = {"topics": [{"name": n} for n in named], "response_partition_limit": chance.choice([2000, 1, 2, 3])}
            if chance.random() < 0.5:
                message["cursor"] = {"topic_name": chance.choice(_TOPICS), "partition_index": chance.choice([0, 1, 2, 9])}
            return step("DescribeTopicPartitions", chance, message)
    return metadata(chance)


def metadata(chance: random.Random) -> Step:
    named: list[dict[str, Any]] = [{"name": n, "topic_id": NO_UUID} for n in some(chance, _TOPICS)]
    if chance.random() < 0.3:
        named = [{"name": None, "topic_id": topic_id(n, chance)} for n in some(chance, _TOPICS)]
        return step("Metadata", chance, _metadata(named, chance, create=False), at_least=10)
    return step("Metadata", chance, _metadata(None if chance.random() < 0.1 else named, chance, create=chance.random() < 0.3), at_least=1)


def _metadata(named: list[dict[str, Any]] | None, chance: random.Random, *, create: bool) -> dict[str, Any]:
    return {
        "topics": named,
        "allow_auto_topic_creation": create,
        "include_cluster_authorized_operations": chance.random() < 0.5,
        "include_topic_authorized_operations": chance.random() < 0.5,
    }


def configs(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 1, "§b": 1})
    for _ in range(length):
        names = some(chance, ["§a", "§b", "§missing"], 2)
        match chance.randrange(6):
            case 0:
                resources = [{"resource_type": 2, "resource_name": n, "configs": _plain(chance)} for n in names]
                yield step("AlterConfigs", chance, {"resources": resources, "validate_only": chance.random() < 0.3})
            case 1 | 2 | 3:
                resources = [{"resource_type": 2, "resource_name": n, "configs": _operations(chance)} for n in names]
                yield step("IncrementalAlterConfigs", chance, {"resources": resources, "validate_only": chance.random() < 0.3})
            case _:
                keys = None if chance.random() < 0.3 else [name for name, _ in some(chance, _CONFIGS)]
                resources = [{"resource_type": 2, "resource_name": n, "configuration_keys": keys} for n in names]
                flags = {"include_synonyms": chance.random() < 0.5, "include_documentation": chance.random() < 0.2}
                yield step("DescribeConfigs", chance, {"resources": resources, **flags})


def _plain(chance: random.Random) -> list[dict[str, Any]]:
    return [dict(zip(("name", "value"), _config(chance), strict=True)) for _ in range(chance.choice([0, 1, 1, 2]))]


def _operations(chance: random.Random) -> list[dict[str, Any]]:
    made = []
    for _ in range(chance.choice([1, 1, 2])):
        name, value = _config(chance)
        operation = chance.choice([0, 0, 0, 1, 2, 3])
        made.append({"name": name, "config_operation": operation, "value": None if operation == 1 else value})
    return made


def cluster(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 1})
    for _ in range(length):
        match chance.randrange(5):
            case 0:
                names = {
                    "client_software_name": chance.choice(["x", "", "-", "a b", "apache-kafka-java"]),
                    "client_software_version": "1.0",
                }
                yield step("ApiVersions", chance, names)
            case 1:
                message = {"include_cluster_authorized_operations": chance.random() < 0.5, "endpoint_type": chance.choice([1, 1, 2, 0])}
                yield step("DescribeCluster", chance, message | {"include_fenced_brokers": chance.random() < 0.5})
            case 2:
                keys = some(chance, ["§g", "", "§h", "x" * 300])
                kind = chance.choice([0, 0, 0, 2, 3, -1])
                yield step("FindCoordinator", chance, {"key": keys[0], "key_type": kind, "coordinator_keys": keys})
            case 3:
                yield step(
                    "InitProducerId",
                    chance,
                    {"transactional_id": None, "transaction_timeout_ms": 1000, "producer_id": -1, "producer_epoch": -1},
                    named="p",
                )
            case _:
                yield metadata(chance)
