"""One group of the classic rebalance protocol: its members, its state and the bookkeeping between them, without any decision.

The rules that move a group from state to state are in `membership`. Terms are those of Kafka's ClassicGroup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.coordinator.printable import printable
from fastlog.coordinator.subscription import subscribed_topics
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.coordinator.ports import StandingAnswer
    from fastlog.coordinator.standing import Standings
    from fastlog.coordinator.timers import Timer

Message: TypeAlias = dict[str, Any]
Reply: TypeAlias = Callable[[Message], None]
"""Answers a request that waits; called at most once."""

NO_MEMBER: Final = ""
CONSUMER: Final = "consumer"  # the protocol type whose metadata a coordinator understands


class State(Enum):
    """Values are the names that DescribeGroups and ListGroups give."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


_FROM: Final[dict[State, frozenset[State]]] = {
    State.EMPTY: frozenset({State.PREPARING_REBALANCE}),
    State.PREPARING_REBALANCE: frozenset({State.STABLE, State.COMPLETING_REBALANCE, State.EMPTY}),
    State.COMPLETING_REBALANCE: frozenset({State.PREPARING_REBALANCE}),
    State.STABLE: frozenset({State.COMPLETING_REBALANCE}),
    State.DEAD: frozenset(State),
}


@dataclass(slots=True, eq=False)
class Member:
    """A member that has joined. `protocols`: (name, metadata) in the member's order of preference."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocol_type: str
    protocols: list[tuple[str, bytes]]
    session: Timer
    assignment: bytes = b""
    awaiting_join: Reply | None = None  # the JoinGroup that waits for the end of the join phase
    awaiting_sync: Reply | None = None  # the SyncGroup that waits for the leader's assignment
    is_new: bool = False  # joined for the first time and not yet answered, so it can't heartbeat

    @property
    def is_static(self) -> bool:
        return self.instance_id is not None

    def metadata(self, protocol: str | None) -> bytes:
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        raise LookupError(f"member {self.member_id} does not support protocol {protocol}")

    def vote(self, candidates: set[str]) -> str:
        """The candidate it prefers. There is one: candidates are supported by all members."""
        return next(name for name, _ in self.protocols if name in candidates)

    def satisfied_heartbeat(self) -> bool:
        """Waiting for a rebalance counts as a heartbeat, except for a new member's first join (nobody may be there any more)."""
        return not self.is_new and (self.awaiting_join is not None or self.awaiting_sync is not None)


