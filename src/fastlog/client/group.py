"""Membership in a consumer group: what its two protocols have in common. The classic one is in `classic`, KIP-848's in `broker_assigned`.

A thread joins, keeps alive and leaves. It never touches the consumer's partitions: it says what is to be done by `state`, and the consumer
does it when its user polls.

    JOINING    partitions are asked for; what the member has (`owned`) is read on
    ASSIGNED   `assignment` is there: `take_up` gives it to the consumer
    STABLE     heartbeats go on
    REVOKING   the consumer lets go of `leaving`, then `let_go`
    LOST       the member was thrown out: its partitions are others' already; the consumer lets go of all, then `let_go`

The state may change at any time until the consumer answers, which counts only for the state that it answers.
    LEFT       the user did not poll for max_poll_interval_ms, or has closed; the next poll joins anew
"""

import threading
import time
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from fastlog.client.cluster import COORDINATOR_ERRORS, Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClientTimeoutError, UnreachableError
from fastlog.client.logs import WARNING, say, say_seldom
from fastlog.client.records import Mark, Partition, by_topic
from fastlog.protocol.messages import Message

ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, UNSTABLE, FENCED_MEMBER_EPOCH, STALE_MEMBER_EPOCH = 22, 25, 88, 110, 113


class State(Enum):
    LEFT = "left"
    JOINING = "joining"
    ASSIGNED = "assigned"
    STABLE = "stable"
    REVOKING = "revoking"
    LOST = "lost"


