"""The classic group protocol: JoinGroup, SyncGroup and Heartbeat; one member, the leader, shares partitions out (`assignors`).

Eager, each change of the group takes all partitions from everybody first. Cooperative (KIP-429; `cooperative-sticky` alone), members read
on while the group shares out, let go of what others are to get, and join once more for those to get it.
"""

import struct
import time
from collections.abc import Iterable

from fastlog.client.assignors import ASSIGNORS, Member
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ProtocolError
from fastlog.client.group import ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, Membership, State
from fastlog.client.logs import INFO, say
from fastlog.client.records import Partition, by_topic
from fastlog.protocol import DecodeError
from fastlog.protocol.messages import Message, decode_data, encode_data

REBALANCE_IN_PROGRESS, MEMBER_ID_REQUIRED = 27, 79
SUBSCRIPTION, ASSIGNMENT = "consumer_protocol_subscription", "consumer_protocol_assignment"
COOPERATIVE = "cooperative-sticky"


def _versioned(name: str, version: int, message: Message) -> bytes:
    return struct.pack(">h", version) + encode_data(name, version, message)


def _unversioned(name: str, data: bytes) -> Message:
    """Raises ProtocolError: another member wrote it."""
    try:
        (version,) = struct.unpack_from(">h", data)
        return decode_data(name, max(0, min(version, 3)), data[2:])
    except (DecodeError, struct.error) as error:
        raise ProtocolError(f"a member of the group said what is no {name.replace('_', ' ')}: {error}") from error


def sticky_data(partitions: Iterable[Partition], generation: int) -> bytes:
    """What an eager member of the sticky assignor says that it had: topics with their partitions, and the generation (version 1)."""
    topics = by_topic(partitions)
    made = struct.pack(">i", len(topics))
    for topic, numbers in topics.items():
        name = topic.encode()
        made += struct.pack(f">h{len(name)}si{len(numbers)}i", len(name), name, len(numbers), *numbers)
    return made + struct.pack(">i", generation)


def read_sticky_data(data: bytes) -> tuple[list[Partition], int]:
    """The reverse; version 0 has no generation. What can't be read counts as nothing: other clients may put there what they like."""
    try:
        found, at = [], 4
        for _ in range(struct.unpack_from(">i", data)[0]):
            (n,) = struct.unpack_from(">H", data, at)
            topic = data[at + 2 : at + 2 + n].decode()
            (count,) = struct.unpack_from(">i", data, at + 2 + n)
            found += [(topic, number) for number in struct.unpack_from(f">{count}i", data, at + 6 + n)]
            at += 6 + n + 4 * count
        return found, struct.unpack_from(">i", data, at)[0] if len(data) >= at + 4 else -1
    except (struct.error, UnicodeDecodeError, MemoryError):
        return [], -1


