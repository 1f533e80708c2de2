"""The consumer group protocol (KIP-848): the coordinator shares partitions out, and tells each member by the answers to its heartbeats.

The member chooses its id, joins with epoch 0, and confirms what it has. It gives up first what the coordinator takes from it; what it is
given nobody else has any more. A member that was fenced has lost all, and joins again.
"""

import base64
import time
import uuid

from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError
from fastlog.client.group import FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID, Membership, State
from fastlog.client.logs import INFO, WARNING, say
from fastlog.client.records import Partition, by_topic
from fastlog.protocol.messages import Message

LEAVES, LEAVES_FOR_A_WHILE = -1, -2  # epochs that end a membership; the latter a static member's, whose partitions wait for it
SETTLE_S = 0.2  # between a target that can't be named yet and the next look at the topics' names


class BrokerAssignedMembership(Membership):
    """See the module. `generation` is the member's epoch."""

    _interval_s = 3.0  # as the coordinator says
    _said: Message | None = None  # what the coordinator has been told since the member joined
    _ids: dict[str, uuid.UUID]  # topic -> id
    _target: list[Message] | None = None  # by id; None: there is no other than `assignment`

    def _heartbeat_s(self) -> float:
        return self._interval_s

    def _resubscribe(self) -> None:
        self._due = 0.0

    def _join(self) -> None:
        self._again = False
        self._said = self._target = None
        self._ids = {}
        self.member_id = self.member_id or base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._send(0)

    def _beat(self) -> None:
        if self._target is not None and self.state in (State.STABLE, State.JOINING):
            self._reconcile()
        self._send(self.generation)

    def take_up(self) -> list[Partition] | None:
        """As before; what the member has is confirmed at once: others may wait for what it gave up."""
        taken = super().take_up()
        with self._condition:
            self._due = 0.0
            self._condition.notify_all()
        return taken

    def _told(self) -> Message:
        """What the coordinator is to know. While partitions come and go nothing is said of them."""
        said: Message = {
            "rebalance_timeout_ms": self.settings["max_poll_interval_ms"],
            "server_assignor": self.settings["group_remote_assignor"],
            "subscribed_topic_names": [] if self.pattern else sorted(self.topics()),
            "subscribed_topic_regex": self.pattern or "",
        }
        with self._condition:
            if self.state in (State.STABLE, State.JOINING):
                owned = sorted(by_topic(self.owned).items())
                said["topic_partitions"] = [{"topic_id": self._ids[topic], "partitions": sorted(numbers)} for topic, numbers in owned]
        return said

    def _send(self, epoch: int) -> None:
        """One heartbeat: with everything when the member joins, else with what is new."""
        now = self._told()
        known: Message = {"subscribed_topic_regex": ""} if self._said is None else self._said
        request = {
            "group_id": self.group,
            "member_id": self.member_id,
            "member_epoch": epoch,
            "instance_id": self.settings["group_instance_id"],
            **{name: value for name, value in now.items() if name not in known or known[name] != value},
        }
        due = self._due
        said = self._ask("ConsumerGroupHeartbeat", request)
        code = said["error_code"]
        if code in (FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID):
            say(WARNING, "group %s: the member was fenced, its partitions are others'", self.group, group=self.group)
            self._thrown_out(code)
            return
        if code:
            error = error_for(code, f"join group {self.group!r} by the consumer protocol", said["error_message"])
            if not error.retriable:
                raise error
            say(INFO, "group %s: %s", self.group, error, group=self.group)
            return
        self._said = {**(self._said or {}), **now}
        self._interval_s = max(0.01, said["heartbeat_interval_ms"] / 1000)
        with self._condition:
            if self._due == due:  # nobody asked for one at once meanwhile
                self._due = time.monotonic() + self._interval_s
            self.generation = said["member_epoch"]
            if said["assignment"] is not None:
                self._target = said["assignment"]["topic_partitions"]
            elif self.state is State.JOINING:
                self._target = []
            self._condition.notify_all()
        if self._target is not None and self.state in (State.STABLE, State.JOINING):
            self._reconcile()

    def _reconcile(self) -> None:
        """Tells the consumer of the newest target. Topics' names are looked up; one that has none yet comes later."""
        target = self._target or []
        missing = {t["topic_id"] for t in target} - set(self._ids.values())
        if missing:
            known = self.cluster.metadata(None if self.pattern else sorted(self.topics()))
            self._ids = {**self._ids, **{name: meta.raw["topic_id"] for name, meta in known.items() if not meta.error}}
        names = {topic_id: name for name, topic_id in self._ids.items()}
        made: list[Partition] = [(names[t["topic_id"]], n) for t in target for n in t["partitions"] if t["topic_id"] in names]
        with self._condition:
            if self.state not in (State.STABLE, State.JOINING):
                return
            if any(t["topic_id"] not in names for t in target):
                self._due = time.monotonic() + SETTLE_S
            else:
                self._target = None
            if self.state is State.STABLE and set(made) == set(self.owned):
                return
        self._share(made, self.generation)

    def _leave(self) -> None:
        request = {
            "group_id": self.group,
            "member_id": self.member_id,
            "member_epoch": LEAVES if self.settings["group_instance_id"] is None else LEAVES_FOR_A_WHILE,
            "instance_id": self.settings["group_instance_id"],
        }
        try:
            self.cluster.connection(self._coordinator, "commit").call("ConsumerGroupHeartbeat", request, 5.0)
        except ClientError as error:
            say(INFO, "group %s: leaving: %s; its partitions go to others when the session ends", self.group, error, group=self.group)
        self.generation = -1
        self._said = None
