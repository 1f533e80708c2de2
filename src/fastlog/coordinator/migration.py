"""Groups change their protocol while they are in use: a classic group becomes a consumer group when the first member of that protocol
joins, and a classic one again when the last one has gone (`group.consumer.migration.policy`; Kafka 4.3's rules)."""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING

from fastlog.coordinator import classic as classic_protocol
from fastlog.coordinator.classic import CONSUMER, ClassicGroup, State
from fastlog.coordinator.consumer_group import Classic, ConsumerGroup, Member, Message
from fastlog.coordinator.consumer_records import group_tombstones, whole_group
from fastlog.coordinator.embedded import decode_assignment, decode_subscription, encode_assignment
from fastlog.coordinator.operation import Result
from fastlog.coordinator.records import CoordinatorRecord, GroupRecord
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from fastlog.coordinator.assignors import Assignment
    from fastlog.coordinator.consumers import Consumers
    from fastlog.coordinator.rebalance import Rebalancer

log = logging.getLogger("fastlog.groups")


class Migration:
    """Between the groups of `consumers` and of `classic`, of one partition of `__consumer_offsets`."""

    def __init__(self, consumers: Consumers, classic: Rebalancer) -> None:
        self._consumers = consumers
        self._classic = classic
        self._settings = consumers.settings
        self._topology = consumers.topology

    # -- to the consumer protocol ---------------------------------------------------------------------------------------------------

    def upgrade(self, classic: ClassicGroup, records: list[CoordinatorRecord]) -> ConsumerGroup:
        """What a classic group with members becomes: it is so once `records` have been applied. Raises KafkaError GROUP_ID_NOT_FOUND."""
        try:
            self._check_upgrade(classic)
            group = self._consumer_group(classic)
        except _Refused as why:
            log.info("group %s: stays a classic group: %s", classic.label, why)
            raise KafkaError(
                Error.GROUP_ID_NOT_FOUND, f"Cannot upgrade classic group {classic.group_id} to consumer group because {why}."
            ) from None
        for member in list(classic.members.values()):
            classic.dismiss(member, Error.REBALANCE_IN_PROGRESS, member.member_id)
        records.append(GroupRecord(classic.group_id, None))
        records += whole_group(group)
        for member_id, upgraded in group.members.items():
            self._consumers.watch_session(group.group_id, member_id, upgraded.session_timeout_ms)
        log.info("group %s: the classic group becomes a consumer group", classic.label)
        return group

    def _check_upgrade(self, classic: ClassicGroup) -> None:
        if self._settings.consumer_migration not in {"bidirectional", "upgrade"}:
            raise _Refused("online upgrade is disabled")
        if not classic.uses_consumer_protocol:
            raise _Refused("the group does not use the consumer embedded protocol")
        if len(classic.members) > self._settings.consumer_group_size_max:
            raise _Refused("the group size exceeds the consumer group maximum size")

    def _consumer_group(self, classic: ClassicGroup) -> ConsumerGroup:
        group = ConsumerGroup(classic.group_id)
        group.epoch = group.assignment_epoch = classic.generation
        taken: set[tuple[UUID, int]] = set()  # by whoever has it
        held: dict[str, dict[UUID, dict[int, int]]] = {}

        def take(member_id: str, partitions: dict[UUID, list[int]]) -> None:
            mine = held.setdefault(member_id, {})
            for topic_id, indexes in partitions.items():
                for index in indexes:
                    if (topic_id, index) not in taken:
                        taken.add((topic_id, index))
                        mine.setdefault(topic_id, {})[index] = classic.generation

        try:
            subscriptions = {member.member_id: decode_subscription(_metadata(classic, member)) for member in classic.members.values()}
            for member in classic.members.values():
                take(member.member_id, self._assigned(member.assignment))
        except ValueError:
            raise _Refused("the embedded consumer protocol is malformed") from None
        group.targets = {
            member_id: {topic_id: frozenset(indexes) for topic_id, indexes in mine.items()} for member_id, mine in held.items()
        }
        for member_id, subscription in subscriptions.items():
            # In the middle of a cooperative rebalance a member may still read what it has not been assigned again. It said so as it joined.
            take(member_id, self._by_id(subscription["owned_partitions"]))
        for member in classic.members.values():
            subscription = subscriptions[member.member_id]
            group.put(
                Member(
                    member.member_id,
                    classic.generation,
                    classic.generation,
                    member.instance_id,
                    subscription["rack_id"] or None,
                    member.rebalance_timeout_ms,
                    member.client_id,
                    member.client_host,
                    frozenset(subscription["topics"]),
                    assigned=held[member.member_id],
                    classic=Classic(member.session_timeout_ms, tuple(member.protocols)),
                )
            )
        group.metadata_hash = self._topology.hash(group.named_topics())
        return group

    def _assigned(self, data: bytes) -> dict[UUID, list[int]]:
        """A classic member's assignment by topic id. Raises ValueError, or _Refused."""
        if not data:
            return {}
        assignment = decode_assignment(data)
        if assignment["user_data"]:
            raise _Refused(
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before "
                "re-attempting the upgrade"
            )
        return self._by_id(assignment["assigned_partitions"])

    def _by_id(self, named: list[Message]) -> dict[UUID, list[int]]:
        """Partitions of the topics that exist."""
        return {
            topic.topic_id: each["partitions"]
            for each in named
            if (topic := self._topology.get(each["topic"])) is not None and each["partitions"]
        }

    # -- to the classic protocol ----------------------------------------------------------------------------------------------------

    def _may_downgrade(self, group: ConsumerGroup, size: int) -> bool:
        """Whether the group may become a classic one of `size` members."""
        if self._settings.consumer_migration not in {"bidirectional", "downgrade"}:
            log.info("group %s: stays a consumer group: online downgrade is disabled", group.label)
            return False
        if size > self._settings.group_size_max:
            log.info("group %s: stays a consumer group: it has more members than group.max.size", group.label)
            return False
        return True

    def downgrade_without(self, group: ConsumerGroup, leaving: Collection[Member]) -> Result | None:
        """The group becomes a classic one as these leave, if all others use the classic protocol; None when it does not."""
        size = len(group.members) - len(leaving)
        if size <= 0 or not group.only_classic_without(leaving) or not self._may_downgrade(group, size):
            return None
        gone = {member.member_id for member in leaving}
        members = [member for member in group.members.values() if member.member_id not in gone]
        classic = self._classic_group(group, members)
        records: list[CoordinatorRecord] = [*group_tombstones(group), _group_record(classic)]
        self._replace(group, classic)
        self._classic.prepare(classic, "its members of the consumer protocol have left")
        return Result(records, replay=False, at_once=True)

    def replaces_last(self, group: ConsumerGroup, replaced: Member) -> bool:
        """Whether the group becomes a classic one when a member of the classic protocol takes this static member's place."""
        return replaced.classic is None and group.only_classic_without([replaced]) and self._may_downgrade(group, len(group.members))

    def downgrade_with(self, group: ConsumerGroup, joining: Member, records: list[CoordinatorRecord], *, rebalance: bool) -> None:
        """The group becomes a classic one as a static member comes back with the classic protocol.

        `records`: what its joining has made of the group; what makes it a classic one is added.
        """
        replaced = group.static_member(joining.instance_id)
        assert replaced is not None
        members = [member for member in group.members.values() if member is not replaced]
        classic = self._classic_group(group, [*members, joining], {joining.member_id: replaced.member_id})
        ids = [joining.member_id if member_id == replaced.member_id else member_id for member_id in group.members]
        records += [*group_tombstones(group, ids), _group_record(classic)]
        self._replace(group, classic)
        if rebalance:
            self._classic.prepare(classic, "its last member of the consumer protocol is back with the classic one")

    def _classic_group(self, group: ConsumerGroup, members: list[Member], targets: dict[str, str] | None = None) -> ClassicGroup:
        """A stable classic group of these members. `targets`: whose target assignment is a member's, if not its own."""
        classic = self._classic.new_group(group.group_id)
        classic.generation = group.epoch
        classic.state = State.STABLE
        classic.protocol_type = CONSUMER
        classic.stored = True
        for member in members:
            assert member.classic is not None
            classic.add(
                classic_protocol.Member(
                    member.member_id,
                    member.instance_id,
                    member.client_id,
                    member.client_host,
                    member.rebalance_timeout_ms,
                    member.classic.session_timeout_ms,
                    CONSUMER,
                    list(member.classic.protocols),
                    self._classic.session_timer(group.group_id, member.member_id),
                )
            )
        classic.protocol = classic.select_protocol()
        classic.find_subscribed_topics()
        for added in classic.members.values():
            target = group.targets.get((targets or {}).get(added.member_id, added.member_id), {})
            version = struct.unpack_from(">h", added.metadata(classic.protocol))[0]
            added.assignment = encode_assignment(version, self._named(target))
        return classic

    def _named(self, target: Assignment) -> list[Message]:
        return [
            {"topic": topic.name, "partitions": sorted(indexes)}
            for topic_id, indexes in target.items()
            if (topic := self._topology.by_id(topic_id)) is not None
        ]

    def _replace(self, group: ConsumerGroup, classic: ClassicGroup) -> None:
        """From here on there is the classic group."""
        self._consumers.forget(group.group_id)
        self._classic.groups[group.group_id] = classic
        for member in classic.members.values():
            member.session.arm(member.session_timeout_ms)
        log.info("group %s: the consumer group becomes a classic group", group.label)


class _Refused(Exception):  # noqa: N818 - not an error of ours: the text says why the group stays as it is
    pass


def _metadata(classic: ClassicGroup, member: classic_protocol.Member) -> bytes:
    """The member's metadata for the group's protocol; what it prefers, if there is none yet or it does not know that one."""
    return next((metadata for name, metadata in member.protocols if name == classic.protocol), member.protocols[0][1])


def _group_record(classic: ClassicGroup) -> GroupRecord:
    return GroupRecord(
        classic.group_id, classic.metadata_value({member.member_id: member.assignment for member in classic.members.values()})
    )
