"""Membership in a consumer group, by the classic protocol: a thread that joins, keeps alive and leaves.

The thread never touches the consumer's partitions: it says what is to be done by `state`, and the consumer does it when its user polls.

    JOINING    partitions are asked for
    ASSIGNED   they are there: the consumer takes them up, then `taken_up`
    STABLE     heartbeats go on
    REVOKING   the group is sharing out anew: the consumer lets go of its partitions, then `let_go`
    LOST       the member was thrown out: its partitions are others' already; the consumer lets go, then `let_go`
    LEFT       the user did not poll for max_poll_interval_ms, or has closed; the next poll joins anew
"""

import logging
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from fastlog.client.assignors import ASSIGNORS
from fastlog.client.cluster import COORDINATOR_ERRORS, Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClientTimeoutError, UnreachableError
from fastlog.protocol.messages import Message, decode_data, encode_data

log = logging.getLogger("fastlog.client")

ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, MEMBER_ID_REQUIRED, UNSTABLE = 22, 25, 27, 79, 88
SUBSCRIPTION, ASSIGNMENT = "consumer_protocol_subscription", "consumer_protocol_assignment"


class State(Enum):
    LEFT = "left"
    JOINING = "joining"
    ASSIGNED = "assigned"
    STABLE = "stable"
    REVOKING = "revoking"
    LOST = "lost"


def _versioned(name: str, version: int, message: Message) -> bytes:
    return struct.pack(">h", version) + encode_data(name, version, message)


def _unversioned(name: str, data: bytes) -> Message:
    (version,) = struct.unpack_from(">h", data)
    return decode_data(name, max(0, min(version, 3)), data[2:])


