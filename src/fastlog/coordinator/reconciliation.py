"""The next step of a member of a consumer group towards its target assignment (KIP-848): first it gives up, then it is given.

The steps are those of Kafka 4.3's CurrentAssignmentBuilder. A partition that is still another's is not given before that one has said, or
is taken to have said by being fenced, that it has let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastlog.coordinator.consumer_group import NOTHING, Member, MemberState, Owned
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from fastlog.coordinator.assignors import Assignment

Reported: TypeAlias = "Iterable[Mapping[str, Any]] | None"
"""What a member says that it owns: TopicPartitions of its heartbeat, None when it does not say."""


class Target(NamedTuple):
    """What a member should own, by the group's target assignment of this epoch."""

    epoch: int
    partitions: Assignment


def reconcile(
    member: Member,
    target: Target,
    subscribed: set[UUID],
    partition_epoch: Callable[[UUID, int], int],
    owned: Reported,
    *,
    subscription_changed: bool,
) -> Member:
    """The member after the step; the same one when there is none to take. Raises KafkaError FENCED_MEMBER_EPOCH.

    `subscribed`: ids of the topics that it is subscribed to. `partition_epoch`: as that of ConsumerGroup.
    """
    if not subscription_changed and member.is_reconciled_to(target.epoch):
        return member
    step = _Step(member, target, subscribed, partition_epoch, owned)
    match member.state:
        case MemberState.STABLE:
            if member.epoch != target.epoch:
                return step.next(member.epoch)
            return step.unsubscribe()
        case MemberState.UNREVOKED_PARTITIONS:
            if step.still_owns(member.revoking):
                return step.unsubscribe() if subscription_changed else member
            return step.next(member.epoch)
        case MemberState.UNRELEASED_PARTITIONS:
            return step.next(member.epoch)
        case _:  # a state of a later release: it can only start anew
            if owned is None or any(True for _ in owned):
                raise KafkaError(
                    Error.FENCED_MEMBER_EPOCH,
                    "The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin.",
                )
            return step.next(target.epoch)


class _Step:
    def __init__(
        self,
        member: Member,
        target: Target,
        subscribed: set[UUID],
        partition_epoch: Callable[[UUID, int], int],
        owned: Reported,
    ) -> None:
        self._member = member
        self._target_epoch = target.epoch
        self._target = target.partitions
        self._subscribed = subscribed
        self._partition_epoch = partition_epoch
        self._owned = owned

    def still_owns(self, revoking: Owned) -> bool:
        """Whether it has not yet said that it has given up all of these."""
        if self._owned is None:
            return True
        return any(
            index in revoking[topic["topic_id"]] for topic in self._owned if topic["topic_id"] in revoking for index in topic["partitions"]
        )

    def unsubscribe(self) -> Member:
        """Takes away what it is not subscribed to any more, within its epoch."""
        member = self._member
        gone = {topic_id: indexes for topic_id, indexes in member.assigned.items() if topic_id not in self._subscribed}
        if not gone:
            return member
        kept = {topic_id: indexes for topic_id, indexes in member.assigned.items() if topic_id not in gone}
        revoking = dict(member.revoking)
        for topic_id, indexes in gone.items():
            revoking[topic_id] = {**revoking.get(topic_id, {}), **indexes}
        if self.still_owns(revoking):
            return member.advanced(member.epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
        return member.advanced(member.epoch, member.state, kept, member.revoking)

    def next(self, epoch: int) -> Member:
        """From its assignment towards the target; it stays in `epoch` while it has something to give up."""
        member = self._member
        unreleased = False
        kept: dict[UUID, Mapping[int, int]] = {}
        revoking: dict[UUID, Mapping[int, int]] = {}
        added: dict[UUID, list[int]] = {}
        for topic_id in self._target.keys() | member.assigned.keys():
            wanted = self._target.get(topic_id, frozenset()) if topic_id in self._subscribed else frozenset()
            has = member.assigned.get(topic_id, {})
            keeps = {index: since for index, since in has.items() if index in wanted}
            if keeps:
                kept[topic_id] = keeps
            if len(keeps) < len(has):
                revoking[topic_id] = {index: since for index, since in has.items() if index not in wanted}
            given_up = member.revoking.get(topic_id, {})
            for index in wanted:
                if index in has:
                    continue
                if index not in given_up and self._partition_epoch(topic_id, index) != -1:
                    unreleased = True
                else:
                    added.setdefault(topic_id, []).append(index)
        if revoking and self.still_owns(revoking):
            return member.advanced(epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
        for topic_id, indexes in added.items():
            kept[topic_id] = {**kept.get(topic_id, {}), **dict.fromkeys(sorted(indexes), self._target_epoch)}
        state = MemberState.UNRELEASED_PARTITIONS if unreleased else MemberState.STABLE
        return member.advanced(self._target_epoch, state, kept, NOTHING)
