"""ConsumerGroupHeartbeat and ConsumerGroupDescribe over a connection, in all versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from tests.coordinator.test_wire import bootstrap, group, topic, wire  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from uuid import UUID

    from tests.coordinator.test_wire import Wire

Message = dict[str, Any]


def beat(wire: Wire, group: str, member_id: str, epoch: int, /, *topics: str, version: int = 1, **changes: Any) -> Message:  # noqa: F811
    request: Message = {"group_id": group, "member_id": member_id, "member_epoch": epoch}
    if epoch == 0:
        request |= {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": list(topics), "topic_partitions": []}
    answer: Message = wire.ask("ConsumerGroupHeartbeat", version, request | changes)
    return answer


@pytest.mark.parametrize("version", [0, 1])
def test_joining_describing_and_leaving(wire: Wire, group: str, topic: tuple[str, UUID], version: int) -> None:  # noqa: F811
    name, topic_id = topic
    joined = beat(wire, group, "" if version == 0 else "chosen", 0, name, version=version, rack_id="r")
    assert (joined["error_code"], joined["member_epoch"], joined["heartbeat_interval_ms"]) == (Error.NONE, 2, 5_000)
    member_id = joined["member_id"]
    assert (member_id == "chosen") == (version == 1)
    (given,) = joined["assignment"]["topic_partitions"]
    assert given["topic_id"] == topic_id
    quiet = beat(wire, group, member_id, 2, version=version)
    assert (quiet["error_code"], quiet["member_epoch"], quiet["assignment"]) == (Error.NONE, 2, None)
    (found,) = wire.ask("ConsumerGroupDescribe", version, {"group_ids": [group], "include_authorized_operations": True})["groups"]
    assert (found["group_state"], found["group_epoch"], found["assignment_epoch"], found["assignor_name"]) == ("Stable", 2, 2, "uniform")
    assert found["authorized_operations"] == 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
    (member,) = found["members"]
    assert (member["member_id"], member["rack_id"], member["member_epoch"], member["subscribed_topic_names"]) == (member_id, "r", 2, [name])
    assert member["assignment"] == member["target_assignment"]
    assert sorted(member["assignment"]["topic_partitions"][0]["partitions"]) == sorted(given["partitions"])
    assert member["member_type"] == (1 if version else -1)
    listed = {g["group_id"]: g for g in wire.ask("ListGroups", 5, {"states_filter": [], "types_filter": ["consumer"]})["groups"]}
    assert (listed[group]["group_type"].lower(), listed[group]["group_state"], listed[group]["protocol_type"]) == (
        "consumer",
        "Stable",
        "consumer",
    )
    (dead,) = wire.ask("DescribeGroups", 6, {"groups": [group]})["groups"]
    assert (dead["error_code"], dead["group_state"]) == (Error.GROUP_ID_NOT_FOUND, "Dead")
    (kept,) = wire.ask("DeleteGroups", 2, {"groups_names": [group]})["results"]
    assert kept["error_code"] == Error.NON_EMPTY_GROUP
    left = beat(wire, group, member_id, -1, version=version)
    assert (left["error_code"], left["member_id"], left["member_epoch"]) == (Error.NONE, member_id, -1)
    (gone,) = wire.ask("DeleteGroups", 2, {"groups_names": [group]})["results"]
    assert gone["error_code"] == Error.NONE


@pytest.mark.parametrize(
    ("epoch", "changes", "error", "message"),
    [
        (0, {"member_id": ""}, Error.INVALID_REQUEST, "MemberId can't be empty."),
        (0, {"instance_id": ""}, Error.INVALID_REQUEST, "InstanceId can't be empty."),
        (0, {"rebalance_timeout_ms": -1}, Error.INVALID_REQUEST, "RebalanceTimeoutMs must be provided in first request."),
        (0, {"topic_partitions": None}, Error.INVALID_REQUEST, "TopicPartitions must be empty when (re-)joining."),
        (-2, {}, Error.INVALID_REQUEST, "InstanceId can't be null."),
        (-3, {}, Error.INVALID_REQUEST, "MemberEpoch is invalid."),
        (
            0,
            {"server_assignor": "x"},
            Error.UNSUPPORTED_ASSIGNOR,
            "ServerAssignor x is not supported. Supported assignors: uniform, range.",
        ),
    ],
)
def test_what_is_refused(wire: Wire, group: str, epoch: int, changes: Message, error: Error, message: str) -> None:  # noqa: F811
    answer = beat(wire, group, changes.get("member_id", "m"), epoch, "t", **changes)
    assert (answer["error_code"], answer["error_message"]) == (error, message)


def test_members_that_are_fenced(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:  # noqa: F811
    assert beat(wire, group, "m", 3)["error_code"] == Error.GROUP_ID_NOT_FOUND
    beat(wire, group, "m", 0, topic[0])
    assert beat(wire, group, "m", 3)["error_code"] == Error.FENCED_MEMBER_EPOCH
    assert beat(wire, group, "m", 1)["error_code"] == Error.FENCED_MEMBER_EPOCH
    assert beat(wire, group, "x", 2)["error_code"] == Error.UNKNOWN_MEMBER_ID
    assert beat(wire, group, "s", 0, topic[0], instance_id="i")["error_code"] == Error.NONE
    assert beat(wire, group, "s2", 0, topic[0], instance_id="i")["error_code"] == Error.UNRELEASED_INSTANCE_ID
    assert beat(wire, group, "s", -2, instance_id="i")["member_epoch"] == -2
    assert beat(wire, group, "s2", 0, topic[0], instance_id="i")["error_code"] == Error.NONE
    assert beat(wire, group, "s", 3, instance_id="i")["error_code"] == Error.FENCED_INSTANCE_ID
    refused = beat(wire, group, "r", 0, subscribed_topic_names=None, subscribed_topic_regex="(")
    assert refused["error_code"] == Error.INVALID_REGULAR_EXPRESSION


def test_offsets_of_members(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:  # noqa: F811
    beat(wire, group, "m", 0, topic[0])

    def commit(version: int, member_id: str, epoch: int) -> Error:
        partition = {"partition_index": 0, "committed_offset": 5, "committed_metadata": ""}
        request: Message = {
            "group_id": group,
            "generation_id_or_member_epoch": epoch,
            "member_id": member_id,
            "topics": [{"name": topic[0], "topic_id": topic[1] if version >= 10 else None, "partitions": [partition]}],
        }
        if version < 10:
            del request["topics"][0]["topic_id"]
        return Error(wire.ask("OffsetCommit", version, request)["topics"][0]["partitions"][0]["error_code"])

    assert commit(9, "m", 2) is Error.NONE
    assert commit(10, "m", 2) is Error.NONE
    assert commit(8, "m", 2) is Error.UNSUPPORTED_VERSION
    assert commit(9, "m", 3) is Error.STALE_MEMBER_EPOCH
    assert commit(9, "x", 2) is Error.UNKNOWN_MEMBER_ID

    def fetch(member_id: str | None, epoch: int) -> Error:
        topics = [{"name": topic[0], "partition_indexes": [0]}]
        asked = {"group_id": group, "member_id": member_id, "member_epoch": epoch, "topics": topics}
        return Error(wire.ask("OffsetFetch", 9, {"groups": [asked], "require_stable": False})["groups"][0]["error_code"])

    assert fetch("m", 2) is Error.NONE
    assert fetch(None, -1) is Error.NONE
    assert fetch("m", 3) is Error.STALE_MEMBER_EPOCH
    assert fetch("x", 2) is Error.UNKNOWN_MEMBER_ID


def test_a_group_has_settings_of_its_own(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:  # noqa: F811
    setting = {"name": "consumer.heartbeat.interval.ms", "config_operation": 0, "value": "6000"}
    resource = {"resource_type": 32, "resource_name": group, "configs": [setting]}
    (changed,) = wire.ask("IncrementalAlterConfigs", 1, {"resources": [resource], "validate_only": False})["responses"]
    assert changed["error_code"] == Error.NONE
    assert beat(wire, group, "m", 0, topic[0])["heartbeat_interval_ms"] == 6_000
