"""Groups and offsets over the real socket, request by request. Every expectation here is Apache Kafka 4.3's answer, too:

FASTLOG_TEST_BOOTSTRAP=HOST:PORT runs these tests against such a broker.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME, Message, decode_response, encode_request
from tests.coordinator.fakes import subscription
from tests.support.process import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)


class Wire:
    """One connection."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 40)
        self.stream = self.socket.makefile("rb")
        self.sent: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, name: str, version: int, message: Message) -> None:
        api = API_BY_NAME[name]
        header = struct.pack(">hhih", api.key, version, 9, 4) + b"wire" + (b"\0" if api.request_header_version(version) == 2 else b"")
        frame = header + encode_request(api.key, version, message)
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        self.sent.append((api.key, version))

    def receive(self) -> Message:
        key, version = self.sent.pop(0)
        (size,) = struct.unpack(">i", self.stream.read(4))
        answer = self.stream.read(size)
        skip = 5 if next(api for api in API_BY_NAME.values() if api.key == key).response_header_version(version) == 1 else 4
        return decode_response(key, version, answer[skip:])

    def ask(self, name: str, version: int, message: Message) -> Message:
        self.send(name, version, message)
        return self.receive()

    # -- requests in their newest version -------------------------------------------------------------------------------------------

    def join(self, group: str, member: str = "", version: int = 9, **changes: Any) -> Message:
        asked = join_request(group, member, **changes)
        for name, first in (("rebalance_timeout_ms", 1), ("group_instance_id", 5)):
            if version < first:
                asked.pop(name, None)
        return self.ask("JoinGroup", version, asked)

    def enter(self, group: str, **changes: Any) -> tuple[str, Message]:
        """A new dynamic member, as soon as its group lets it in."""
        member: str = self.join(group, **changes)["member_id"]
        return member, self.join(group, member, **changes)

    def sync(self, group: str, member: str, generation: int, assignments: dict[str, bytes] | None = None, **changes: Any) -> Message:
        asked = {"group_id": group, "generation_id": generation, "member_id": member, "protocol_type": "consumer", "protocol_name": "range"}
        asked["assignments"] = [{"member_id": key, "assignment": value} for key, value in (assignments or {}).items()]
        return self.ask("SyncGroup", 5, asked | changes)

    def heartbeat(self, group: str, member: str, generation: int, instance: str | None = None) -> Error:
        asked = {"group_id": group, "generation_id": generation, "member_id": member, "group_instance_id": instance}
        return Error(self.ask("Heartbeat", 4, asked)["error_code"])

    def leave(self, group: str, *members: tuple[str, str | None]) -> list[Error]:
        identities = [{"member_id": member, "group_instance_id": instance} for member, instance in members]
        return [Error(each["error_code"]) for each in self.ask("LeaveGroup", 5, {"group_id": group, "members": identities})["members"]]

    def commit(self, group: str, topic: str, offset: int, version: int = 9, **changes: Any) -> Error:
        at = {"partition_index": 0, "committed_offset": offset, "committed_metadata": changes.pop("metadata", "")}
        asked = {"group_id": group, "topics": [{"name": topic, "partitions": [at]}]} | changes
        return Error(self.ask("OffsetCommit", version, asked)["topics"][0]["partitions"][0]["error_code"])

    def fetch(self, group: str, topic: str) -> int:
        asked = {"groups": [{"group_id": group, "topics": [{"name": topic, "partition_indexes": [0]}]}]}
        (found,) = self.ask("OffsetFetch", 9, asked)["groups"]
        assert found["error_code"] == Error.NONE
        offset: int = found["topics"][0]["partitions"][0]["committed_offset"]
        return offset

    def state(self, group: str) -> str:
        state: str = self.ask("DescribeGroups", 6, {"groups": [group]})["groups"][0]["group_state"]
        return state