class Membership:
    """One member. `settings`: the consumer's; `changed`: called, in the thread, when `state` asks for something to be done."""

    def __init__(self, cluster: Cluster, settings: dict[str, Any], topics: Callable[[], list[str]], changed: Callable[[], None]) -> None:
        self.cluster = cluster
        self.settings = settings
        self.group: str = settings["group_id"]
        self.topics = topics
        self.changed = changed
        self.state = State.LEFT
        self.member_id = ""
        self.generation = -1
        self.assignment: list[tuple[str, int]] = []
        self.failure: ClientError | None = None
        self.counts: dict[str, int] = {}  # of partitions by topic, as the leader shared them out
        self.polled = time.monotonic()
        self._coordinator = -1
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- the consumer's side

    def poll(self) -> None:
        """The user is there: joins where the member is not, or has left."""
        self.polled = time.monotonic()
        with self._condition:
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            if self.state is State.LEFT and not self._stopping:
                self.state = State.JOINING
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="fastlog-group", daemon=True)
                    self._thread.start()
                self._condition.notify_all()

    def let_go(self) -> None:
        with self._condition:
            if self.state in (State.REVOKING, State.LOST):
                self.state = State.JOINING
                self._condition.notify_all()

    def taken_up(self) -> None:
        with self._condition:
            if self.state is State.ASSIGNED:
                self.state = State.STABLE

    def rejoin(self) -> None:
        """The subscription, or what it names, has changed."""
        with self._condition:
            if self.state in (State.STABLE, State.ASSIGNED):
                self.state = State.REVOKING
            self._condition.notify_all()
        self.changed()

    def close(self) -> None:
        """Leaves the group (a static member stays in it until its session ends)."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        joined = self.member_id and self.generation >= 0
        if joined and self.settings["group_instance_id"] is None:
            self._leave()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2)

    # --- commits, in whatever thread

    def call(self, name: str, message: Message, *, channel: str = "commit", timeout_s: float | None = None) -> Message:
        """Asks the coordinator; finds it again where it has moved."""
        deadline = time.monotonic() + (timeout_s or self.settings["request_timeout_ms"] / 1000)
        while True:
            try:
                if self._coordinator < 0:
                    self._coordinator = self.cluster.coordinator(self.group, deadline=deadline, channel=channel)
                said = self.cluster.call(name, message, node=self._coordinator, channel=channel, timeout_s=timeout_s)
            except (UnreachableError, ClientTimeoutError):
                self._coordinator = -1
                if time.monotonic() > deadline or self._stopping:
                    raise
                time.sleep(0.1)
                continue
            code = said.get("error_code", 0) or max((p["error_code"] for t in said.get("topics", ()) for p in t["partitions"]), default=0)
            if code in COORDINATOR_ERRORS or code == UNSTABLE:
                if code == 16:
                    self._coordinator = -1
                if time.monotonic() > deadline:
                    raise ClientTimeoutError(f"{name}: group {self.group!r}: {error_for(code, 'its coordinator')}")
                time.sleep(0.1)
                continue
            return said

    def commit(self, offsets: dict[tuple[str, int], tuple[int, str]], timeout_s: float | None = None) -> None:
        """Commits (offset to read next, metadata) by partition. Raises the first error."""
        topics: dict[str, list[Message]] = {}
        for (topic, number), (offset, note) in offsets.items():
            topics.setdefault(topic, []).append({"partition_index": number, "committed_offset": offset, "committed_metadata": note})
        request = {
            "group_id": self.group,
            "generation_id_or_member_epoch": self.generation,
            "member_id": self.member_id if self.generation >= 0 else "",
            "group_instance_id": self.settings["group_instance_id"] if self.generation >= 0 else None,
            "topics": [{"name": name, "partitions": parts} for name, parts in topics.items()],
        }
        said = self.call("OffsetCommit", request, timeout_s=timeout_s)
        for topic_said in said["topics"]:
            for part in topic_said["partitions"]:
                if code := part["error_code"]:
                    if code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
                        self._thrown_out(code)
                    raise error_for(code, f"commit {topic_said['name']} [{part['partition_index']}] of group {self.group!r}")

    def committed(self, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, str]]:
        """(offset, metadata) of those partitions that have a commit."""
        topics: dict[str, list[int]] = {}
        for topic, number in partitions:
            topics.setdefault(topic, []).append(number)
        request = {
            "group_id": self.group,
            "topics": [{"name": name, "partition_indexes": numbers} for name, numbers in topics.items()],
            "require_stable": self.settings["isolation_level"] == "read_committed",
        }
        said = self.call("OffsetFetch", request)
        if said["error_code"]:
            raise error_for(said["error_code"], f"read the offsets of group {self.group!r}")
        made = {}
        for topic_said in said["topics"]:
            for part in topic_said["partitions"]:
                at = (topic_said["name"], part["partition_index"])
                if part["error_code"]:
                    raise error_for(part["error_code"], f"read the offset of group {self.group!r} in {at[0]} [{at[1]}]")
                if part["committed_offset"] >= 0:
                    made[at] = (part["committed_offset"], part["metadata"] or "")
        return made

    # --- the thread

    def _run(self) -> None:
        heartbeat_s = self.settings["heartbeat_interval_ms"] / 1000
        beat = 0.0
        while not self._stopping:
            try:
                with self._condition:
                    if self.state is State.LEFT or (self.state is not State.JOINING and time.monotonic() < beat):
                        self._condition.wait(1.0 if self.state is State.LEFT else max(0.005, min(1.0, beat - time.monotonic())))
                    state = self.state
                if state is State.LEFT:
                    continue
                if state is State.JOINING:
                    self._join()
                    beat = time.monotonic() + heartbeat_s
                elif time.monotonic() - self.polled > self.settings["max_poll_interval_ms"] / 1000:
                    log.warning("group %s: no poll for max_poll_interval_ms: the member leaves, its partitions go to others", self.group)
                    self._leave()
                    self._say(State.LOST if state in (State.STABLE, State.ASSIGNED, State.REVOKING) else State.LEFT)
                elif state is not State.LOST and time.monotonic() >= beat:
                    beat = time.monotonic() + heartbeat_s
                    self._beat()
                elif state is State.LOST:
                    time.sleep(0.02)
            except ClientError as error:
                if error.retriable or isinstance(error, UnreachableError):
                    log.warning("group %s: %s", self.group, error)
                    time.sleep(self.settings["retry_backoff_ms"] / 1000)
                else:
                    with self._condition:
                        self.failure = error
                        self.generation = -1
                        self.state = State.LEFT
                    self.changed()

    def _say(self, state: State) -> None:
        with self._condition:
            self.state = state
        self.changed()

    def _thrown_out(self, code: int) -> None:
        if code == UNKNOWN_MEMBER_ID:
            self.member_id = ""
        self.generation = -1
        with self._condition:
            if self.state in (State.STABLE, State.ASSIGNED, State.REVOKING):
                self.state = State.LOST
        self.changed()

    def _ask(self, name: str, message: Message, timeout_s: float | None = None) -> Message:
        """Asks the coordinator, in this thread; an error of the coordinator's own is raised."""
        if self._coordinator < 0:
            self._coordinator = self.cluster.coordinator(self.group, channel="group")
        try:
            said = self.cluster.call(name, message, node=self._coordinator, channel="group", timeout_s=timeout_s)
        except (UnreachableError, ClientTimeoutError):
            self._coordinator = -1
            raise
        if said["error_code"] in COORDINATOR_ERRORS:
            self._coordinator = -1
            raise error_for(said["error_code"], f"{name}: group {self.group!r}")
        return said

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
                    self.state = State.REVOKING
            self.changed()
        elif code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
            self._thrown_out(code)
        elif code:
            raise error_for(code, f"heartbeat to group {self.group!r}")

    def _join(self) -> None:
        """JoinGroup and SyncGroup; on success the state is ASSIGNED."""
        topics = self.topics()
        metadata = _versioned(SUBSCRIPTION, 1, {"topics": sorted(topics), "user_data": None, "owned_partitions": []})
        wait_s = self.settings["max_poll_interval_ms"] / 1000
        request = {
            "group_id": self.group,
            "session_timeout_ms": self.settings["session_timeout_ms"],
            "rebalance_timeout_ms": self.settings["max_poll_interval_ms"],
            "member_id": self.member_id,
            "group_instance_id": self.settings["group_instance_id"],
            "protocol_type": "consumer",
            "protocols": [{"name": self.settings["partition_assignment_strategy"], "metadata": metadata}],
        }
        said = self._ask("JoinGroup", request, wait_s + 5)
        code = said["error_code"]
        if code == MEMBER_ID_REQUIRED:
            self.member_id = said["member_id"]
            return
        if code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
            self.member_id = ""
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
        if synced["error_code"] in (REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID):
            if synced["error_code"] == UNKNOWN_MEMBER_ID:
                self.member_id = ""
            return
        if synced["error_code"]:
            raise error_for(synced["error_code"], f"join group {self.group!r}")
        found = _unversioned(ASSIGNMENT, synced["assignment"])["assigned_partitions"] if synced["assignment"] else []
        with self._condition:
            self.generation = said["generation_id"]
            self.assignment = [(t["topic"], n) for t in found for n in t["partitions"]]
            self.state = State.ASSIGNED
        self.changed()

    def _share_out(self, said: Message) -> list[Message]:
        """The leader's task."""
        members = {}
        for member in said["members"]:
            wanted = _unversioned(SUBSCRIPTION, member["metadata"])["topics"]
            members[member["member_id"]] = (wanted, member["group_instance_id"])
        topics = {t for wanted, _ in members.values() for t in wanted}
        known = self.cluster.metadata(sorted(topics)) if topics else {}
        self.counts = {name: len(meta.leaders) for name, meta in known.items() if not meta.error}
        shares = ASSIGNORS[said["protocol_name"]](members, self.counts)
        made = []
        for member, parts in shares.items():
            by_topic: dict[str, list[int]] = {}
            for topic, number in parts:
                by_topic.setdefault(topic, []).append(number)
            message = {"assigned_partitions": [{"topic": t, "partitions": n} for t, n in by_topic.items()], "user_data": None}
            made.append({"member_id": member, "assignment": _versioned(ASSIGNMENT, 1, message)})
        return made

    def _leave(self) -> None:
        members = [{"member_id": self.member_id, "group_instance_id": self.settings["group_instance_id"]}]
        request: Message = {"group_id": self.group, "members": members}
        try:
            found = self.cluster.connection(self._coordinator, "commit")
            if (found.version("LeaveGroup") or 0) < 3:
                request = {"group_id": self.group, "member_id": self.member_id}
            found.call("LeaveGroup", request, 5.0)
        except ClientError as error:
            log.info("group %s: leaving: %s; its partitions go to others when the session ends", self.group, error)
        self.generation = -1
        self.member_id = ""
