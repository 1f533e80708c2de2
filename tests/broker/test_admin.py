"""What administrators ask of a cluster of one node, in every version, as Kafka 4.3 answers it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from fastlog.broker.handlers.api_versions import FINALIZED
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME, decode_response, encode_request
from tests.broker.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

GROUP, CLIENT_METRICS, LOGGER, BROKER, TOPIC = 32, 16, 8, 4, 2
SET, DELETE, APPEND, SUBTRACT = range(4)


def versions(name: str) -> range:
    first, last = API_BY_NAME[name].versions
    return range(first, last + 1)


def served(tmp_path: Path, test: Callable[[Running], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with running(tmp_path, **settings) as broker:
            await broker.create("t", 2)
            await test(broker)

    asyncio.run(run())


def test_log_dirs(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        def shown(*indexes: int) -> list[dict[str, Any]]:
            rest = {"partition_size": 0, "offset_lag": 0, "is_future_key": False}
            return [{"name": "t", "partitions": [{"partition_index": index, **rest} for index in indexes]}] if indexes else []

        for version in versions("DescribeLogDirs"):
            for asked, found in (
                (None, (0, 1)),
                ([], ()),
                ([{"topic": "t", "partitions": [0, 0, 7]}, {"topic": "nope", "partitions": [0]}], (0,)),
                ([{"topic": "t", "partitions": []}], ()),
            ):
                response = await broker.call("DescribeLogDirs", version, topics=asked)
                (result,) = response["results"]
                assert response["error_code"] == result["error_code"] == Error.NONE
                assert result["log_dir"] == str(tmp_path)
                assert result["topics"] == shown(*found)
                if version >= 4:
                    assert 0 < result["usable_bytes"] <= result["total_bytes"]

    served(tmp_path, test)


def test_moving_between_log_dirs(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        for version in versions("AlterReplicaLogDirs"):
            dirs = [
                {"path": "/nope", "topics": [{"name": "t", "partitions": [0]}, {"name": "x", "partitions": [0]}]},
                {"path": str(tmp_path), "topics": [{"name": "t", "partitions": [1, 9]}]},
                {"path": "relative", "topics": [{"name": "t", "partitions": [0]}]},
            ]
            results = (await broker.call("AlterReplicaLogDirs", version, dirs=dirs))["results"]
            found = {r["topic_name"]: [(p["partition_index"], p["error_code"]) for p in r["partitions"]] for r in results}
            missing = Error.LOG_DIR_NOT_FOUND
            assert found == {
                "t": [(0, missing), (1, Error.NONE), (9, Error.UNKNOWN_TOPIC_OR_PARTITION), (0, missing)],
                "x": [(0, missing)],
            }

    served(tmp_path, test)


def test_elections(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        for version in versions("ElectLeaders"):
            asked = [{"topic": "t", "partitions": [0, 5]}, {"topic": "no", "partitions": [0]}]
            response = await broker.call("ElectLeaders", version, topic_partitions=asked)
            assert response["error_code"] == Error.NONE
            assert [
                (t["topic"], [(p["partition_id"], p["error_code"], p["error_message"]) for p in t["partition_result"]])
                for t in response["replica_election_results"]
            ] == [
                (
                    "t",
                    [
                        (0, Error.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."),
                        (5, Error.UNKNOWN_TOPIC_OR_PARTITION, "No such partition as t-5"),
                    ],
                ),
                ("no", [(0, Error.UNKNOWN_TOPIC_OR_PARTITION, "No such topic as no")]),
            ]
            response = await broker.call("ElectLeaders", version, topic_partitions=None)
            assert response["replica_election_results"] == [{"topic": "t", "partition_result": []}]

    served(tmp_path, test)


def test_reassignments(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        bad = Error.INVALID_REPLICA_ASSIGNMENT
        cases: list[tuple[str, int, list[int] | None, Error, str | None]] = [
            ("t", 0, [1], Error.NONE, None),
            ("t", 1, [2], bad, "The manual partition assignment includes broker 2, but no such broker is registered."),
            ("t", 9, [1], Error.UNKNOWN_TOPIC_OR_PARTITION, "Unable to find partition t:9."),
            ("t", 0, None, Error.NO_REASSIGNMENT_IN_PROGRESS, None),
            ("t", 1, [], bad, "The manual partition assignment includes an empty replica list."),
            ("t", 1, [1, 1], bad, "The manual partition assignment includes the broker 1 more than once."),
            ("t", 1, [-1], bad, "The manual partition assignment includes broker -1, but no such broker is registered."),
            ("no", 0, [1], Error.UNKNOWN_TOPIC_OR_PARTITION, "Unable to find a topic named no."),
        ]
        for version in versions("AlterPartitionReassignments"):
            for name, index, replicas, error, why in cases:
                topics = [{"name": name, "partitions": [{"partition_index": index, "replicas": replicas}]}]
                response = await broker.call("AlterPartitionReassignments", version, topics=topics)
                (partition,) = response["responses"][0]["partitions"]
                assert partition == {"partition_index": index, "error_code": error, "error_message": why}
                assert (response["error_code"], response["error_message"]) == (Error.NONE, None)
        for asked in (None, [], [{"name": "t", "partition_indexes": [0, 9]}]):
            response = await broker.call("ListPartitionReassignments", topics=asked)
            assert (response["error_code"], response["topics"]) == (Error.NONE, [])

    served(tmp_path, test)


def test_quorum(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        def ask(*partitions: tuple[str, int]) -> list[dict[str, Any]]:
            return [{"topic_name": name, "partitions": [{"partition_index": index}]} for name, index in partitions]

        for version in versions("DescribeQuorum"):
            response = await broker.call("DescribeQuorum", version, topics=ask(("__cluster_metadata", 0)))
            (partition,) = response["topics"][0]["partitions"]
            (voter,) = partition["current_voters"]
            assert (partition["error_code"], partition["leader_id"], partition["observers"]) == (Error.NONE, 1, [])
            assert partition["high_watermark"] == voter["log_end_offset"] > 0
            assert [node["node_id"] for node in response["nodes"]] == ([1] if version >= 2 else [])
            for wrong in (ask(("t", 0)), ask(("__cluster_metadata", 1)), ask(("__cluster_metadata", 0), ("t", 0))):
                response = await broker.call("DescribeQuorum", version, topics=wrong)
                errors = {p["error_code"] for t in response["topics"] for p in t["partitions"]}
                assert (response["error_code"], errors, response["nodes"]) == (Error.NONE, {Error.UNKNOWN_TOPIC_OR_PARTITION}, [])
            assert (await broker.call("DescribeQuorum", version, topics=[]))["topics"] == []

    served(tmp_path, test)


def test_features_are_fixed(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        async def update(version: int, name: str, level: int, kind: int = 1) -> dict[str, Any]:
            asked: dict[str, Any] = {"feature": name, "max_version_level": level}
            asked |= {"upgrade_type": kind} if version else {"allow_downgrade": kind != 1}
            return await broker.call("UpdateFeatures", version, feature_updates=[asked])

        for version in versions("UpdateFeatures"):
            for name, level in FINALIZED.items():
                response = await update(version, name, level)
                assert (response["error_code"], response["error_message"]) == (Error.NONE, None)
                shown = [{"feature": name, "error_code": 0, "error_message": "NONE"}]
                assert response["results"] == (shown if version < 2 else [])
            for name, level, kind, why in (
                ("nope", 1, 1, "Local controller 1 does not support this feature."),
                ("metadata.version", -1, 1, "A feature version cannot be less than 0."),
                ("metadata.version", 99, 1, "Local controller 1 only supports versions 7-30"),
                ("metadata.version", 29, 3, "This release serves it at level 30 only."),
                (
                    "metadata.version",
                    29,
                    1,
                    "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
                ),
            ):
                response = await update(version, name, level, kind)
                assert response["error_code"] == Error.INVALID_UPDATE_VERSION
                assert response["error_message"].endswith(f"Invalid update version {level} for feature {name}. {why}")
        response = await update(2, "metadata.version", 30, 9)
        assert response["error_message"].endswith("The controller does not support the given upgrade type.")

    served(tmp_path, test)


def test_unregistering_a_broker(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        response = await broker.call("UnregisterBroker", broker_id=7)
        assert (response["error_code"], response["error_message"]) == (
            Error.BROKER_ID_NOT_REGISTERED,
            "Broker ID 7 is not currently registered",
        )
        assert (await broker.call("UnregisterBroker", broker_id=1))["error_code"] == Error.INVALID_REQUEST

    served(tmp_path, test)


def test_passwords_of_users_are_kept_and_shown(tmp_path: Path) -> None:
    sha_256, sha_512 = 1, 2

    def upsertion(name: str, mechanism: int, iterations: int) -> dict[str, Any]:
        return {"name": name, "mechanism": mechanism, "iterations": iterations, "salt": b"salt", "salted_password": b"p" * 32}

    async def alter(broker: Running, upsertions: list[dict[str, Any]], *deletions: tuple[str, int]) -> list[tuple[str, Error, str | None]]:
        gone = [{"name": name, "mechanism": mechanism} for name, mechanism in deletions]
        answer = await broker.call("AlterUserScramCredentials", deletions=gone, upsertions=upsertions)
        return [(result["user"], Error(result["error_code"]), result["error_message"]) for result in answer["results"]]

    async def shown(broker: Running, *names: str) -> list[tuple[str, Error, dict[int, int]]]:
        answer = await broker.call("DescribeUserScramCredentials", users=[{"name": name} for name in names] or None)
        return [
            (result["user"], Error(result["error_code"]), {info["mechanism"]: info["iterations"] for info in result["credential_infos"]})
            for result in answer["results"]
        ]

    async def test(broker: Running) -> None:
        assert await shown(broker) == []
        assert await alter(broker, [upsertion("ann", sha_256, 4096), upsertion("bob", sha_512, 16384)]) == [
            ("ann", Error.NONE, None),
            ("bob", Error.NONE, None),
        ]
        assert await alter(broker, [upsertion("ann", sha_512, 5000)]) == [("ann", Error.NONE, None)]
        assert await shown(broker) == [("ann", Error.NONE, {1: 4096, 2: 5000}), ("bob", Error.NONE, {2: 16384})]
        assert await shown(broker, "bob", "eve", "ann", "ann") == [
            ("bob", Error.NONE, {2: 16384}),
            ("eve", Error.RESOURCE_NOT_FOUND, {}),
            ("ann", Error.DUPLICATE_RESOURCE, {}),
        ]
        bad = [upsertion("", 1, 4096), upsertion("few", 1, 4095), upsertion("many", 1, 16385), upsertion("none", 0, 4096)]
        assert await alter(broker, [*bad, upsertion("twice", 1, 4096), upsertion("twice", 2, 4096)], ("bob", 1), ("ann", 1)) == [
            ("ann", Error.NONE, None),
            ("bob", Error.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist"),
            ("", Error.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"),
            ("few", Error.UNACCEPTABLE_CREDENTIAL, "Too few iterations"),
            ("many", Error.UNACCEPTABLE_CREDENTIAL, "Too many iterations"),
            ("none", Error.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
            ("twice", Error.DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request"),
        ]
        assert await shown(broker) == [("ann", Error.NONE, {2: 5000}), ("bob", Error.NONE, {2: 16384})]

    async def later(broker: Running) -> None:
        assert await shown(broker) == [("ann", Error.NONE, {2: 5000}), ("bob", Error.NONE, {2: 16384})]
        assert await alter(broker, [], ("ann", 2), ("bob", 2)) == [("ann", Error.NONE, None), ("bob", Error.NONE, None)]
        assert await shown(broker) == []

    served(tmp_path, test)
    served(tmp_path, later)


def test_telemetry_is_answered_with_no_subscription(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        me = uuid4()
        answer = await broker.call("GetTelemetrySubscriptions", client_instance_id=me)
        assert (answer["error_code"], answer["client_instance_id"], answer["requested_metrics"]) == (Error.NONE, me, [])
        assert (await broker.call("GetTelemetrySubscriptions"))["client_instance_id"] != UUID(int=0)

        async def push(**message: Any) -> Error:
            return Error((await broker.call("PushTelemetry", **message))["error_code"])

        mine = {"client_instance_id": me, "subscription_id": answer["subscription_id"]}
        assert await push(**mine, metrics=b"x") == Error.NONE
        assert await push(**mine, metrics=b"x", compression_type=9) == Error.UNSUPPORTED_COMPRESSION_TYPE
        assert await push(**mine, metrics=b"x" * 1001) == Error.TELEMETRY_TOO_LARGE
        assert await push(**mine | {"client_instance_id": uuid4()}) == Error.UNKNOWN_SUBSCRIPTION_ID
        assert await push(subscription_id=answer["subscription_id"]) == Error.INVALID_REQUEST
        advertised = {api["api_key"] for api in (await broker.call("ApiVersions", 0))["api_keys"]}
        assert not advertised & {71, 72}

    served(tmp_path, test, telemetry_max_bytes="1000")


async def alter(broker: Running, kind: int, name: str, *changes: tuple[str, int, str | None], **more: Any) -> tuple[Error, str | None]:
    configs = [{"name": key, "config_operation": operation, "value": text} for key, operation, text in changes]
    resources = [{"resource_type": kind, "resource_name": name, "configs": configs}]
    (answer,) = (await broker.call("IncrementalAlterConfigs", resources=resources, **more))["responses"]
    return Error(answer["error_code"]), answer["error_message"]


async def describe(broker: Running, kind: int, name: str, *keys: str) -> tuple[Error, str, dict[str, dict[str, Any]]]:
    asked = {"resource_type": kind, "resource_name": name, "configuration_keys": list(keys) or None}
    (result,) = (await broker.call("DescribeConfigs", resources=[asked], include_synonyms=True))["results"]
    return Error(result["error_code"]), result["error_message"], {config["name"]: config for config in result["configs"]}


def test_settings_of_groups(tmp_path: Path) -> None:
    async def run() -> None:
        key = "consumer.session.timeout.ms"
        async with running(tmp_path) as broker:
            found = (await describe(broker, GROUP, "new", key))[2][key]
            default = {"name": f"group.{key}", "value": "45000", "source": 5}
            assert (found["value"], found["config_source"], found["synonyms"]) == ("45000", 5, [default])
            assert len((await describe(broker, GROUP, "new"))[2]) == 17
            start = "share.auto.offset.reset"  # which no broker has for all groups
            assert await alter(broker, GROUP, "s", (start, SET, "earliest")) == (Error.NONE, None)
            synonyms = [{"name": start, "value": "earliest", "source": 8}, {"name": start, "value": "latest", "source": 5}]
            assert (await describe(broker, GROUP, "s", start))[2][start]["synonyms"] == synonyms
            assert await alter(broker, GROUP, "s", (start, DELETE, None)) == (Error.NONE, None)
            assert await alter(broker, GROUP, "g", (key, SET, "50000")) == (Error.NONE, None)
            own = {"name": key, "value": "50000", "source": 8}
            found = (await describe(broker, GROUP, "g", key))[2][key]
            assert (found["value"], found["config_source"], found["synonyms"]) == ("50000", 8, [own, default])
            invalid = Error.INVALID_CONFIG
            for change, why in (
                ((key, SET, "5"), f"{key} must be greater than or equal to group.consumer.min.session.timeout.ms"),
                ((key, SET, "5000000"), f"{key} must be less than or equal to group.consumer.max.session.timeout.ms"),
                ((key, SET, "x"), f"Invalid value x for configuration {key}: Not a number of type INT"),
                ((key, APPEND, "50000"), f"Can't APPEND to key {key} because its type is not LIST."),
                (("bogus", SET, "1"), "Unknown group config name: bogus"),
            ):
                assert await alter(broker, GROUP, "g", change) == (invalid, why)
            assert await alter(broker, GROUP, "", (key, SET, "50000")) == (
                Error.INVALID_REQUEST,
                "Default group resources are not allowed.",
            )
            assert (await describe(broker, GROUP, ""))[:2] == (Error.INVALID_REQUEST, "Group name must not be empty")
            assert (await alter(broker, GROUP, "other", (key, SET, "50000"), validate_only=True))[0] == Error.NONE
        async with running(tmp_path) as broker:
            assert broker.broker.context is not None
            configs = broker.broker.context.configs
            assert (configs.group_value("g", key), configs.group_value("other", key)) == (50000, 45000)
            assert await alter(broker, GROUP, "g", (key, DELETE, None)) == (Error.NONE, None)
            assert configs.groups.names() == []

    asyncio.run(run())


def test_settings_of_client_metrics(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        wrong = Error.INVALID_REQUEST
        for name, change, error, why in (
            ("m", ("interval.ms", "50"), wrong, "Invalid value 50 for interval.ms, interval must be between 100 and 3600000 (1 hour)"),
            ("m", ("interval.ms", "x"), Error.INVALID_CONFIG, "Invalid value x for configuration interval.ms: Not a number of type INT"),
            ("m", ("bogus", "1"), wrong, "Unknown client metrics configuration: bogus"),
            ("", ("interval.ms", "5000"), wrong, "Subscription name can't be empty"),
            ("m", ("match", "abc"), Error.INVALID_CONFIG, "Illegal client matching pattern: abc"),
            ("m", ("match", "zork=1"), Error.INVALID_CONFIG, "Illegal client matching pattern: zork=1"),
            ("m", ("match", "client_id=("), Error.INVALID_CONFIG, "Illegal client matching pattern: client_id=("),
        ):
            assert await alter(broker, CLIENT_METRICS, name, (change[0], SET, change[1])) == (error, why)
        match = "client_id=a.*,client_software_name=x"
        assert (await alter(broker, CLIENT_METRICS, "m", ("interval.ms", SET, "1000"), ("match", SET, match)))[0] == Error.NONE
        shown = (await describe(broker, CLIENT_METRICS, "m"))[2]
        assert {name: (c["value"], c["config_source"]) for name, c in shown.items()} == {
            "interval.ms": ("1000", 7),
            "match": (match, 7),
            "metrics": ("", 5),
        }
        for operation, name in ((APPEND, "APPEND"), (SUBTRACT, "SUBTRACT")):
            why = f"Can't {name} to key match because its type is not LIST."
            assert await alter(broker, CLIENT_METRICS, "m", ("match", operation, "client_id=b")) == (Error.INVALID_CONFIG, why)
        assert (await describe(broker, CLIENT_METRICS, "m", "match"))[2]["match"]["value"] == match

    served(tmp_path, test)


def test_levels_of_loggers(tmp_path: Path) -> None:
    logger = logging.getLogger("fastlog.topics")
    before = logger.level

    async def test(broker: Running) -> None:
        assert (await describe(broker, LOGGER, "1"))[2].keys() >= {"root", "fastlog", "fastlog.topics"}
        assert await alter(broker, LOGGER, "1", ("fastlog.topics", SET, "ERROR"), validate_only=True) == (Error.NONE, None)
        assert logger.level == before
        assert await alter(broker, LOGGER, "1", ("fastlog.topics", SET, "ERROR")) == (Error.NONE, None)
        assert logger.level == logging.ERROR
        found = (await describe(broker, LOGGER, "1", "fastlog.topics"))[2]["fastlog.topics"]
        assert (found["value"], found["config_source"]) == ("ERROR", 6)
        assert await alter(broker, LOGGER, "1", ("fastlog.topics", DELETE, None)) == (Error.NONE, None)
        assert logger.level == logging.NOTSET
        bad = Error.INVALID_REQUEST
        levels = "DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
        for name, change, error, why in (
            ("1", ("nope", SET, "INFO"), Error.INVALID_CONFIG, "Logger nope does not exist!"),
            (
                "1",
                ("root", SET, "BAD"),
                Error.INVALID_CONFIG,
                f"Cannot set the log level of root to BAD as it is not a supported log level. Valid log levels are {levels}",
            ),
            ("1", ("root", SET, None), bad, "Null value not supported for : root"),
            ("1", ("root", DELETE, None), bad, "Removing the log level of the root logger is not allowed"),
            ("1", ("root", APPEND, "INFO"), bad, "APPEND operation is not allowed for the BROKER_LOGGER resource"),
            ("2", ("root", SET, "INFO"), bad, "Unexpected node id. Expected 1, but received 2"),
            ("x", ("root", SET, "INFO"), bad, "Node id must be an integer, but it is: x"),
        ):
            assert await alter(broker, LOGGER, name, change) == (error, why)
        for name, why in (
            ("2", "Unexpected broker id, expected 1 but received 2"),
            ("", "Broker id must not be empty"),
            ("x", "Broker id must be an integer, but it is: x"),
        ):
            assert (await describe(broker, LOGGER, name))[:2] == (bad, why)

    try:
        served(tmp_path, test)
    finally:
        logger.setLevel(before)


def test_what_has_settings_is_listed(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        assert (await alter(broker, GROUP, "g", ("consumer.heartbeat.interval.ms", SET, "6000")))[0] == Error.NONE
        assert (await alter(broker, CLIENT_METRICS, "m", ("metrics", SET, "*")))[0] == Error.NONE
        every = {(GROUP, "g"), (CLIENT_METRICS, "m"), (LOGGER, "1"), (BROKER, "1"), (TOPIC, "t")}

        async def listed(*kinds: int) -> set[tuple[int, str]]:
            found = (await broker.call("ListConfigResources", resource_types=list(kinds)))["config_resources"]
            return {(resource["resource_type"], resource["resource_name"]) for resource in found}

        assert await listed() == every
        for kind, name in every:
            assert await listed(kind) == {(kind, name)}
        assert [r["resource_name"] for r in (await broker.call("ListConfigResources", 0))["config_resources"]] == ["m"]
        unknown = await broker.call("ListConfigResources", resource_types=[TOPIC, 99])
        assert (unknown["error_code"], unknown["config_resources"]) == (Error.UNSUPPORTED_VERSION, [])

    served(tmp_path, test)


def test_settings_of_security_that_would_not_hold_are_refused(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        error, why = await alter(broker, BROKER, "1", ("ssl.client.auth", SET, "required"))
        assert (error, why) == (Error.INVALID_REQUEST, "ssl.client.auth can't be set: there is no TLS, no SASL and no authorizer")
        assert (await alter(broker, BROKER, "", ("num.io.threads", SET, "16"))) == (Error.NONE, None)
        shown = (await describe(broker, BROKER, "1"))[2]
        assert (shown["num.io.threads"]["value"], shown["num.io.threads"]["config_source"]) == ("16", 3)
        assert (shown["ssl.key.password"]["value"], shown["ssl.key.password"]["is_sensitive"]) == (None, True)

    served(tmp_path, test)


def test_a_number_of_threads_grows_to_its_double_at_most_at_a_time(tmp_path: Path) -> None:
    async def test(broker: Running) -> None:
        for name, value, code in (
            ("1", "17", Error.INVALID_REQUEST),
            ("1", "3", Error.INVALID_REQUEST),
            ("1", "16", Error.NONE),
            ("1", "32", Error.NONE),
            ("", "1", Error.NONE),  # what counts is the broker's own
        ):
            assert (await alter(broker, BROKER, name, ("num.io.threads", SET, value)))[0] == code, value
        assert (await alter(broker, BROKER, "1", ("num.io.threads", DELETE, None)))[0] == Error.INVALID_REQUEST, "one would be left of 32"
        shown = (await describe(broker, BROKER, "1"))[2]
        assert shown["num.io.threads"]["value"] == "32"

    served(tmp_path, test)


@pytest.mark.parametrize("name", ["DescribeLogDirs", "ElectLeaders", "DescribeQuorum", "UpdateFeatures", "ListConfigResources"])
def test_every_version_takes_an_empty_request(tmp_path: Path, name: str) -> None:
    async def test(broker: Running) -> None:
        for version in versions(name):
            key = API_BY_NAME[name].key
            body = await broker.plane.request(key, version, encode_request(key, version, {}), listener="unix")
            assert decode_response(key, version, body).get("error_code", Error.NONE) == Error.NONE

    served(tmp_path, test)
