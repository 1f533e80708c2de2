"""Settings over the wire: what Kafka 4.3 answers to DescribeConfigs, AlterConfigs and IncrementalAlterConfigs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker.plane import BatchRules, LogSettings
from fastlog.config.broker import BROKER_KEYS, check_broker_config
from fastlog.config.keys import INT64_MAX, ConfigError
from fastlog.config.topic import TOPIC_KEYS
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME
from tests.broker.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def _versions(name: str) -> range:
    first, last = API_BY_NAME[name].versions
    return range(first, last + 1)


async def describe(
    broker: Running, kind: int, name: str, keys: Sequence[str] | None = None, version: int | None = None, **more: Any
) -> tuple[Error, str, dict[str, dict[str, Any]]]:
    asked = {"resource_type": kind, "resource_name": name, "configuration_keys": None if keys is None else list(keys)}
    (result,) = (await broker.call("DescribeConfigs", version, resources=[asked], **more))["results"]
    assert (result["resource_type"], result["resource_name"]) == (kind, name)
    return Error(result["error_code"]), result["error_message"], {config["name"]: config for config in result["configs"]}


async def value(broker: Running, name: str, key: str, kind: int = TOPIC) -> tuple[str | None, int]:
    config = (await describe(broker, kind, name, [key]))[2][key]
    return config["value"], config["config_source"]


async def alter(
    broker: Running, kind: int, name: str, *changes: tuple[str, int, str | None], version: int | None = None, validate_only: bool = False
) -> tuple[Error, str | None]:
    configs = [{"name": key, "config_operation": operation, "value": text} for key, operation, text in changes]
    resources = [{"resource_type": kind, "resource_name": name, "configs": configs}]
    (answer,) = (await broker.call("IncrementalAlterConfigs", version, resources=resources, validate_only=validate_only))["responses"]
    return Error(answer["error_code"]), answer["error_message"]


# Name, type and default of each topic setting, as Kafka 4.3's AdminClient shows them for a new topic.
KAFKA = """
cleanup.policy LIST delete
compression.gzip.level INT -1
compression.lz4.level INT 9
compression.type STRING producer
compression.zstd.level INT 3
delete.retention.ms LONG 86400000
file.delete.delay.ms LONG 60000
flush.messages LONG 9223372036854775807
flush.ms LONG 9223372036854775807
follower.replication.throttled.replicas LIST
index.interval.bytes INT 4096
leader.replication.throttled.replicas LIST
local.retention.bytes LONG -2
local.retention.ms LONG -2
max.compaction.lag.ms LONG 9223372036854775807
max.message.bytes INT 1048588
message.timestamp.after.max.ms LONG 3600000
message.timestamp.before.max.ms LONG 9223372036854775807
message.timestamp.type STRING CreateTime
min.cleanable.dirty.ratio DOUBLE 0.5
min.compaction.lag.ms LONG 0
min.insync.replicas INT 1
preallocate BOOLEAN false
remote.log.copy.disable BOOLEAN false
remote.log.delete.on.disable BOOLEAN false
remote.storage.enable BOOLEAN false
retention.bytes LONG -1
retention.ms LONG 604800000
segment.bytes INT 1073741824
segment.index.bytes INT 10485760
segment.jitter.ms LONG 0
segment.ms LONG 604800000
unclean.leader.election.enable BOOLEAN false
"""
TYPES = {"BOOLEAN": 1, "STRING": 2, "INT": 3, "SHORT": 4, "LONG": 5, "DOUBLE": 6, "LIST": 7}
OWN = {"write.caching", "fastlog.fetch.verify.enable", "fastlog.record.validation.enable"}


@pytest.mark.parametrize("version", _versions("DescribeConfigs"))
def test_a_new_topic_is_described_as_kafka_describes_it(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")
            more = {"include_synonyms": True} | ({"include_documentation": True} if version >= 3 else {})
            error, _, configs = await describe(broker, TOPIC, "t", None, version, **more)
            assert error == Error.NONE
            assert configs.keys() - OWN == {line.split()[0] for line in KAFKA.split("\n") if line}
            for line in filter(None, KAFKA.split("\n")):
                name, kind, default = (*line.split(), "")[:3]
                shown = configs[name]
                source = 3 if name == "min.insync.replicas" else 5  # set for the cluster from its beginning (KIP-966)
                assert (shown["value"], shown["config_source"]) == (default, source)
                assert not shown["read_only"]
                assert not shown["is_sensitive"]
                if version >= 3:
                    assert shown["config_type"] == TYPES[kind]
                    assert shown["documentation"]
            assert [s["name"] for s in configs["max.message.bytes"]["synonyms"]] == ["message.max.bytes"]
            few = (await describe(broker, TOPIC, "t", ["retention.ms", "nope"], version))[2]
            assert few.keys() == {"retention.ms"}
            assert few["retention.ms"]["synonyms"] == []

    asyncio.run(run())


def test_where_a_value_comes_from(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, log_retention_hours="24", compression_type="lz4") as broker:
            await broker.create("t")
            # Kafka names no source that stands behind one that is not set
            assert await value(broker, "t", "retention.ms") == ("86400000", 5)
            assert await value(broker, "t", "compression.type") == ("lz4", 4)
            assert (await alter(broker, BROKER, "", ("log.retention.ms", SET, "5000000")))[0] == Error.NONE
            assert await value(broker, "t", "retention.ms") == ("5000000", 3)
            assert (await alter(broker, BROKER, "1", ("log.retention.ms", SET, "6000000")))[0] == Error.NONE
            assert await value(broker, "t", "retention.ms") == ("6000000", 2)
            assert (await alter(broker, TOPIC, "t", ("retention.ms", SET, "1000")))[0] == Error.NONE
            configs = (await describe(broker, TOPIC, "t", ["retention.ms"], include_synonyms=True))[2]
            assert [(s["name"], s["value"], s["source"]) for s in configs["retention.ms"]["synonyms"]] == [
                ("retention.ms", "1000", 1),
                ("log.retention.ms", "6000000", 2),
                ("log.retention.ms", "5000000", 3),
                ("log.retention.hours", "24", 4),
                ("log.retention.hours", "168", 5),
            ]
            assert (await describe(broker, BROKER, ""))[2].keys() == {"log.retention.ms", "min.insync.replicas"}
        async with running(tmp_path) as broker:
            assert await value(broker, "t", "retention.ms") == ("1000", 1)
            assert await value(broker, "1", "log.retention.ms", BROKER) == ("6000000", 2)
            for name in ("1", ""):
                assert (await alter(broker, BROKER, name, ("log.retention.ms", DELETE, None)))[0] == Error.NONE
            assert (await alter(broker, TOPIC, "t", ("retention.ms", DELETE, None)))[0] == Error.NONE
        async with running(tmp_path) as broker:
            assert await value(broker, "t", "retention.ms") == ("604800000", 5)

    asyncio.run(run())


UNKNOWN_TYPE = (
    "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. "
    "See the broker logs for more details."
)
INVALID = [
    ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
    ("retention.bytes", "9" * 20, f"Invalid value {'9' * 20} for configuration retention.bytes: Not a number of type LONG"),
    ("retention.bytes", "9" * 32_767, "Invalid value " + "9" * 1986 + "..."),
    ("max.message.bytes", "2147483648", "Invalid value 2147483648 for configuration max.message.bytes: Not a number of type INT"),
    ("retention.ms", "1_000", "Invalid value 1_000 for configuration retention.ms: Not a number of type LONG"),
    ("cleanup.policy", "foo", "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"),
    ("segment.bytes", "1", "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"),
    (
        "compression.type",
        "bzip",
        "Invalid value bzip for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
    ),
    ("min.cleanable.dirty.ratio", "2", "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"),
    ("preallocate", "maybe", "Invalid value maybe for configuration preallocate: Expected value to be either true or false"),
    (
        "message.timestamp.type",
        "x",
        "Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
    ),
    (
        "compression.gzip.level",
        "0",
        "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
    ),
    ("compression.lz4.level", "99", "Invalid value 99 for configuration compression.lz4.level: Value must be no more than 17"),
    ("max.message.bytes", "-1", "Invalid value -1 for configuration max.message.bytes: Value must be at least 0"),
    (
        "leader.replication.throttled.replicas",
        "x",
        (
            "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the "
            "literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        ),
    ),
    (
        "remote.storage.enable",
        "true",
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
    ),
    ("nope", "1", "Unknown topic config name: nope"),
    ("retention.ms ", "1", "Unknown topic config name: retention.ms "),
]


@pytest.mark.parametrize("version", _versions("IncrementalAlterConfigs"))
def test_values_that_cannot_be_are_refused_as_kafka_refuses_them(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")
            for key, text, why in INVALID:
                for validate_only in (True, False):
                    answer = await alter(broker, TOPIC, "t", (key, SET, text), version=version, validate_only=validate_only)
                    assert answer == (Error.INVALID_CONFIG, why)
                created = await broker.create("c", configs={key: text})
                assert (created["error_code"], created["error_message"]) == (Error.INVALID_CONFIG, why)
            lag = [("min.compaction.lag.ms", SET, "10"), ("max.compaction.lag.ms", SET, "5")]
            assert await alter(broker, TOPIC, "t", *lag) == (
                Error.INVALID_CONFIG,
                "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
            )
            topic = broker.topics.get("t")
            assert topic is not None
            assert topic.configs == {}

    asyncio.run(run())


def test_incremental_changes_as_kafka_answers(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")

            async def policy() -> str | None:
                return (await value(broker, "t", "cleanup.policy"))[0]

            for operation, text, wanted in (
                (APPEND, "compact", "delete,compact"),
                (APPEND, "compact", "delete,compact"),
                (SUBTRACT, "delete", "compact"),
                (SUBTRACT, "delete", "compact"),
                (SET, " compact , delete ", "compact,delete"),
                (SET, "", ""),
                (DELETE, None, "delete"),
            ):
                assert await alter(broker, TOPIC, "t", ("cleanup.policy", operation, text)) == (Error.NONE, None)
                assert await policy() == wanted
            retention = "retention.ms"
            assert await alter(broker, TOPIC, "t", ("zz", DELETE, None)) == (Error.NONE, None)
            assert await alter(broker, TOPIC, "t", (retention, SET, None)) == (
                Error.INVALID_REQUEST,
                "Null value not supported for : retention.ms",
            )
            assert await alter(broker, TOPIC, "t", (retention, APPEND, "1")) == (
                Error.INVALID_CONFIG,
                "Can't APPEND to key retention.ms because its type is not LIST.",
            )
            assert await alter(broker, TOPIC, "t", (retention, SUBTRACT, "1")) == (
                Error.INVALID_CONFIG,
                "Can't SUBTRACT to key retention.ms because its type is not LIST.",
            )
            assert (await alter(broker, TOPIC, "t", (retention, 9, "1")))[0] == Error.INVALID_REQUEST
            assert await alter(broker, TOPIC, "t", (retention, SET, "5"), (retention, SET, "6")) == (
                Error.INVALID_REQUEST,
                "Error due to duplicate config keys",
            )
            assert await alter(broker, TOPIC, "none", (retention, SET, "5")) == (
                Error.UNKNOWN_TOPIC_OR_PARTITION,
                "The topic 'none' does not exist.",
            )
            assert await alter(broker, TOPIC, "", (retention, SET, "5")) == (
                Error.INVALID_REQUEST,
                "Default topic resources are not allowed.",
            )
            assert (await alter(broker, TOPIC, "a b", (retention, SET, "5")))[0] == Error.INVALID_TOPIC_EXCEPTION
            assert await alter(broker, 99, "1", (retention, SET, "5")) == (Error.INVALID_REQUEST, "Unknown resource type 99")
            assert await alter(broker, TOPIC, "t", (retention, SET, "5"), validate_only=True) == (Error.NONE, None)
            assert await value(broker, "t", retention) == ("604800000", 5)
            one = {"resource_type": TOPIC, "resource_name": "t", "configs": [{"name": retention, "config_operation": 0, "value": "5"}]}
            answers = (await broker.call("IncrementalAlterConfigs", resources=[one, one]))["responses"]
            assert [a["error_message"] for a in answers] == ["Each resource must appear at most once."] * 2

    asyncio.run(run())


@pytest.mark.parametrize("version", _versions("AlterConfigs"))
def test_alter_configs_replaces_all(tmp_path: Path, version: int) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t", configs={"segment.ms": "7", "retention.ms": "8"})

            async def replace(name: str, configs: dict[str, str | None], kind: int = TOPIC) -> tuple[Error, str | None]:
                listed = [{"name": key, "value": text} for key, text in configs.items()]
                resources = [{"resource_type": kind, "resource_name": name, "configs": listed}]
                (answer,) = (await broker.call("AlterConfigs", version, resources=resources))["responses"]
                return Error(answer["error_code"]), answer["error_message"]

            assert await replace("t", {"retention.ms": "9"}) == (Error.NONE, None)
            topic = broker.topics.get("t")
            assert topic is not None
            assert topic.configs == {"retention.ms": "9"}
            assert await replace("t", {"retention.ms": None}) == (
                Error.INVALID_REQUEST,
                "Null value not supported for : retention.ms",
            )
            assert (await replace("t", {"retention.ms": "x"}))[0] == Error.INVALID_CONFIG
            assert (await replace("none", {"retention.ms": "9"}))[0] == Error.UNKNOWN_TOPIC_OR_PARTITION
            kept: dict[str, str | None] = {"min.insync.replicas": "1"}
            assert await replace("", {**kept, "message.max.bytes": "99"}, BROKER) == (Error.NONE, None)
            assert await value(broker, "t", "max.message.bytes") == ("99", 3)
            assert await replace("", {}, BROKER) == (
                Error.INVALID_CONFIG,
                "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
            )
            assert await replace("", kept, BROKER) == (Error.NONE, None)
            assert await value(broker, "t", "max.message.bytes") == ("1048588", 5)

    asyncio.run(run())


def test_min_insync_replicas_is_one_number_for_the_cluster(tmp_path: Path) -> None:
    """As in a Kafka 4.3, whose controller sets it when the cluster begins (KIP-966)."""
    name = "min.insync.replicas"

    async def run() -> None:
        async with running(tmp_path, min_insync_replicas="2") as broker:
            await broker.create("t")
            assert await value(broker, "t", name) == ("2", 3)
            assert await alter(broker, BROKER, "1", (name, SET, "1")) == (
                Error.INVALID_CONFIG,
                f"Broker-level {name} cannot be altered while ELR is enabled.",
            )
            assert await alter(broker, BROKER, "", (name, DELETE, None)) == (
                Error.INVALID_CONFIG,
                f"Cluster-level {name} cannot be removed while ELR is enabled.",
            )
            assert await alter(broker, BROKER, "", (name, SET, "3")) == (Error.NONE, None)
            assert await value(broker, "t", name) == ("3", 3)
            assert await alter(broker, TOPIC, "t", (name, SET, "4")) == (Error.NONE, None)
            assert await value(broker, "t", name) == ("4", 1)
        async with running(tmp_path, min_insync_replicas="2") as broker:
            assert await value(broker, "", name, BROKER) == await value(broker, "1", name, BROKER) == ("3", 3)

    asyncio.run(run())


def test_broker_settings(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            error, _, configs = await describe(broker, BROKER, "1")
            assert error == Error.NONE
            assert configs.keys() == BROKER_KEYS.keys()
            assert (configs["num.partitions"]["value"], configs["num.partitions"]["read_only"]) == ("1", True)
            assert (configs["log.retention.ms"]["value"], configs["log.retention.ms"]["read_only"]) == (None, False)
            assert configs["node.id"]["value"] == "1"
            ro = "Cannot update these configs dynamically: [num.partitions]"
            for name in ("1", ""):
                assert await alter(broker, BROKER, name, ("num.partitions", SET, "5")) == (Error.INVALID_REQUEST, ro)
            assert await alter(broker, BROKER, "", ("log.retention.ms", SET, "x")) == (
                Error.INVALID_REQUEST,
                "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
            )
            assert await alter(broker, BROKER, "7", ("log.retention.ms", SET, "5")) == (
                Error.INVALID_REQUEST,
                "Unexpected broker id, expected 1, but received 7",
            )
            assert await alter(broker, BROKER, "x", ("log.retention.ms", SET, "5")) == (
                Error.INVALID_REQUEST,
                "Node id must be an integer, but it is: x",
            )
            assert await alter(broker, BROKER, "", ("foo.bar", SET, "5")) == (Error.INVALID_CONFIG, "Unknown broker config name: foo.bar")
            assert await alter(broker, BROKER, "", ("foo.bar", SET, "5"), ("num.partitions", SET, "5")) == (Error.INVALID_REQUEST, ro)
            assert await alter(broker, BROKER, "", ("log.cleaner.backoff.ms", SET, "0"), validate_only=True) == (Error.NONE, None)
            assert await alter(broker, BROKER, "", ("log.cleanup.policy", APPEND, "compact")) == (Error.NONE, None)
            assert await value(broker, "1", "log.cleanup.policy", BROKER) == ("delete,compact", 3)
            for kind, name, why in (
                (TOPIC, "none", ""),
                (TOPIC, "", "Topic name is invalid: the empty string is not allowed"),
                (BROKER, "9", "Unexpected broker id, expected 1 or empty string, but received 9"),
                (BROKER, "x", "Broker id must be an integer, but it is: x"),
                (99, "1", UNKNOWN_TYPE),
            ):
                error, said, configs = await describe(broker, kind, name)
                assert error != Error.NONE
                assert (said, configs) == (why, {})

    asyncio.run(run())


def test_changes_reach_the_data_plane(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t", 2)
            await broker.create("own", configs={"max.message.bytes": "77"})
            topics = {topic.name: topic.topic_id for topic in broker.topics.all()}
            plane = broker.plane
            assert plane.published[topics["t"]].rules == BatchRules()
            assert plane.open[topics["t"], 1].settings == LogSettings()
            await alter(
                broker,
                TOPIC,
                "t",
                ("compression.type", SET, "zstd"),
                ("compression.zstd.level", SET, "7"),
                ("message.timestamp.type", SET, "LogAppendTime"),
                ("cleanup.policy", SET, "compact"),
                ("message.timestamp.after.max.ms", SET, "1"),
                ("message.timestamp.before.max.ms", SET, "2"),
                ("fastlog.record.validation.enable", SET, "false"),
                ("segment.bytes", SET, "1048576"),
                ("flush.messages", SET, "1"),
                ("write.caching", SET, "true"),
            )
            assert plane.published[topics["t"]].rules == BatchRules(
                before_max_ms=2, after_max_ms=1, log_append_time=True, keys_required=True, look_inside=False, codec=4, level=7
            )
            settings = LogSettings(segment_bytes=1048576, flush_messages=1, write_caching=True)
            assert [plane.open[topics["t"], index].settings for index in (0, 1)] == [settings] * 2
            await alter(broker, BROKER, "", ("message.max.bytes", SET, "55"), ("log.flush.interval.ms", SET, "9"))
            assert plane.published[topics["t"]].rules.size_max == 55
            assert plane.published[topics["own"]].rules.size_max == 77
            assert plane.open[topics["own"], 0].settings.flush_ms == 9
            events = len(plane.events)
            await alter(broker, BROKER, "", ("log.retention.ms", SET, "9"))
            assert len(plane.events) == events, "what does not concern the data plane does not disturb it"

    asyncio.run(run())


def test_changes_at_the_same_time_are_not_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            await broker.create("t")
            keys = [("retention.ms", "1"), ("segment.ms", "2"), ("flush.ms", "3"), ("max.message.bytes", "4")]
            answers = await asyncio.gather(*(alter(broker, TOPIC, "t", (key, SET, text)) for key, text in keys))
            answers += await asyncio.gather(*(alter(broker, BROKER, "", (key, SET, "9")) for key in ("log.roll.ms", "message.max.bytes")))
            assert {error for error, _ in answers} == {Error.NONE}
            topic = broker.topics.get("t")
            assert topic is not None
            assert topic.configs == dict(keys)
            assert (await describe(broker, BROKER, ""))[2].keys() == {"log.roll.ms", "message.max.bytes", "min.insync.replicas"}

    asyncio.run(run())


def test_every_default_is_one_that_may_be_set() -> None:
    for keys in (TOPIC_KEYS, BROKER_KEYS):
        for key in keys.values():
            if key.default is not None:
                assert key.text(key.default) == key.default
            for synonym, _ in key.synonyms:
                assert synonym in BROKER_KEYS
    assert TOPIC_KEYS["flush.ms"].parse(str(INT64_MAX)) == INT64_MAX


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"num.partition": "3"}, "there is no broker setting num.partition: did you mean num.partitions?"),
        (
            {"retention.ms": "3"},
            "there is no broker setting retention.ms: it is a topic's; the broker's default for it is log.retention.ms",
        ),
        ({"num.partitions": "0"}, "Invalid value 0 for configuration num.partitions: Value must be at least 1"),
        ({"node.id": "1", "broker.id": "2"}, "node.id and broker.id are the same setting and must not differ"),
    ],
)
def test_settings_at_the_start_are_checked(values: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_broker_config(values)
    assert str(caught.value) == why


def test_a_broker_setting_shows_what_stands_behind_it_only_when_it_is_set(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, log_retention_minutes="60") as broker:

            async def shown() -> tuple[str | None, list[tuple[str, str, int]]]:
                config = (await describe(broker, BROKER, "1", ["log.retention.ms"], include_synonyms=True))[2]["log.retention.ms"]
                return config["value"], [(s["name"], s["value"], s["source"]) for s in config["synonyms"]]

            assert await shown() == (None, [])
            assert (await alter(broker, BROKER, "1", ("log.retention.ms", SET, "5")))[0] == Error.NONE
            behind = [("log.retention.minutes", "60", 4), ("log.retention.hours", "168", 5)]
            assert await shown() == ("5", [("log.retention.ms", "5", 2), *behind])

    asyncio.run(run())
