"""Settings of the broker, of groups, of subscriptions of client metrics; quotas; what one node answers to an operator of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step

_BROKER, _METRICS, _GROUP = 4, 16, 32
# Set for one broker or for all, and taken back at the end: what they do does not show in another sequence.
_BROKER_CONFIGS = [
    ("log.cleaner.backoff.ms", ["15000", "-1", "x", "0"]),
    ("log.cleaner.io.max.bytes.per.second", ["1000000", "1e6", "abc"]),
    ("compression.zstd.level", ["4", "99", ""]),
    ("log.message.timestamp.type", ["LogAppendTime", "nonsense", "CreateTime"]),
    ("log.roll.ms", ["600000", "0"]),
    ("message.max.bytes", ["2000000", "-1"]),
    ("node.id", ["1", "2"]),
    ("broker.rack", ["r"]),
    ("no.such.setting", ["1"]),
    ("log.cleanup.policy", ["compact", "delete,compact", "none"]),
    ("min.insync.replicas", ["1", "2", "0", "x"]),
]
_GROUP_CONFIGS = [
    ("consumer.session.timeout.ms", ["50000", "1", "1000000", "abc"]),
    ("consumer.heartbeat.interval.ms", ["6000", "1", "60000"]),
    ("share.auto.offset.reset", ["earliest", "nonsense"]),
    ("no.such.setting", ["1"]),
]
_METRICS_CONFIGS = [
    ("metrics", ["org.apache.kafka.producer.", "*", ""]),
    ("interval.ms", ["60000", "99", "100", "3600001", "x"]),
    ("match", ["client_id=x", "nonsense", "client_id=[", "what=x"]),
    ("no.such.setting", ["1"]),
]
_QUOTAS = [
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
    "connection_creation_rate",
    "nonsense",
]


def _operations(chance: random.Random, known: list[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    made = []
    for name, values in some(chance, known, 2):
        operation = chance.choice([0, 0, 0, 1, 2, 3])
        made.append({"name": name, "config_operation": operation, "value": None if operation == 1 else chance.choice(values)})
    return made


def _resource(chance: random.Random) -> tuple[int, str, list[tuple[str, list[str]]]]:
    match chance.randrange(3):
        case 0:
            return _BROKER, chance.choice(["1", "1", "", "2", "x"]), _BROKER_CONFIGS
        case 1:
            return _GROUP, chance.choice(["§g", "§g", "§h", ""]), _GROUP_CONFIGS
    return _METRICS, chance.choice(["§m", "§m", ""]), _METRICS_CONFIGS


def settings(chance: random.Random, length: int) -> Iterator[Step]:
    for _ in range(length):
        kind, name, known = _resource(chance)
        match chance.randrange(6):
            case 0:
                configs = [{"name": key, "value": chance.choice(values)} for key, values in some(chance, known, 2)]
                message = {"resources": [{"resource_type": kind, "resource_name": name, "configs": configs}]}
                yield step("AlterConfigs", chance, message | {"validate_only": kind == _BROKER}, sane=kind == _BROKER)
            case 1 | 2:
                message = {"resources": [{"resource_type": kind, "resource_name": name, "configs": _operations(chance, known)}]}
                yield step("IncrementalAlterConfigs", chance, message | {"validate_only": kind == _BROKER}, sane=kind == _BROKER)
            case 3:
                yield step("ListConfigResources", chance, {"resource_types": chance.choice([[], [_GROUP], [_METRICS], [_GROUP, _METRICS]])})
            case _:
                keys = [key for key, _ in some(chance, known, 9)]
                flags = {"include_synonyms": chance.random() < 0.7, "include_documentation": chance.random() < 0.2}
                yield step(
                    "DescribeConfigs",
                    chance,
                    {"resources": [{"resource_type": kind, "resource_name": name, "configuration_keys": keys}], **flags},
                    sane=kind == _BROKER,  # without names it would be about ports and directories
                )


def _entity(chance: random.Random) -> list[dict[str, Any]]:
    parts = chance.choice([["user"], ["client-id"], ["user", "client-id"], ["ip"], ["nonsense"], []])
    names: dict[str, list[str | None]] = {
        "user": ["§u", None],
        "client-id": ["§c", "§d"],
        "ip": ["127.0.0.9", "not an address"],
        "nonsense": ["x"],
    }
    return [{"entity_type": kind, "entity_name": chance.choice(names[kind])} for kind in parts]


def quotas(chance: random.Random, length: int) -> Iterator[Step]:
    for _ in range(length):
        if chance.random() < 0.5:
            entries = [
                {
                    "entity": [part for part in _entity(chance) if part["entity_name"] is not None],
                    "ops": [
                        {"key": key, "value": chance.choice([1000.0, 1e9, 0.5, 0.0, -1.0, 12.5]), "remove": chance.random() < 0.3}
                        for key in some(chance, _QUOTAS, 2)
                    ],
                }
                for _ in range(chance.choice([1, 1, 2]))
            ]
            yield step("AlterClientQuotas", chance, {"entries": entries, "validate_only": chance.random() < 0.3})
        else:
            components = [
                {"entity_type": kind, "match_type": kind_of, "match": name}
                for kind, kind_of, name in some(
                    chance, [("user", 0, "§u"), ("client-id", 0, "§c"), ("client-id", 2, None), ("user", 1, None), ("ip", 2, None)], 2
                )
            ]
            yield step("DescribeClientQuotas", chance, {"components": components, "strict": chance.random() < 0.5})


def operator(chance: random.Random, length: int) -> Iterator[Step]:
    """What tools ask of a cluster, to one node."""
    yield create({"§a": 2, "§b": 1})
    names = ["§a", "§b", "§missing"]
    for _ in range(length):
        topics = [{"topic": n, "partitions": some(chance, [0, 1, 5])} for n in some(chance, names, 2)]
        match chance.randrange(10):
            case 9:
                deletions = [{"name": name, "mechanism": chance.choice([1, 2])} for name in some(chance, ["§u", "§v"], 2)]
                upsertion = {"iterations": chance.choice([4096, 8192, 1, 99_999]), "salt": b"salt", "salted_password": b"p" * 32}
                named = some(chance, ["§u", "§w", ""], 2)
                upsertions = [{"name": name, "mechanism": chance.choice([1, 2, 2, 9])} | upsertion for name in named]
                yield step("AlterUserScramCredentials", chance, {"deletions": deletions, "upsertions": upsertions})
            case 8:
                users = chance.choice([None, [], ["§u"], ["§u", "§u", "§v"]])
                yield step("DescribeUserScramCredentials", chance, {"users": users and [{"name": name} for name in users]})
            case 0:
                yield step(
                    "ElectLeaders",
                    chance,
                    {"election_type": chance.choice([0, 1]), "topic_partitions": topics, "timeout_ms": 10_000},
                )
            case 1:
                wanted = [
                    {
                        "name": n,
                        "partitions": [
                            {"partition_index": p, "replicas": chance.choice([None, [1], [1, 1], [2], [1, 2], []])}
                            for p in some(chance, [0, 1, 5])
                        ],
                    }
                    for n in some(chance, names, 2)
                ]
                yield step("AlterPartitionReassignments", chance, {"timeout_ms": 10_000, "topics": wanted})
            case 2:
                listed = None if chance.random() < 0.2 else [{"name": n, "partition_indexes": [0, 1, 5]} for n in some(chance, names, 2)]
                yield step("ListPartitionReassignments", chance, {"timeout_ms": 10_000, "topics": listed})
            case 3:
                yield step("DescribeLogDirs", chance, {"topics": topics}, at_least=1)
            case 4:
                yield step("UnregisterBroker", chance, {"broker_id": chance.choice([7, 2, 99])}, sane=True)
            case 5:
                updates = [
                    {
                        "feature": name,
                        "max_version_level": level,
                        "allow_downgrade": False,
                        "upgrade_type": chance.choice([1, 2]),
                    }
                    for name, level in some(chance, [("nonsense", 1), ("transaction.version", 99), ("metadata.version", 1)], 1)
                ]
                yield step("UpdateFeatures", chance, {"timeout_ms": 10_000, "feature_updates": updates, "validate_only": True}, sane=True)
            case 6:
                dirs = [{"path": "/nowhere", "topics": [{"name": n, "partitions": [0, 5]} for n in some(chance, names, 2)]}]
                yield step("AlterReplicaLogDirs", chance, {"dirs": dirs})
            case _:
                asked = [
                    {
                        "topic_name": chance.choice(["__cluster_metadata", "§a"]),
                        "partitions": [{"partition_index": chance.choice([0, 0, 1])}],
                    }
                ]
                yield step("DescribeQuorum", chance, {"topics": asked}, sane=True)