class ClassicMembership(Membership):
    """See the module. What was shared out last is remembered (`_had`) for the sticky assignor, which is eager."""

    _had: tuple[list[Partition], int] = ([], -1)

    @property
    def cooperative(self) -> bool:
        return bool(self.settings["partition_assignment_strategy"] == [COOPERATIVE])

    def _heartbeat_s(self) -> float:
        return float(self.settings["heartbeat_interval_ms"]) / 1000

    def _resubscribe(self) -> None:
        if self.cooperative:
            self.state = State.JOINING
        else:
            self._let_go_of_all()

    def _let_go_of_all(self) -> None:
        self.leaving, self._after_leaving = list(self.owned), State.JOINING
        self.state = State.REVOKING

    def _beat(self) -> None:
        request = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.settings["group_instance_id"],
        }
        code = self._ask("Heartbeat", request)["error_code"]
        if code == REBALANCE_IN_PROGRESS:
            with self._condition:
                if self.state in (State.STABLE, State.ASSIGNED):
                    self._resubscribe()
            self.changed()
        elif code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
            self._thrown_out(code)
        elif code:
            raise error_for(code, f"heartbeat to group {self.group!r}")

    def _subscription(self, strategy: str, topics: list[str]) -> bytes:
        owned = self.owned if self.cooperative else []
        message: Message = {
            "topics": topics,
            "user_data": sticky_data(*self._had) if strategy == "sticky" else None,
            "owned_partitions": [{"topic": topic, "partitions": numbers} for topic, numbers in by_topic(owned).items()],
            "generation_id": self.generation if owned else -1,
        }
        return _versioned(SUBSCRIPTION, 2, message)

    def _join(self) -> None:
        """JoinGroup and SyncGroup; on success there is an assignment."""
        self._again = False
        topics = self.subscribed = sorted(self.topics())
        wait_s = self.settings["max_poll_interval_ms"] / 1000
        request = {
            "group_id": self.group,
            "session_timeout_ms": self.settings["session_timeout_ms"],
            "rebalance_timeout_ms": self.settings["max_poll_interval_ms"],
            "member_id": self.member_id,
            "group_instance_id": self.settings["group_instance_id"],
            "protocol_type": "consumer",
            "protocols": [
                {"name": name, "metadata": self._subscription(name, topics)} for name in self.settings["partition_assignment_strategy"]
            ],
        }
        said = self._ask("JoinGroup", request, wait_s + 5)
        code = said["error_code"]
        if code == MEMBER_ID_REQUIRED:
            self.member_id = said["member_id"]
            return
        if code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
            self._thrown_out(UNKNOWN_MEMBER_ID)
            return
        if code == REBALANCE_IN_PROGRESS:
            time.sleep(0.05)
            return
        if code:
            raise error_for(code, f"join group {self.group!r}")
        self.member_id = said["member_id"]
        shares = []
        if said["leader"] == self.member_id and not said["skip_assignment"]:
            shares = self._share_out(said)
        elif said["leader"] != self.member_id:
            self.counts = {}
        request = {
            "group_id": self.group,
            "generation_id": said["generation_id"],
            "member_id": self.member_id,
            "group_instance_id": self.settings["group_instance_id"],
            "protocol_type": "consumer",
            "protocol_name": said["protocol_name"],
            "assignments": shares,
        }
        synced = self._ask("SyncGroup", request, wait_s + 5)
        code = synced["error_code"]
        if code in (REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION):
            return
        if code == UNKNOWN_MEMBER_ID:
            self._thrown_out(code)
            return
        if code:
            raise error_for(code, f"join group {self.group!r}")
        found = _unversioned(ASSIGNMENT, synced["assignment"])["assigned_partitions"] if synced["assignment"] else []
        assignment = [(t["topic"], n) for t in found for n in t["partitions"]]
        self._had = (assignment, said["generation_id"])
        if self.cooperative and not set(self.owned) <= set(assignment):
            self._again = True  # what is let go of now goes to others
        self._share(assignment, said["generation_id"])

    def _share_out(self, said: Message) -> list[Message]:
        """The leader's task."""
        members = {}
        strategy = said["protocol_name"]
        for member in said["members"]:
            told = _unversioned(SUBSCRIPTION, member["metadata"])
            owned, generation = [(t["topic"], n) for t in told["owned_partitions"] for n in t["partitions"]], told["generation_id"]
            if strategy == "sticky" and told["user_data"]:
                owned, generation = read_sticky_data(bytes(told["user_data"]))
            elif strategy == COOPERATIVE and generation < 0 and told["user_data"] and len(told["user_data"]) == 4:
                (generation,) = struct.unpack(">i", bytes(told["user_data"]))
            members[member["member_id"]] = Member(told["topics"], member["group_instance_id"], owned, generation)
        topics = {t for member in members.values() for t in member.topics}
        known = self.cluster.metadata(sorted(topics)) if topics else {}
        self.counts = {name: meta.size(0) for name, meta in known.items()}
        there = {name: count for name, count in self.counts.items() if count}
        made = []
        for name, parts in ASSIGNORS[strategy](members, there).items():
            message = {"assigned_partitions": [{"topic": t, "partitions": n} for t, n in by_topic(parts).items()], "user_data": None}
            made.append({"member_id": name, "assignment": _versioned(ASSIGNMENT, 1, message)})
        return made

    def _leave(self) -> None:
        """A static member does not: it may come back before its session ends, and gets what it had."""
        if self.settings["group_instance_id"] is None:
            members = [{"member_id": self.member_id, "group_instance_id": None}]
            request: Message = {"group_id": self.group, "members": members}
            try:
                found = self.cluster.connection(self._coordinator, "commit")
                if (found.version("LeaveGroup") or 0) < 3:
                    request = {"group_id": self.group, "member_id": self.member_id}
                found.call("LeaveGroup", request, 5.0)
            except ClientError as error:
                say(INFO, "group %s: leaving: %s; its partitions go to others when the session ends", self.group, error, group=self.group)
            self.member_id = ""
        self.generation = -1
