"""One group of the consumer protocol (KIP-848): its members, who should own what, who does, and the counts that follow from them.

Nothing here decides anything: the records in the log do, which `Consumers` replays into this. Terms are those of Kafka's ConsumerGroup.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.coordinator.printable import printable
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from fastlog.coordinator.assignors import Assignment
    from fastlog.coordinator.topology import Topology

Message: TypeAlias = dict[str, Any]
Owned: TypeAlias = "Mapping[UUID, Mapping[int, int]]"
"""By topic id and partition: the member epoch since which the member owns it."""

JOIN: Final = 0  # member epochs that say what a member wants
LEAVE: Final = -1
LEAVE_STATIC: Final = -2  # it comes back under the same instance id
NOTHING: Final[Owned] = {}
NO_ASSIGNMENT: Final[Assignment] = {}
_FIRST_EPOCH: Final = 1  # of a group without records


class MemberState(IntEnum):
    """How far a member is with its target assignment. Values are those in the log."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1  # it has to give something up
    UNRELEASED_PARTITIONS = 2  # it waits for what others have to give up
    UNKNOWN = 127

    @classmethod
    def _missing_(cls, value: object) -> MemberState:  # noqa: ARG003 - enum's hook
        return cls.UNKNOWN


class GroupState(Enum):
    """Values are the names that ListGroups and ConsumerGroupDescribe give."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True)
class Classic:
    """What a member that uses the classic protocol has said. `protocols`: (name, metadata) in its order of preference."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member as of now; a change makes another one. Times in milliseconds."""

    member_id: str
    epoch: int = JOIN
    previous_epoch: int = -1
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    regex: str | None = ""
    assignor: str | None = None
    state: MemberState = MemberState.STABLE
    assigned: Owned = field(default_factory=dict)
    revoking: Owned = field(default_factory=dict)  # to be given up, and not yet
    classic: Classic | None = None  # of a member that uses the classic protocol

    def is_reconciled_to(self, epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.epoch == epoch

    def advanced(self, epoch: int, state: MemberState, assigned: Owned, revoking: Owned) -> Member:
        return replace(self, epoch=epoch, previous_epoch=self.epoch, state=state, assigned=assigned, revoking=revoking)

    def epoch_of(self, topic_id: UUID, partition: int) -> int | None:
        """Since which epoch it owns a partition; None when it does not."""
        found = self.assigned.get(topic_id, {}).get(partition)
        return self.revoking.get(topic_id, {}).get(partition) if found is None else found

    @property
    def session_timeout_ms(self) -> int | None:
        """Of a member that uses the classic protocol; that of others the broker sets."""
        return None if self.classic is None else self.classic.session_timeout_ms


@dataclass(frozen=True, slots=True)
class Resolved:
    """The topics that match a regular expression, as of a version of the metadata and a time (wall clock, ms)."""

    topics: frozenset[str] = frozenset()
    version: int = -1
    at_ms: int = -1


class ConsumerGroup:
    """State of one group."""

    __slots__ = (
        "_assignors",
        "_by_name",
        "_by_regex",
        "_partition_epochs",
        "assignment_epoch",
        "assignment_ms",
        "classic_members",
        "classic_protocols",
        "doomed",
        "epoch",
        "group_id",
        "has_partition_record",
        "label",
        "members",
        "metadata_hash",
        "refreshed",
        "regexes",
        "resolved",
        "static_members",
        "targets",
    )

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.label = printable(group_id)  # for the log
        self.epoch = _FIRST_EPOCH
        self.metadata_hash = 0
        self.assignment_epoch = _FIRST_EPOCH
        self.assignment_ms = 0  # when it was computed; 0: not known
        self.members: dict[str, Member] = {}
        self.static_members: dict[str, str] = {}  # group instance id -> member id
        self.targets: dict[str, Assignment] = {}  # by member id
        self.regexes: dict[str, int] = {}  # regular expression -> members that are subscribed by it
        self.resolved: dict[str, Resolved] = {}
        self.classic_members = 0  # that use the classic protocol
        self.classic_protocols: dict[str, int] = {}  # name -> how many of them support it
        self.has_partition_record = False
        self.doomed = False  # it is being deleted
        self.refreshed = False  # the metadata hash has been compared with the topics since those changed
        self._by_name: dict[str, int] = {}  # topic -> members that name it
        self._by_regex: dict[str, int] = {}  # topic -> regular expressions that match it
        self._assignors: dict[str, int] = {}  # server-side assignor -> members that ask for it
        self._partition_epochs: dict[UUID, dict[int, int]] = {}  # epoch of the member that owns a partition

    def __repr__(self) -> str:
        return f"ConsumerGroup({self.group_id!r}, {self.state.value}, epoch {self.epoch}, {len(self.members)} members)"

    # -- reading --------------------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> GroupState:
        """O(members)."""
        if not self.members:
            return GroupState.EMPTY
        if self.epoch > self.assignment_epoch:
            return GroupState.ASSIGNING
        if all(member.is_reconciled_to(self.assignment_epoch) for member in self.members.values()):
            return GroupState.STABLE
        return GroupState.RECONCILING

    def member(self, member_id: str) -> Member:
        """Raises KafkaError UNKNOWN_MEMBER_ID."""
        found = self.members.get(member_id)
        if found is None:
            raise KafkaError(Error.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {self.group_id}.")
        return found

    def static_member(self, instance_id: str | None) -> Member | None:
        member_id = None if instance_id is None else self.static_members.get(instance_id)
        return None if member_id is None else self.members[member_id]

    def target_of(self, member: Member) -> Assignment:
        """A static member's, whichever id it had when that was computed."""
        member_id = member.member_id
        if member.instance_id is not None:
            member_id = self.static_members.get(member.instance_id, "")
        return self.targets.get(member_id, NO_ASSIGNMENT)

    def partition_epoch(self, topic_id: UUID, partition: int) -> int:
        """Of the member that owns it; -1 when nobody does."""
        return self._partition_epochs.get(topic_id, {}).get(partition, -1)

    def is_subscribed_to(self, topic: str) -> bool:
        return topic in self._by_name or topic in self._by_regex

    def named_topics(self) -> set[str]:
        """Those that members name, not those that regular expressions match."""
        return set(self._by_name)

    def subscribed_topics_with(self, old: Member, new: Member) -> set[str]:
        """What the group is subscribed to once `old` has become `new`."""
        names = dict(self._by_name)
        _count(names, old.topics, -1)
        return names.keys() | new.topics | self._regex_topics(old.regex if old.regex != new.regex else None)

    def subscribed_topics_without(self, members: Iterable[Member]) -> set[str]:
        names = dict(self._by_name)
        regexes = dict(self.regexes)
        for member in members:
            _count(names, member.topics, -1)
            if member.regex:
                _count(regexes, (member.regex,), -1)
        matched = [resolved.topics for regex, resolved in self.resolved.items() if regex in regexes]
        return names.keys() | set().union(*matched)

    def _regex_topics(self, left: str | None) -> set[str]:
        """What regular expressions match, when a member has left one of them."""
        if not left or self.regexes.get(left) != 1:
            return set(self._by_regex)
        return set().union(*(resolved.topics for regex, resolved in self.resolved.items() if regex != left))

    def topics_of(self, member: Member) -> frozenset[str]:
        """What it is subscribed to, by name or by regular expression."""
        resolved = self.resolved.get(member.regex) if member.regex else None
        return member.topics if resolved is None else member.topics | resolved.topics

    def preferred_assignor(self, old: Member | None, new: Member | None) -> str | None:
        """The one that most members ask for once `old` has become `new`."""
        counts = dict(self._assignors)
        if old is not None and old.assignor is not None:
            _count(counts, (old.assignor,), -1)
        if new is not None and new.assignor is not None:
            _count(counts, (new.assignor,), 1)
        return max(counts, key=counts.__getitem__, default=None)

    def supports_classic(self, protocol_type: str, names: Iterable[str]) -> bool:
        """Whether a member with these classic protocols can be in the group."""
        if protocol_type != "consumer":
            return False
        if not self.members:
            return any(True for _ in names)
        return any(self.classic_protocols.get(name, 0) == self.classic_members for name in names)

    def only_classic_without(self, members: Iterable[Member]) -> bool:
        """Whether all others use the classic protocol."""
        gone = list(members)
        return self.classic_members - sum(member.classic is not None for member in gone) == len(self.members) - len(gone)

    def waits_for_others(self, member: Member) -> bool:
        """Whether something that it should own is still another's."""
        return any(
            index not in member.assigned.get(topic_id, {}) and self.partition_epoch(topic_id, index) != -1
            for topic_id, indexes in self.targets.get(member.member_id, NO_ASSIGNMENT).items()
            for index in indexes
        )

    # -- changing: records only -----------------------------------------------------------------------------------------------------

    def put(self, member: Member) -> None:
        """A member is new, or changed."""
        self._discount(self.members.get(member.member_id))
        self.members[member.member_id] = member
        _count(self._by_name, member.topics, 1)
        if member.regex:
            _count(self.regexes, (member.regex,), 1)
        if member.assignor is not None:
            _count(self._assignors, (member.assignor,), 1)
        if member.classic is not None:
            self.classic_members += 1
            _count(self.classic_protocols, (name for name, _ in member.classic.protocols), 1)
        if member.instance_id is not None:
            self.static_members[member.instance_id] = member.member_id
        for owned in (member.assigned, member.revoking):
            for topic_id, indexes in owned.items():
                self._partition_epochs.setdefault(topic_id, {}).update(dict.fromkeys(indexes, member.epoch))

    def remove(self, member_id: str) -> None:
        member = self.members.pop(member_id, None)
        self._discount(member)
        if member is not None and member.instance_id is not None and self.static_members.get(member.instance_id) == member_id:
            del self.static_members[member.instance_id]

    def resolve(self, regex: str, resolved: Resolved | None) -> None:
        before = self.resolved.pop(regex, None)
        if before is not None:
            _count(self._by_regex, before.topics, -1)
        if resolved is not None:
            self.resolved[regex] = resolved
            _count(self._by_regex, resolved.topics, 1)

    def _discount(self, member: Member | None) -> None:
        """Takes a member out of the counts."""
        if member is None:
            return
        _count(self._by_name, member.topics, -1)
        if member.regex:
            _count(self.regexes, (member.regex,), -1)
        if member.assignor is not None:
            _count(self._assignors, (member.assignor,), -1)
        if member.classic is not None:
            self.classic_members -= 1
            _count(self.classic_protocols, (name for name, _ in member.classic.protocols), -1)
        for owned in (member.assigned, member.revoking):
            for topic_id, indexes in owned.items():
                epochs = self._partition_epochs.get(topic_id, {})
                for index in indexes:
                    # Between the records of a move it may be another's already, at a later epoch.
                    if epochs.get(index) == member.epoch:
                        del epochs[index]
                if not epochs:
                    self._partition_epochs.pop(topic_id, None)

    # -- describing -----------------------------------------------------------------------------------------------------------------

    def describe(self, topology: Topology, default_assignor: str) -> Message:
        """A ConsumerGroupDescribe group."""
        return {
            "error_code": Error.NONE,
            "group_id": self.group_id,
            "group_state": self.state.value,
            "group_epoch": self.epoch,
            "assignment_epoch": self.assignment_epoch,
            "assignor_name": self.preferred_assignor(None, None) or default_assignor,
            "members": [self._describe(member, topology) for member in self.members.values()],
        }

    def _describe(self, member: Member, topology: Topology) -> Message:
        owned: dict[UUID, list[int]] = {}
        for part in (member.assigned, member.revoking):
            for topic_id, indexes in part.items():
                owned.setdefault(topic_id, []).extend(indexes)
        return {
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "rack_id": member.rack_id,
            "member_epoch": member.epoch,
            "client_id": member.client_id,
            "client_host": member.client_host,
            "subscribed_topic_names": sorted(member.topics),
            "subscribed_topic_regex": member.regex,
            "assignment": {"topic_partitions": _named(owned, topology)},
            "target_assignment": {"topic_partitions": _named(self.targets.get(member.member_id, NO_ASSIGNMENT), topology)},
            "member_type": 1 if member.classic is None else 0,
        }


def _named(partitions: Mapping[UUID, Iterable[int]], topology: Topology) -> list[Message]:
    """Those of topics that exist."""
    return [
        {"topic_id": topic_id, "topic_name": topic.name, "partitions": sorted(indexes)}
        for topic_id, indexes in partitions.items()
        if (topic := topology.by_id(topic_id)) is not None
    ]


def _count(counts: dict[str, int], names: Iterable[str], by: int) -> None:
    for name in names:
        count = counts.get(name, 0) + by
        if count > 0:
            counts[name] = count
        else:
            counts.pop(name, None)