def join_request(group: str, member: str = "", **changes: Any) -> Message:
    asked = {
        "group_id": group,
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 20_000,
        "member_id": member,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": subscription("t")}],
    }
    return asked | changes


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of these tests' own, whose groups do not wait for more members; or the one from outside."""
    outside = os.environ.get("FASTLOG_TEST_BOOTSTRAP")
    if outside:
        yield outside
        return
    broker = Broker(tmp_path_factory.mktemp("groups") / "data", args=["--set", "group.initial.rebalance.delay.ms=0"])
    broker.start()
    yield broker.bootstrap
    broker.stop()


@pytest.fixture
def wire(bootstrap: str) -> Iterator[Wire]:
    with Wire(bootstrap) as connection:
        # As every client does; until then Kafka knows no coordinator.
        while connection.ask("FindCoordinator", 4, {"coordinator_keys": ["x"]})["coordinators"][0]["error_code"]:
            pass
        yield connection


@pytest.fixture
def group(wire: Wire, fresh_name: str) -> str:
    """A group that is not there, whose partition is loaded."""
    while wire.heartbeat(fresh_name, "nobody", 1) is not Error.UNKNOWN_MEMBER_ID:
        pass
    return fresh_name


@pytest.fixture
def topic(wire: Wire, fresh_name: str) -> tuple[str, UUID]:
    """Name and id of a topic with two partitions."""
    name = f"{fresh_name}-topic"
    asked = {"topics": [{"name": name, "num_partitions": 2, "replication_factor": 1}], "timeout_ms": 10_000}
    (made,) = wire.ask("CreateTopics", 7, asked)["topics"]
    assert made["error_code"] == Error.NONE
    while wire.commit(f"{fresh_name}-probe", name, 0) is Error.UNKNOWN_TOPIC_OR_PARTITION:
        pass  # Kafka's nodes learn of it a moment later
    return name, made["topic_id"]


def stable(wire: Wire, group: str, **changes: Any) -> str:
    """A member, alone in a stable group at generation 1."""
    member, joined = wire.enter(group, **changes)
    assert joined["generation_id"] == 1
    assert wire.sync(group, member, 1, {member: b"mine"})["assignment"] == b"mine"
    return member


# -- joining ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(10))
def test_join_group_versions(wire: Wire, group: str, version: int) -> None:
    member = ""
    if version >= 4:
        first = wire.join(group, version=version)
        assert (first["error_code"], first["generation_id"], first["leader"], first["members"]) == (Error.MEMBER_ID_REQUIRED, -1, "", [])
        assert first["protocol_name"] == (None if version >= 7 else "")
        member = first["member_id"]
    joined = wire.join(group, member, version)
    assert joined["error_code"] == Error.NONE
    assert joined["generation_id"] == 1
    assert joined["leader"] == joined["member_id"]
    assert joined["member_id"].startswith("wire-")
    assert (joined["protocol_type"], joined["protocol_name"]) == ("consumer" if version >= 7 else None, "range")
    assert joined["members"] == [{"member_id": joined["member_id"], "group_instance_id": None, "metadata": subscription("t")}]
    assert not joined["skip_assignment"]