class ClassicGroup:
    """State of one group. Timers: one per member's session, one for the join phase, one for the sync phase, one per pending member."""

    __slots__ = (
        "awaiting_joins",
        "generation",
        "group_id",
        "initial_delay",
        "join_timer",
        "label",
        "leader_id",
        "members",
        "new_member_added",
        "pending_joins",
        "pending_syncs",
        "previous_state",
        "protocol",
        "protocol_type",
        "standings",
        "state",
        "state_ms",
        "static_members",
        "stored",
        "subscribed_topics",
        "supported_protocols",
        "sync_timer",
    )

    def __init__(self, group_id: str, join_timer: Timer, sync_timer: Timer, now_ms: int | None, standings: Standings) -> None:
        """`now_ms`: wall clock, when the group became empty (None: not known). `standings`: its own, of heartbeats' answers."""
        self.group_id = group_id
        self.label = printable(group_id)  # for the log
        self.state = State.EMPTY
        self.previous_state = State.DEAD
        self.state_ms = now_ms
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.leader_id: str | None = None
        self.members: dict[str, Member] = {}
        self.static_members: dict[str, str] = {}  # group instance id -> member id
        self.pending_joins: dict[str, Timer] = {}  # member ids given out (MEMBER_ID_REQUIRED) and not yet back
        self.pending_syncs: set[str] = set()  # members that got this generation's JoinGroup response and have not synced yet
        self.awaiting_joins = 0  # members with awaiting_join
        self.supported_protocols: dict[str, int] = {}  # name -> members that support it
        self.subscribed_topics: set[str] | None = None  # None: not known
        self.initial_delay: tuple[int, int] | None = None  # of the initial rebalance, ms: the delay under way and what may be added
        self.new_member_added = False  # since that delay began
        self.stored = False  # has a record in the log
        self.join_timer = join_timer
        self.sync_timer = sync_timer
        self.standings = standings

    def __repr__(self) -> str:
        return f"ClassicGroup({self.group_id!r}, {self.state.value}, generation {self.generation}, {len(self.members)} members)"

    # -- reading --------------------------------------------------------------------------------------------------------------------

    @property
    def uses_consumer_protocol(self) -> bool:
        return self.protocol_type == CONSUMER

    @property
    def can_rebalance(self) -> bool:
        return self.state in _FROM[State.PREPARING_REBALANCE]

    @property
    def all_joined(self) -> bool:
        return len(self.members) == self.awaiting_joins and not self.pending_joins

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest of its members'."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def is_leader(self, member_id: str) -> bool:
        return self.leader_id == member_id

    def is_subscribed_to(self, topic: str) -> bool:
        """A consumer group whose subscriptions can't be read counts as subscribed to everything."""
        if self.subscribed_topics is None:
            return self.uses_consumer_protocol
        return topic in self.subscribed_topics

    def supports(self, protocol_type: str, names: Iterable[str]) -> bool:
        """Whether a member with these protocols can be in the group: at least one that all members support."""
        if self.state is State.EMPTY:
            return bool(protocol_type) and any(True for _ in names)
        size = len(self.members)
        return self.protocol_type == protocol_type and any(self.supported_protocols.get(name, 0) == size for name in names)

    def check_member(self, member_id: str, instance_id: str | None) -> Member:
        """The member, or KafkaError UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID."""
        if instance_id is not None:
            current = self.static_members.get(instance_id)
            if current is None:
                raise KafkaError(Error.UNKNOWN_MEMBER_ID)
            if current != member_id:
                raise KafkaError(Error.FENCED_INSTANCE_ID)
        member = self.members.get(member_id)
        if member is None:
            raise KafkaError(Error.UNKNOWN_MEMBER_ID)
        return member

    # -- changing -------------------------------------------------------------------------------------------------------------------

    def stand(self, member_id: str) -> StandingAnswer | None:
        """The answer to a heartbeat that was just found good stands until the group changes; None when it is changing already."""
        if self.state is not State.STABLE:
            return None
        member = self.members[member_id]
        return self.standings.grant(member_id, member.session, member.session_timeout_ms)

    def die(self) -> None:
        """It is being deleted; `previous_state` is what it comes back to when that fails."""
        self.standings.revoke_all()
        self.previous_state = self.state
        self.state = State.DEAD

    def move_to(self, state: State, now_ms: int) -> None:
        if self.state not in _FROM[state]:
            raise AssertionError(f"group {self.group_id}: {self.state.value} -> {state.value}")
        self.standings.revoke_all()
        self.previous_state = self.state
        self.state = state
        self.state_ms = now_ms

    def add(self, member: Member, reply: Reply | None = None) -> None:
        if member.instance_id is not None:
            assert member.instance_id not in self.static_members
            self.static_members[member.instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self._count_protocols(member, 1)
        self.set_awaiting_join(member, reply)
        self.drop_pending_join(member.member_id)

    def remove(self, member_id: str) -> None:
        """Forgets a member or pending member, its timer included; whoever waits for an answer must have had it."""
        self.standings.revoke(member_id)
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_protocols(member, -1)
            self.set_awaiting_join(member, None)
            member.session.disarm()
            if member.instance_id is not None:
                self.static_members.pop(member.instance_id, None)
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        self.drop_pending_join(member_id)
        self.pending_syncs.discard(member_id)

    def drop_pending_join(self, member_id: str) -> None:
        timer = self.pending_joins.pop(member_id, None)
        if timer is not None:
            timer.disarm()

    def update(
        self, member: Member, protocols: list[tuple[str, bytes]], rebalance_timeout_ms: int, session_timeout_ms: int, reply: Reply | None
    ) -> None:
        """A member joins again. A JoinGroup of its that still waits is answered: its sender has given up on it, or is a stranger."""
        self.standings.revoke(member.member_id)
        self._count_protocols(member, -1)
        member.protocols = protocols
        self._count_protocols(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms
        self.answer_join(member, {"error_code": Error.REBALANCE_IN_PROGRESS, "member_id": member.member_id})
        self.set_awaiting_join(member, reply)

    def replace_static(self, instance_id: str, old_id: str, new_id: str, session: Timer) -> Member:
        """A static member under a new member id, all else unchanged; whoever still waits under the old id is fenced."""
        self.standings.revoke(old_id)
        old = self.members.pop(old_id)
        self.answer_join(old, {"error_code": Error.FENCED_INSTANCE_ID, "member_id": old_id})
        self.answer_sync(old, {"error_code": Error.FENCED_INSTANCE_ID})
        old.session.disarm()
        new = Member(
            new_id,
            old.instance_id,
            old.client_id,
            old.client_host,
            old.rebalance_timeout_ms,
            old.session_timeout_ms,
            old.protocol_type,
            old.protocols,
            session,
            old.assignment,
        )
        self.members[new_id] = new
        if self.leader_id == old_id:
            self.leader_id = new_id
        self.static_members[instance_id] = new_id
        if old_id in self.pending_syncs:
            self.pending_syncs.discard(old_id)
            self.pending_syncs.add(new_id)
        return new

    def elect_joined_leader(self) -> bool:
        """Keeps a leader that has joined, else elects one that has; False when there is none."""
        if self.leader_id is None:
            return False
        if self.members[self.leader_id].awaiting_join is not None:
            return True
        joined = next((member for member in self.members.values() if member.awaiting_join is not None), None)
        if joined is None:
            return False
        self.leader_id = joined.member_id
        return True

    def select_protocol(self) -> str:
        """Each member votes for the protocol it prefers among those that all support; the one with the most votes (the first of equals)."""
        size = len(self.members)
        candidates = {name for name, count in self.supported_protocols.items() if count == size}
        votes: dict[str, int] = {}
        for member in self.members.values():
            choice = member.vote(candidates)
            votes[choice] = votes.get(choice, 0) + 1
        return max(votes, key=votes.__getitem__)

    def start_generation(self, now_ms: int) -> None:
        """The join phase is over: the next generation, waiting for its assignment (or empty)."""
        self.generation += 1
        self.protocol = self.select_protocol() if self.members else None
        self.find_subscribed_topics()
        self.move_to(State.COMPLETING_REBALANCE if self.members else State.EMPTY, now_ms)
        self.pending_syncs.clear()

    def find_subscribed_topics(self) -> None:
        """Of a consumer group, from its members' metadata; None when it can't be told."""
        self.subscribed_topics = None
        if not self.uses_consumer_protocol:
            return
        if not self.members:
            self.subscribed_topics = set()
        elif self.protocol is not None:
            self.subscribed_topics = subscribed_topics(member.metadata(self.protocol) for member in self.members.values())

    def set_awaiting_join(self, member: Member, reply: Reply | None) -> None:
        self.awaiting_joins += (reply is not None) - (member.awaiting_join is not None)
        member.awaiting_join = reply

    def answer_join(self, member: Member, response: Message) -> None:
        """Answers the member's waiting JoinGroup, if there is one."""
        reply = member.awaiting_join
        if reply is not None:
            self.set_awaiting_join(member, None)
            reply(response)

    def answer_sync(self, member: Member, response: Message) -> bool:
        """Answers the member's waiting SyncGroup; whether there was one."""
        reply = member.awaiting_sync
        if reply is None:
            return False
        member.awaiting_sync = None
        reply(response)
        return True

    def dismiss(self, member: Member, error: Error, member_id: str = NO_MEMBER) -> None:
        """Answers whatever the member waits for with an error."""
        self.answer_join(member, {"error_code": error, "member_id": member_id})
        self.answer_sync(member, {"error_code": error})

    def disarm(self) -> None:
        """No timer of this group fires any more."""
        self.join_timer.disarm()
        self.sync_timer.disarm()
        for member in self.members.values():
            member.session.disarm()
        for timer in self.pending_joins.values():
            timer.disarm()

    def _count_protocols(self, member: Member, by: int) -> None:
        for name in {name for name, _ in member.protocols}:
            count = self.supported_protocols.get(name, 0) + by
            if count:
                self.supported_protocols[name] = count
            else:
                del self.supported_protocols[name]

    # -- describing -----------------------------------------------------------------------------------------------------------------

    def join_members(self) -> list[Message]:
        """What the leader gets to see: every member with its metadata for the chosen protocol."""
        return [
            {"member_id": member.member_id, "group_instance_id": member.instance_id, "metadata": member.metadata(self.protocol)}
            for member in self.members.values()
        ]

    def join_response(self, member_id: str, *, skip_assignment: bool = False, with_members: bool | None = None) -> Message:
        """A JoinGroup response of the current generation; `with_members` defaults to whether the member leads."""
        if with_members is None:
            with_members = self.is_leader(member_id)
        return {
            "error_code": Error.NONE,
            "generation_id": self.generation,
            "protocol_type": self.protocol_type,
            "protocol_name": self.protocol,
            "leader": self.leader_id or NO_MEMBER,
            "skip_assignment": skip_assignment,
            "member_id": member_id,
            "members": self.join_members() if with_members else [],
        }

    def metadata_value(self, assignment: dict[str, bytes]) -> Message:
        """The group's record (GroupMetadataValue) with these assignments by member id; a member without one gets an empty one."""
        return {
            "protocol_type": self.protocol_type or "",
            "generation": self.generation,
            "protocol": self.protocol,
            "leader": self.leader_id,
            "current_state_timestamp": -1 if self.state_ms is None else self.state_ms,
            "members": [
                {
                    "member_id": member.member_id,
                    "group_instance_id": member.instance_id,
                    "client_id": member.client_id,
                    "client_host": member.client_host,
                    "rebalance_timeout": member.rebalance_timeout_ms,
                    "session_timeout": member.session_timeout_ms,
                    "subscription": member.metadata(self.protocol),
                    "assignment": assignment.get(member.member_id, b""),
                }
                for member in self.members.values()
            ],
        }

    def describe(self) -> Message:
        """A DescribeGroups group; metadata only when it is stable, as then only it is settled which protocol's."""
        stable = self.state is State.STABLE
        return {
            "error_code": Error.NONE,
            "group_id": self.group_id,
            "group_state": self.state.value,
            "protocol_type": self.protocol_type or "",
            "protocol_data": (self.protocol or "") if stable else "",
            "members": [
                {
                    "member_id": member.member_id,
                    "group_instance_id": member.instance_id,
                    "client_id": member.client_id,
                    "client_host": member.client_host,
                    "member_metadata": member.metadata(self.protocol) if stable else b"",
                    "member_assignment": member.assignment,
                }
                for member in self.members.values()
            ],
        }