class Membership:
    """One member. `settings`: the consumer's; `changed`: called, in the thread, when `state` asks for something to be done."""

    states = State

    def __init__(self, cluster: Cluster, settings: dict[str, Any], topics: Callable[[], list[str]], changed: Callable[[], None]) -> None:
        self.cluster = cluster
        self.settings = settings
        self.group: str = settings["group_id"]
        self.topics = topics
        self.changed = changed
        self.state = State.LEFT
        self.member_id = ""
        self.generation = -1  # or the member's epoch
        self.owned: list[Partition] = []  # what the consumer has
        self.assignment: list[Partition] = []  # what it is to have
        self.leaving: list[Partition] = []  # what it is to let go of
        self.failure: ClientError | None = None
        self.counts: dict[str, int] = {}  # of partitions by topic, as the leader shared them out; 0: there is no such topic
        self.subscribed: list[str] = []  # topics, as the member said when it joined
        self.polled = time.monotonic()
        self.pattern: str | None = None  # of topics, for the broker to match (KIP-848)
        self._after_leaving = State.JOINING
        self._again = False  # the subscription has changed while the member was joining
        self._due = 0.0  # the next heartbeat
        self._coordinator = -1
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- what the protocols do

    def _join(self) -> None:
        raise NotImplementedError

    def _beat(self) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        """Says goodbye, if the coordinator can be reached."""
        raise NotImplementedError

    def _resubscribe(self) -> None:
        """What `rejoin` does to a member that has partitions; with the condition held."""
        raise NotImplementedError

    def _heartbeat_s(self) -> float:
        raise NotImplementedError

    # --- the consumer's side

    @property
    def moves(self) -> bool:
        """Whether `state` asks the consumer for something."""
        return self.state not in (State.LEFT, State.JOINING, State.STABLE)

    def poll(self) -> None:
        """The user is there: joins where the member is not, or has left."""
        self.polled = time.monotonic()
        with self._condition:
            if self.failure is not None and self.state is not State.LOST:  # the consumer lets go of what was lost first
                failure, self.failure = self.failure, None
                raise failure
            if self.state is State.LEFT and not self._stopping:
                self.state = State.JOINING
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="fastlog-group", daemon=True)
                    self._thread.start()
                self._condition.notify_all()

    def let_go(self, gone: Collection[Partition], *, lost: bool) -> None:
        """The consumer does not read these any more. `lost`: it had them no longer anyway, and has nothing now."""
        with self._condition:
            self.owned = [] if lost else [p for p in self.owned if p not in gone]
            if self.state is State.LOST and lost:
                self.state = State.LEFT if self.failure is not None else State.JOINING
            elif self.state is State.REVOKING and not set(self.leaving) & set(self.owned):
                self.state, self.leaving = self._after_leaving, []
            self._condition.notify_all()

    def take_up(self) -> list[Partition] | None:
        """What the consumer is to read from now on; None where that has changed already."""
        with self._condition:
            if self.state is not State.ASSIGNED:
                return None
            self.owned = list(self.assignment)
            self.state = State.STABLE
            if self._again:
                self._again = False
                self._resubscribe()
            self._condition.notify_all()
            return list(self.assignment)

    def rejoin(self) -> None:
        """The subscription, or what it names, has changed."""
        with self._condition:
            if self.state is State.STABLE:
                self._resubscribe()
            else:
                self._again = True
            self._condition.notify_all()
        self.changed()

    def close(self) -> None:
        """Leaves the group (a static member of the classic protocol stays in it until its session ends)."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self.member_id and self.generation >= 0:
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

    def commit(self, offsets: dict[Partition, Mark], timeout_s: float | None = None) -> None:
        """Commits by partition. Raises the first error."""
        topics: dict[str, list[Message]] = {}
        for (topic, number), (offset, note, epoch) in offsets.items():
            entry = {"partition_index": number, "committed_offset": offset, "committed_leader_epoch": epoch, "committed_metadata": note}
            topics.setdefault(topic, []).append(entry)
        deadline = time.monotonic() + (timeout_s or self.settings["request_timeout_ms"] / 1000)
        while True:
            generation = self.generation
            if generation < 0 and self._thread is not None:
                # as nobody's member it could go through, over the commits of those that read the partitions now
                raise error_for(UNKNOWN_MEMBER_ID, f"commit to group {self.group!r}", "the member is not in the group now; it joins again")
            request = {
                "group_id": self.group,
                "generation_id_or_member_epoch": generation,
                "member_id": self.member_id if generation >= 0 else "",
                "group_instance_id": self.settings["group_instance_id"] if generation >= 0 else None,
                "topics": [{"name": name, "partitions": parts} for name, parts in topics.items()],
            }
            said = self.call("OffsetCommit", request, timeout_s=timeout_s)
            failed = next(((t["name"], p) for t in said["topics"] for p in t["partitions"] if p["error_code"]), None)
            if failed is None:
                return
            topic, part = failed
            code = part["error_code"]
            if code == STALE_MEMBER_EPOCH and time.monotonic() < deadline:
                self._renew(generation)
                continue
            if code in (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID) and self.generation == generation:  # not since joined anew
                self._thrown_out(code)
            raise error_for(code, f"commit {topic} [{part['partition_index']}] of group {self.group!r}")

    def _renew(self, generation: int) -> None:
        """The coordinator has raised the member's epoch since `generation`: waits a moment for the heartbeat that says so."""
        with self._condition:
            self._due = 0.0
            self._condition.notify_all()
            self._condition.wait_for(lambda: self.generation != generation or self._stopping, 0.2)

    def committed(self, partitions: list[Partition]) -> dict[Partition, Mark]:
        """Of those partitions that have a commit."""
        request = {
            "group_id": self.group,
            "topics": [{"name": name, "partition_indexes": numbers} for name, numbers in by_topic(partitions).items()],
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
                    made[at] = Mark(part["committed_offset"], part["metadata"] or "", part["committed_leader_epoch"])
        return made

    # --- the thread

    def _run(self) -> None:
        while True:
            try:
                with self._condition:
                    idle = self.state in (State.LEFT, State.LOST)
                    wait = 1.0 if idle else 0.0 if self.state is State.JOINING else min(1.0, self._due - time.monotonic())
                    if wait > 0 and not self._stopping:
                        self._condition.wait(wait)
                    state = self.state
                    if self._stopping:
                        return
                if state in (State.LEFT, State.LOST):
                    continue
                if state is State.JOINING:
                    self._due = time.monotonic() + self._heartbeat_s()
                    self._join()
                elif time.monotonic() - self.polled > self.settings["max_poll_interval_ms"] / 1000:
                    say(WARNING, "group %s: no poll for max_poll_interval_ms: the member leaves", self.group, group=self.group)
                    self._leave()
                    self._say(State.LOST if self.owned else State.LEFT)
                elif time.monotonic() >= self._due:
                    self._due = time.monotonic() + self._heartbeat_s()
                    self._beat()
            except ClientError as error:
                if self._stopping:
                    return
                if error.retriable or isinstance(error, UnreachableError):
                    say_seldom(WARNING, "group %s: %s", self.group, error, group=self.group)
                    time.sleep(self.settings["retry_backoff_ms"] / 1000)
                else:
                    with self._condition:
                        self.failure = error
                        self.generation = -1
                        self.state = State.LOST if self.owned else State.LEFT
                    self.changed()

    def _say(self, state: State) -> None:
        with self._condition:
            self.state = state
        self.changed()

    def _share(self, assignment: list[Partition], generation: int) -> None:
        """What the member is to have from now on: first it lets go of what it is not to keep."""
        with self._condition:
            keep = set(assignment)
            self.generation = generation
            self.assignment = assignment
            self.leaving = [p for p in self.owned if p not in keep]
            self._after_leaving = State.ASSIGNED
            self.state = State.REVOKING if self.leaving else State.ASSIGNED
        self.changed()

    def _thrown_out(self, code: int) -> None:
        if code == UNKNOWN_MEMBER_ID:
            self.member_id = ""
        with self._condition:
            self.generation = -1
            if self.state is not State.LEFT:
                self.state = State.LOST if self.owned else State.JOINING
            self._condition.notify_all()
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