def test_who_may_not_join(wire: Wire, group: str) -> None:
    assert wire.join("")["error_code"] == Error.INVALID_GROUP_ID
    for timeout in (5_999, 1_800_001):
        assert wire.join(group, session_timeout_ms=timeout)["error_code"] == Error.INVALID_SESSION_TIMEOUT
    gone = wire.join(group, "nobody")
    assert (gone["error_code"], gone["member_id"]) == (Error.UNKNOWN_MEMBER_ID, "nobody")
    assert wire.join(group, protocol_type="")["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
    assert wire.join(group, protocols=[])["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
    member = stable(wire, group)
    assert wire.join(group, "nobody")["error_code"] == Error.UNKNOWN_MEMBER_ID
    assert wire.join(group, member, group_instance_id="i")["error_code"] == Error.UNKNOWN_MEMBER_ID
    other = wire.join(group, member, protocols=[{"name": "sticky", "metadata": b""}])
    assert (other["error_code"], other["member_id"], other["protocol_name"]) == (Error.INCONSISTENT_GROUP_PROTOCOL, member, None)
    assert wire.join(group, protocol_type="connect")["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
    assert wire.state(group) == "Stable"


def test_a_rebalance_of_two(wire: Wire, group: str, bootstrap: str) -> None:
    leader = stable(wire, group)
    with Wire(bootstrap) as second:
        follower = second.join(group)["member_id"]
        second.send("JoinGroup", 9, join_request(group, follower))
        while wire.heartbeat(group, leader, 1) is Error.NONE:
            pass
        assert wire.heartbeat(group, leader, 1) is Error.REBALANCE_IN_PROGRESS
        assert wire.state(group) == "PreparingRebalance"
        assert wire.sync(group, leader, 1)["error_code"] == Error.REBALANCE_IN_PROGRESS
        led = wire.join(group, leader)
        followed = second.receive()
        assert (led["generation_id"], followed["generation_id"], led["leader"], followed["leader"]) == (2, 2, leader, leader)
        assert {member["member_id"] for member in led["members"]} == {leader, follower}
        assert followed["members"] == []
        assert wire.state(group) == "CompletingRebalance"
        assert wire.heartbeat(group, leader, 2) is Error.NONE
        assert wire.heartbeat(group, leader, 1) is Error.ILLEGAL_GENERATION
        again = wire.join(group, leader)  # the response may have been lost
        assert (again["generation_id"], len(again["members"])) == (2, 2)
        second.send(
            "SyncGroup",
            5,
            {"group_id": group, "generation_id": 2, "member_id": follower, "protocol_type": "consumer", "protocol_name": "range"},
        )
        assert wire.sync(group, leader, 2, {leader: b"A", follower: b"B"})["assignment"] == b"A"
        assert second.receive()["assignment"] == b"B"
        same = second.join(group, follower)
        assert (same["error_code"], same["generation_id"], same["leader"], same["members"]) == (Error.NONE, 2, leader, [])
        assert wire.state(group) == "Stable"
        assert wire.leave(group, (follower, None)) == [Error.NONE]
        assert wire.heartbeat(group, leader, 2) is Error.REBALANCE_IN_PROGRESS
        assert second.heartbeat(group, follower, 2) is Error.UNKNOWN_MEMBER_ID
        assert wire.join(group, leader)["generation_id"] == 3


def test_sync_group_errors(wire: Wire, group: str) -> None:
    assert wire.sync(group, "nobody", 1)["error_code"] == Error.UNKNOWN_MEMBER_ID
    assert wire.sync("", "nobody", 1)["error_code"] == Error.INVALID_GROUP_ID
    member = stable(wire, group)
    assert wire.sync(group, "nobody", 1)["error_code"] == Error.UNKNOWN_MEMBER_ID
    assert wire.sync(group, member, 2)["error_code"] == Error.ILLEGAL_GENERATION
    assert wire.sync(group, member, 1, protocol_name="sticky")["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
    assert wire.sync(group, member, 1, protocol_type=None)["error_code"] == Error.INCONSISTENT_GROUP_PROTOCOL
    again = wire.sync(group, member, 1)
    assert (again["error_code"], again["assignment"], again["protocol_type"], again["protocol_name"]) == (
        Error.NONE,
        b"mine",
        "consumer",
        "range",
    )


def test_heartbeat_errors(wire: Wire, group: str) -> None:
    assert wire.heartbeat("", "nobody", 1) is Error.INVALID_GROUP_ID
    assert wire.heartbeat(group, "nobody", 1) is Error.UNKNOWN_MEMBER_ID
    member = stable(wire, group)
    assert wire.heartbeat(group, member, 0) is Error.ILLEGAL_GENERATION
    assert wire.heartbeat(group, member, 1, "i") is Error.UNKNOWN_MEMBER_ID
    assert wire.heartbeat(group, member, 1) is Error.NONE
    assert wire.leave(group, (member, None)) == [Error.NONE]
    assert wire.heartbeat(group, member, 1) is Error.UNKNOWN_MEMBER_ID


def test_leave_group_versions(wire: Wire, group: str) -> None:
    for version in range(3):
        assert wire.ask("LeaveGroup", version, {"group_id": group, "member_id": "nobody"})["error_code"] == Error.UNKNOWN_MEMBER_ID
    for version in range(3, 6):
        asked: Message = {"group_id": group, "members": [{"member_id": "nobody"}, {"member_id": "", "group_instance_id": "i"}]}
        answer = wire.ask("LeaveGroup", version, asked)
        assert answer["error_code"] == Error.NONE
        assert [each["error_code"] for each in answer["members"]] == [Error.UNKNOWN_MEMBER_ID] * 2
    member = stable(wire, group)
    assert wire.ask("LeaveGroup", 0, {"group_id": group, "member_id": member})["error_code"] == Error.NONE
    assert wire.state(group) == "Empty"


def test_a_pending_member_leaves(wire: Wire, group: str) -> None:
    pending = wire.join(group)["member_id"]
    assert wire.leave(group, (pending, None)) == [Error.NONE]
    assert wire.join(group, pending)["error_code"] == Error.UNKNOWN_MEMBER_ID


def test_a_session_ends(wire: Wire, group: str, eventually: Callable[..., None]) -> None:
    stable(wire, group, session_timeout_ms=6_000)
    eventually(lambda: wire.state(group) == "Empty", 15)


# -- static members -----------------------------------------------------------------------------------------------------------------


def test_a_static_leader_returns(wire: Wire, group: str) -> None:
    joined = wire.join(group, group_instance_id="i")
    old = joined["member_id"]
    assert old.startswith("i-")
    assert joined["members"][0]["group_instance_id"] == "i"
    wire.sync(group, old, 1, {old: b"mine"}, group_instance_id="i")
    back = wire.join(group, group_instance_id="i")
    new = back["member_id"]
    assert new != old
    assert (back["error_code"], back["generation_id"], back["leader"], back["skip_assignment"]) == (Error.NONE, 1, new, True)
    assert [member["member_id"] for member in back["members"]] == [new]
    assert wire.sync(group, new, 1, group_instance_id="i")["assignment"] == b"mine"
    assert wire.heartbeat(group, old, 1, "i") is Error.FENCED_INSTANCE_ID
    assert wire.heartbeat(group, old, 1) is Error.UNKNOWN_MEMBER_ID
    assert wire.join(group, old, group_instance_id="i")["error_code"] == Error.FENCED_INSTANCE_ID
    assert wire.sync(group, old, 1, group_instance_id="i")["error_code"] == Error.FENCED_INSTANCE_ID
    assert wire.leave(group, (old, "i")) == [Error.FENCED_INSTANCE_ID]
    assert wire.commit(group, "t", 1, member_id=old, generation_id_or_member_epoch=1, group_instance_id="i") in {
        Error.FENCED_INSTANCE_ID,
        Error.UNKNOWN_TOPIC_OR_PARTITION,
    }
    older = wire.join(group, version=8, group_instance_id="i")
    assert (older["leader"], older["members"], older["skip_assignment"]) == (new, [], False)
    assert older["member_id"] != new
    assert wire.leave(group, ("", "i"), ("", "nobody"), ("", None)) == [Error.NONE, Error.UNKNOWN_MEMBER_ID, Error.UNKNOWN_MEMBER_ID]
    assert wire.state(group) == "Empty"


# -- offsets ------------------------------------------------------------------------------------------------------------------------


def test_commits_of_members(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    name, _ = topic
    for version in range(2, 10):
        expected = Error.GROUP_ID_NOT_FOUND if version >= 9 else Error.ILLEGAL_GENERATION
        assert wire.commit(group, name, 1, version, member_id="nobody", generation_id_or_member_epoch=1) is expected
    member = stable(wire, group)
    assert wire.commit(group, name, 1) is Error.UNKNOWN_MEMBER_ID
    assert wire.commit(group, name, 1, member_id="nobody", generation_id_or_member_epoch=1) is Error.UNKNOWN_MEMBER_ID
    assert wire.commit(group, name, 1, member_id=member, generation_id_or_member_epoch=2) is Error.ILLEGAL_GENERATION
    assert wire.commit(group, name, 1, member_id=member) is Error.ILLEGAL_GENERATION
    assert wire.fetch(group, name) == -1
    assert wire.commit(group, name, 1, member_id=member, generation_id_or_member_epoch=1) is Error.NONE
    assert wire.fetch(group, name) == 1
    led = wire.join(group, member)
    assert led["generation_id"] == 2
    assert wire.commit(group, name, 2, member_id=member, generation_id_or_member_epoch=2) is Error.REBALANCE_IN_PROGRESS
    assert wire.leave(group, (member, None)) == [Error.NONE]
    assert wire.commit(group, name, 3, member_id=member, generation_id_or_member_epoch=2) is Error.UNKNOWN_MEMBER_ID
    assert wire.commit(group, name, 4) is Error.NONE
    assert wire.fetch(group, name) == 4


def test_commits_of_partitions_that_are_not_there(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    name, topic_id = topic
    at = [{"partition_index": index, "committed_offset": 5, "committed_metadata": None} for index in (0, 1, 2)]
    nothing = UUID(int=1 << 70)
    by_name = wire.ask("OffsetCommit", 9, {"group_id": group, "topics": [{"name": each, "partitions": at} for each in (name, "not-there")]})
    missing = Error.UNKNOWN_TOPIC_OR_PARTITION
    assert {
        each["name"]: [(p["partition_index"], p["error_code"]) for p in sorted(each["partitions"], key=index_of)]
        for each in by_name["topics"]
    } == {
        name: [(0, Error.NONE), (1, Error.NONE), (2, missing)],
        "not-there": [(0, missing), (1, missing), (2, missing)],
    }
    by_id = wire.ask(
        "OffsetCommit", 10, {"group_id": group, "topics": [{"topic_id": each, "partitions": at} for each in (topic_id, nothing)]}
    )
    unknown = Error.UNKNOWN_TOPIC_ID
    assert {
        each["topic_id"]: [(p["partition_index"], p["error_code"]) for p in sorted(each["partitions"], key=index_of)]
        for each in by_id["topics"]
    } == {
        topic_id: [(0, Error.NONE), (1, Error.NONE), (2, missing)],
        nothing: [(0, unknown), (1, unknown), (2, unknown)],
    }


def index_of(partition: Message) -> int:
    index: int = partition["partition_index"]
    return index


def test_commit_metadata(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    name, _ = topic
    assert wire.commit(group, name, 1, metadata="x" * 4097) is Error.OFFSET_METADATA_TOO_LARGE
    assert wire.commit(group, name, 1, metadata="x" * 4096) is Error.NONE
    assert wire.commit(group, name, 1, metadata="é" * 4096) is Error.NONE
    assert wire.commit(group, name, 1, metadata="\U0001f600" * 2049) is Error.OFFSET_METADATA_TOO_LARGE
    assert wire.commit(group, name, 1, metadata=None) is Error.NONE


@pytest.mark.parametrize("version", range(1, 11))
def test_offset_fetch_versions(wire: Wire, group: str, topic: tuple[str, UUID], version: int) -> None:
    name, topic_id = topic
    at = {"partition_index": 0, "committed_offset": 7, "committed_leader_epoch": 0, "committed_metadata": "m"}
    wire.ask("OffsetCommit", 9, {"group_id": group, "topics": [{"name": name, "partitions": [at]}]})
    key: Message = {"topic_id": topic_id} if version >= 10 else {"name": name}
    one: Message = {"group_id": group, "topics": [key | {"partition_indexes": [1, 0]}]}
    found = wire.ask("OffsetFetch", version, one if version < 8 else {"groups": [one]})
    found = found if version < 8 else found["groups"][0]
    assert found["error_code"] == Error.NONE
    (answer,) = found["topics"]
    assert {field: answer[field] for field in key} == key
    epoch = 0 if version >= 5 else -1
    assert answer["partitions"] == [
        {"partition_index": 1, "committed_offset": -1, "committed_leader_epoch": -1, "metadata": "", "error_code": Error.NONE},
        {"partition_index": 0, "committed_offset": 7, "committed_leader_epoch": epoch, "metadata": "m", "error_code": Error.NONE},
    ]
    if version >= 2:
        everything: Message = {"group_id": group, "topics": None}
        found = wire.ask("OffsetFetch", version, everything if version < 8 else {"groups": [everything]})
        found = found if version < 8 else found["groups"][0]
        assert [each["partitions"][0]["committed_offset"] for each in found["topics"]] == [7]
        assert {field: found["topics"][0][field] for field in key} == key


def test_offset_fetch_of_what_is_not_there(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    name, topic_id = topic
    assert wire.fetch(group, name) == -1
    assert wire.fetch(group, "not-there") == -1
    nothing = UUID(int=1 << 70)
    topics = [{"topic_id": each, "partition_indexes": [0]} for each in (nothing, topic_id)]
    (found,) = wire.ask("OffsetFetch", 10, {"groups": [{"group_id": group, "topics": topics}]})["groups"]
    assert found["error_code"] == Error.NONE
    assert {each["topic_id"]: each["partitions"][0]["error_code"] for each in found["topics"]} == {
        nothing: Error.UNKNOWN_TOPIC_ID,
        topic_id: Error.NONE,
    }
    (found,) = wire.ask("OffsetFetch", 9, {"groups": [{"group_id": group, "topics": None}]})["groups"]
    assert (found["error_code"], found["topics"]) == (Error.NONE, [])


def test_offset_delete(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    name, _ = topic

    def delete(*topics: str) -> tuple[Error, dict[str, Error]]:
        asked = [{"name": each, "partitions": [{"partition_index": 0}]} for each in topics]
        answer = wire.ask("OffsetDelete", 0, {"group_id": group, "topics": asked})
        return Error(answer["error_code"]), {each["name"]: Error(each["partitions"][0]["error_code"]) for each in answer["topics"]}

    assert delete(name) == (Error.GROUP_ID_NOT_FOUND, {})
    assert delete("not-there") == (Error.GROUP_ID_NOT_FOUND, {})
    wire.commit(group, name, 5)
    assert delete(name, "not-there") == (Error.NONE, {name: Error.NONE, "not-there": Error.UNKNOWN_TOPIC_OR_PARTITION})
    assert wire.fetch(group, name) == -1
    member = stable(wire, group, protocols=[{"name": "range", "metadata": subscription(name)}])
    wire.commit(group, name, 6, member_id=member, generation_id_or_member_epoch=1)
    assert delete(name) == (Error.NONE, {name: Error.GROUP_SUBSCRIBED_TO_TOPIC})
    assert wire.fetch(group, name) == 6


def test_offset_delete_of_a_group_of_another_protocol(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    member = wire.join(group, protocol_type="connect")["member_id"]
    wire.join(group, member, protocol_type="connect")
    asked = {"group_id": group, "topics": [{"name": topic[0], "partitions": [{"partition_index": 0}]}]}
    assert wire.ask("OffsetDelete", 0, asked)["error_code"] == Error.NON_EMPTY_GROUP


# -- administration -----------------------------------------------------------------------------------------------------------------


def test_describe_and_list(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    for version in range(7):
        (gone,) = wire.ask("DescribeGroups", version, {"groups": [group]})["groups"]
        assert (gone["group_state"], gone["error_code"]) == ("Dead", Error.GROUP_ID_NOT_FOUND if version >= 6 else Error.NONE)
        assert gone["error_message"] == (f"Group {group} not found." if version >= 6 else None)
    joined = wire.join(group, group_instance_id="i")
    member = joined["member_id"]
    wire.sync(group, member, 1, {member: b"mine"}, group_instance_id="i")
    for version in range(7):
        asked: Message = {"groups": [group]} | ({"include_authorized_operations": True} if version >= 3 else {})
        (found,) = wire.ask("DescribeGroups", version, asked)["groups"]
        assert found == {
            "error_code": Error.NONE,
            "error_message": None,
            "group_id": group,
            "group_state": "Stable",
            "protocol_type": "consumer",
            "protocol_data": "range",
            "members": [
                {
                    "member_id": member,
                    "group_instance_id": "i" if version >= 4 else None,
                    "client_id": "wire",
                    "client_host": "/127.0.0.1",
                    "member_metadata": subscription("t"),
                    "member_assignment": b"mine",
                }
            ],
            "authorized_operations": 0b110101001000 if version >= 3 else -(1 << 31),
        }
    for version in range(6):
        listed = {each["group_id"]: each for each in wire.ask("ListGroups", version, {})["groups"]}
        assert listed[group]["protocol_type"] == "consumer"
        assert listed[group]["group_state"] == ("Stable" if version >= 4 else "")
        assert listed[group]["group_type"] == ("classic" if version >= 5 else "")
    assert group in {
        each["group_id"] for each in wire.ask("ListGroups", 5, {"states_filter": ["stable"], "types_filter": ["classic"]})["groups"]
    }
    assert group not in {each["group_id"] for each in wire.ask("ListGroups", 5, {"states_filter": ["Empty"]})["groups"]}
    assert group not in {each["group_id"] for each in wire.ask("ListGroups", 5, {"types_filter": ["consumer"]})["groups"]}


def test_delete_groups(wire: Wire, group: str, topic: tuple[str, UUID]) -> None:
    def delete(name: str) -> Error:
        (result,) = wire.ask("DeleteGroups", 2, {"groups_names": [name]})["results"]
        return Error(result["error_code"])

    assert delete(group) is Error.GROUP_ID_NOT_FOUND
    member = stable(wire, group)
    wire.commit(group, topic[0], 5, member_id=member, generation_id_or_member_epoch=1)
    assert delete(group) is Error.NON_EMPTY_GROUP
    wire.leave(group, (member, None))
    assert wire.state(group) == "Empty"
    assert delete(group) is Error.NONE
    assert wire.state(group) == "Dead"
    assert wire.fetch(group, topic[0]) == -1
    assert delete(group) is Error.GROUP_ID_NOT_FOUND


def test_a_deleted_topics_offsets_go(wire: Wire, group: str, topic: tuple[str, UUID], eventually: Callable[..., None]) -> None:
    wire.commit(group, topic[0], 5)
    (deleted,) = wire.ask("DeleteTopics", 6, {"topics": [{"name": topic[0]}], "timeout_ms": 10_000})["responses"]
    assert deleted["error_code"] == Error.NONE
    eventually(lambda: wire.fetch(group, topic[0]) == -1, 10)


@pytest.mark.parametrize("version", range(7))
def test_find_coordinator_versions(wire: Wire, bootstrap: str, version: int) -> None:
    asked: Message = {"coordinator_keys": ["a", "b"]} if version >= 4 else {"key": "a"}
    answer = wire.ask("FindCoordinator", version, asked)
    for found in answer["coordinators"] if version >= 4 else [answer]:
        assert found["error_code"] == Error.NONE
        assert f"{found['host']}:{found['port']}" == bootstrap
    if version >= 4:
        assert [found["key"] for found in answer["coordinators"]] == ["a", "b"]


@pytest.mark.parametrize("version", range(6))
def test_init_producer_id_versions(wire: Wire, version: int) -> None:
    asked: Message = {"transactional_id": None, "transaction_timeout_ms": 60_000}
    ids = []
    for _ in range(3):
        while (given := wire.ask("InitProducerId", version, asked))["error_code"] == Error.COORDINATOR_LOAD_IN_PROGRESS:
            pass  # Kafka says so until it has reserved its first ids
        assert (given["error_code"], given["producer_epoch"]) == (Error.NONE, 0)
        ids.append(given["producer_id"])
    assert len(set(ids)) == 3
    assert wire.ask("InitProducerId", version, asked | {"transactional_id": ""})["error_code"] == Error.INVALID_REQUEST
    if version >= 3:
        again = wire.ask("InitProducerId", version, asked | {"producer_id": ids[0], "producer_epoch": 3})
        assert (again["error_code"], again["producer_epoch"]) == (Error.NONE, 0)
        assert again["producer_id"] not in ids
        assert wire.ask("InitProducerId", version, asked | {"producer_id": 5})["error_code"] == Error.INVALID_REQUEST
