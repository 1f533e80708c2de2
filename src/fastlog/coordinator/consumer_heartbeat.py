"""ConsumerGroupHeartbeat: members join, stay, move to their target assignment and leave (KIP-848, Kafka 4.3's rules)."""

from __future__ import annotations

import logging
from base64 import urlsafe_b64encode
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING
from uuid import uuid4

from fastlog.coordinator.assignors import ASSIGNORS, Candidate
from fastlog.coordinator.classic import State
from fastlog.coordinator.consumer_group import (
    JOIN,
    LEAVE,
    LEAVE_STATIC,
    NO_ASSIGNMENT,
    NOTHING,
    ConsumerGroup,
    Member,
    MemberState,
    Message,
)
from fastlog.coordinator.consumer_records import (
    current_record,
    group_record,
    member_record,
    member_target_record,
    member_tombstones,
    regex_tombstone,
    target_record,
)
from fastlog.coordinator.operation import Result
from fastlog.coordinator.patterns import compiled
from fastlog.coordinator.printable import printable
from fastlog.coordinator.reconciliation import Target, reconcile
from fastlog.coordinator.records import ConsumerKind, ConsumerRecord, CoordinatorRecord, GroupRecord
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from uuid import UUID

    from fastlog.coordinator.consumers import Consumers
    from fastlog.coordinator.operation import Client
    from fastlog.coordinator.reconciliation import Reported

log = logging.getLogger("fastlog.groups")

_REGEX_PAUSE_MS = 10_000  # between two looks of a group at all topics


class RegexChange(Enum):
    NONE = 0
    CHANGED = 1  # and not yet matched against the topics
    RESOLVED = 2


class Heartbeats:
    """What members of consumer groups ask, in one partition of `__consumer_offsets`."""

    def __init__(self, consumers: Consumers) -> None:
        self._consumers = consumers
        self._settings = consumers.settings
        self._clock = consumers.clock
        self._topology = consumers.topology
        self._groups = consumers.groups

    # -- ConsumerGroupHeartbeat -----------------------------------------------------------------------------------------------------

    def heartbeat(self, client: Client, request: Message) -> Result:
        """A valid request (the caller saw to it). Raises KafkaError."""
        self._consumers.metrics.heartbeats += 1
        epoch: int = request["member_epoch"]
        if epoch > JOIN:
            answer = self._steady(client, request, epoch)
            if answer is None:
                return self._heartbeat(client, request, epoch)
            group_id = request["group_id"]
            at_rest = answer["heartbeat_interval_ms"] == self._consumers.of_group(group_id).heartbeat_ms
            return Result(response=answer, standing=self._consumers.stand(group_id, request["member_id"]) if at_rest else None)
        return self._leave(request, epoch) if epoch in {LEAVE, LEAVE_STATIC} else self._heartbeat(client, request, epoch)

    def _steady(self, client: Client, request: Message, epoch: int) -> Message | None:
        """The answer to a member that has nothing to say, when there is nothing to tell it; None when it takes more. O(1)."""
        group = self._groups.get(request["group_id"])
        if group is None:
            return None
        member = group.members.get(request["member_id"])
        if (
            member is None
            or member.epoch != epoch
            or member.state is not MemberState.STABLE
            or group.assignment_epoch != epoch
            or group.epoch != epoch
            or not group.refreshed
            or group.regexes
            or request["topic_partitions"] is not None
            or request["subscribed_topic_names"] is not None
            or request["subscribed_topic_regex"] is not None
            or request["rebalance_timeout_ms"] != -1
            or request["instance_id"] != member.instance_id
            or request["rack_id"] is not None
            or request["server_assignor"] is not None
            or member.classic is not None
            or client.client_id != member.client_id
            or client.host != member.client_host
        ):
            return None
        self._consumers.watch_session(group.group_id, member.member_id)
        return self._answer(group, member, group.epoch)

    def _answer(self, group: ConsumerGroup, member: Member, group_epoch: int) -> Message:
        """The response but for the assignment, to `member` as it is now.

        What has to be given up and what has been becomes known by heartbeats only: while a group with several members has not come to rest
        they are asked for more of them.
        """
        interval_ms = self._consumers.of_group(group.group_id).heartbeat_ms
        if len(group.members) > (member.member_id in group.members) and (
            member.epoch != group_epoch
            or member.state is not MemberState.STABLE
            or self._clock.now_ms() < group.assignment_ms + interval_ms
        ):
            interval_ms = min(interval_ms, self._settings.consumer_settling_ms)
        return {
            "error_code": Error.NONE,
            "member_id": member.member_id,
            "member_epoch": member.epoch,
            "heartbeat_interval_ms": interval_ms,
        }

    def _heartbeat(self, client: Client, request: Message, epoch: int) -> Result:
        records: list[CoordinatorRecord] = []
        joins = epoch == JOIN
        group = self.group_for(request["group_id"], records, create=joins)
        member_id: str = request["member_id"]
        self.check_room(group, member_id)
        member_id = member_id or new_member_id()
        instance_id: str | None = request["instance_id"]
        owned: Reported = request["topic_partitions"]
        if instance_id is None:
            member = group.members.get(member_id) or Member(member_id) if joins else group.member(member_id)
            _check_epoch(member, epoch, owned)
        elif joins:
            member = self.joined_static(group, member_id, instance_id, records, classic=False)
        else:
            member = static_member(group, member_id, instance_id)
            _check_epoch(member, epoch, owned)
        names: list[str] | None = request["subscribed_topic_names"]
        regex: str | None = request["subscribed_topic_regex"]
        timeout_ms: int = request["rebalance_timeout_ms"]
        updated = replace(
            member,
            instance_id=member.instance_id if instance_id is None else instance_id,
            rack_id=member.rack_id if request["rack_id"] is None else request["rack_id"],
            rebalance_timeout_ms=member.rebalance_timeout_ms if timeout_ms == -1 else timeout_ms,
            assignor=member.assignor if request["server_assignor"] is None else request["server_assignor"],
            topics=member.topics if names is None else frozenset(names),
            regex=member.regex if regex is None else regex,
            client_id=client.client_id,
            client_host=client.host,
            classic=None,
        )
        named = self.subscription_changed(group, member, updated, records)
        pattern = self.regex_changed(group, member, updated, records)
        group_epoch = group.epoch
        if named or pattern is RegexChange.RESOLVED or not group.refreshed:
            group_epoch = self.refresh(group, member, updated, records, changed=named or pattern is RegexChange.RESOLVED)
        target = self.target(group, group_epoch, member, updated, records)
        updated = self.reconciled(group, updated, target, owned, records, subscription_changed=named or pattern is not RegexChange.NONE)
        self._consumers.watch_session(group.group_id, member_id)
        answer = self._answer(group, updated, group_epoch)
        says_all = timeout_ms != -1 and owned is not None and (names is not None or regex is not None)
        if joins or says_all or member.assigned != updated.assigned:
            partitions = [{"topic_id": topic_id, "partitions": list(indexes)} for topic_id, indexes in updated.assigned.items()]
            answer["assignment"] = {"topic_partitions": partitions}
        return Result(records, answer, at_once=True)

    def group_for(self, group_id: str, records: list[CoordinatorRecord], *, create: bool) -> ConsumerGroup:
        """The group; with `create` a new one that is not there before it is in `records`, or what a classic one becomes.

        Raises KafkaError.
        """
        group = self._groups.get(group_id)
        if group is not None:
            if group.doomed:
                # A moment later there is room for a new one.
                raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
            return group
        classic = self._consumers.classic.groups.get(group_id)
        if classic is None:
            if not create:
                raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} not found.")
            return ConsumerGroup(group_id)
        if not create:
            raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group.")
        if classic.state is State.DEAD:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
        if classic.state is State.EMPTY:
            log.info("group %s: the empty classic group becomes a consumer group", classic.label)
            records.append(GroupRecord(group_id, None))
            return ConsumerGroup(group_id)
        return self._consumers.migration.upgrade(classic, records)

    def check_room(self, group: ConsumerGroup, member_id: str) -> None:
        size_max = self._settings.consumer_group_size_max
        if len(group.members) >= size_max and member_id not in group.members:
            raise KafkaError(Error.GROUP_MAX_SIZE_REACHED, f"The consumer group has reached its maximum capacity of {size_max} members.")

    def joined_static(
        self, group: ConsumerGroup, member_id: str, instance_id: str, records: list[CoordinatorRecord], *, classic: bool
    ) -> Member:
        """A static member that joins: a new one, or one that takes the place of that with its instance id. Raises KafkaError."""
        before = group.static_member(instance_id)
        if before is None:
            return group.members.get(member_id) or Member(member_id)
        if not classic and before.classic is None and before.epoch != LEAVE_STATIC:
            log.info("group %s: static member %s has not left: no other can join", group.label, printable(instance_id))
            why = f"the instance id is owned by {before.member_id} member."
            raise KafkaError(
                Error.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {instance_id} cannot join the group because {why}",
            )
        member = replace(before, member_id=member_id, epoch=JOIN, previous_epoch=JOIN)
        records += member_tombstones(group.group_id, before.member_id)
        records += [
            member_record(group.group_id, member),
            member_target_record(group.group_id, member_id, group.targets.get(before.member_id, NO_ASSIGNMENT)),
            current_record(group.group_id, member),
        ]
        self._consumers.stop_timers(group.group_id, before.member_id)
        self._consumers.metrics.members_fenced += 1
        log.info("group %s: static member %s is back under a new member id", group.label, printable(instance_id))
        return member

    # -- what follows from a subscription -------------------------------------------------------------------------------------------

    @staticmethod
    def subscription_changed(group: ConsumerGroup, member: Member, updated: Member, records: list[CoordinatorRecord]) -> bool:
        """Whether it names other topics than before. Anything else that changed is put into a record all the same."""
        if updated == member:
            return False
        records.append(member_record(group.group_id, updated))
        return updated.topics != member.topics

    def regex_changed(self, group: ConsumerGroup, member: Member, updated: Member, records: list[CoordinatorRecord]) -> RegexChange:
        """What the member's regular expression brings about; it is looked at again from time to time. Raises KafkaError."""
        before, after = member.regex, updated.regex
        change = RegexChange.NONE
        refresh = False
        if before != after:
            change = RegexChange.CHANGED
            if before and group.regexes.get(before) == 1:
                records.append(regex_tombstone(group.group_id, before))
            if after:
                if after not in group.regexes:
                    compiled(after)
                    refresh = True
                elif after in group.resolved:
                    change = RegexChange.RESOLVED
            elif before:
                change = RegexChange.RESOLVED
        if (not refresh and not group.regexes) or self._consumers.is_resolving(group.group_id):
            return change
        now_ms = self._clock.now_ms()
        last = next(iter(group.resolved.values()), None)
        if last is not None and now_ms <= last.at_ms + _REGEX_PAUSE_MS:
            return change
        wanted = dict(group.regexes)
        if before:
            wanted[before] = wanted.get(before, 0) - 1
        if after:
            wanted[after] = wanted.get(after, 0) + 1
        count = sum(members > 0 for members in wanted.values())
        refresh = (
            refresh
            or count != len(group.resolved)
            or last is None
            or last.version < self._topology.new_topics_version
            or now_ms > last.at_ms + self._settings.consumer_regex_refresh_ms
        )
        if refresh and count:
            self._consumers.resolve_soon(group.group_id)
        return change

    def refresh(self, group: ConsumerGroup, member: Member, updated: Member, records: list[CoordinatorRecord], *, changed: bool) -> int:
        """The group's epoch, a new one if its subscriptions (`changed`) or its topics have changed."""
        epoch = group.epoch
        metadata_hash = self._topology.hash(group.subscribed_topics_with(member, updated))
        if changed or metadata_hash != group.metadata_hash:
            epoch += 1
            records.append(group_record(group.group_id, epoch, metadata_hash))
            log.info("group %s: epoch %d", group.label, epoch)
            self._consumers.metrics.rebalances_started += 1
        group.refreshed = True
        if group.has_partition_record:
            records.append(ConsumerRecord(ConsumerKind.PARTITIONS, group.group_id, "", None))
        return epoch

    # -- assignments ----------------------------------------------------------------------------------------------------------------

    def target(self, group: ConsumerGroup, epoch: int, member: Member, updated: Member, records: list[CoordinatorRecord]) -> Target:
        """The member's part of the group's target assignment; of a new one if that is behind `epoch` and it is time for one."""
        now_ms = self._clock.now_ms()
        interval_ms = self._consumers.of_group(group.group_id).assignment_interval_ms
        if group.assignment_epoch >= epoch or (group.assignment_ms and interval_ms and now_ms < group.assignment_ms + interval_ms):
            return Target(group.assignment_epoch, group.target_of(updated))
        name = group.preferred_assignor(member, updated) or self._consumers.default_assignor
        candidates, partitions = self._candidates(group, updated)
        assigned = ASSIGNORS[name](candidates, partitions)
        for member_id in candidates:
            wanted = assigned.get(member_id, NO_ASSIGNMENT)
            if wanted != group.targets.get(member_id):
                records.append(member_target_record(group.group_id, member_id, wanted))
        records.append(target_record(group.group_id, epoch, now_ms))
        log.info("group %s: assignment of epoch %d by %s to %d members", group.label, epoch, name, len(candidates))
        self._consumers.metrics.rebalances_completed += 1
        return Target(epoch, assigned.get(updated.member_id, NO_ASSIGNMENT))

    def _candidates(self, group: ConsumerGroup, updated: Member) -> tuple[dict[str, Candidate], dict[UUID, int]]:
        """The members to be assigned to, `updated` among them, and the number of partitions of their topics."""
        members = dict(group.members)
        before = updated.member_id
        if updated.instance_id is not None:
            before = group.static_members.get(updated.instance_id, before)
            if before != updated.member_id:
                members.pop(before, None)
        members[updated.member_id] = updated
        ids: dict[frozenset[str], frozenset[UUID]] = {}  # most members are subscribed to the same
        candidates: dict[str, Candidate] = {}
        for member_id, member in members.items():
            names = group.topics_of(member)
            topics = ids.get(names)
            if topics is None:
                topics = ids[names] = frozenset(self._topology.ids(names))
            target = group.targets.get(before if member_id == updated.member_id else member_id, NO_ASSIGNMENT)
            candidates[member_id] = Candidate(topics, member.instance_id, target)
        return candidates, {topic: self._topology.partitions(topic) for topic in frozenset().union(*ids.values())}

    def reconciled(
        self,
        group: ConsumerGroup,
        member: Member,
        target: Target,
        owned: Reported,
        records: list[CoordinatorRecord],
        *,
        subscription_changed: bool,
    ) -> Member:
        """The member after its next step towards the target."""
        if not subscription_changed and member.is_reconciled_to(target.epoch):
            return member
        subscribed = self._topology.ids(group.topics_of(member))
        updated = reconcile(member, target, subscribed, group.partition_epoch, owned, subscription_changed=subscription_changed)
        if updated == member:
            return member
        records.append(current_record(group.group_id, updated))
        if updated.classic is None:
            if updated.state is MemberState.UNREVOKED_PARTITIONS:
                self._consumers.watch_rebalance(group.group_id, updated)
            else:
                self._consumers.stop_rebalance(group.group_id, updated.member_id)
        return updated

    # -- leaving --------------------------------------------------------------------------------------------------------------------

    def _leave(self, request: Message, epoch: int) -> Result:
        group_id: str = request["group_id"]
        member_id: str = request["member_id"]
        instance_id: str | None = request["instance_id"]
        group = self._groups.get(group_id)
        if group is None:
            what = "is not a consumer group" if group_id in self._consumers.classic.groups else "not found"
            raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Group {group_id} {what}.")
        member = group.member(member_id) if instance_id is None else static_member(group, member_id, instance_id)
        answer = {"error_code": Error.NONE, "member_id": member_id, "member_epoch": epoch}
        if instance_id is not None and epoch == LEAVE_STATIC:
            log.info("group %s: static member %s leaves for a while", group.label, printable(instance_id))
            # Whatever it commits late must not count once another has its place.
            zeroed = {topic_id: dict.fromkeys(indexes, 0) for topic_id, indexes in member.assigned.items()}
            away = replace(member, epoch=LEAVE_STATIC, assigned=zeroed, revoking=NOTHING)
            return Result([current_record(group_id, away)], answer, at_once=True)
        log.info("group %s: member %s leaves", group.label, printable(member_id))
        self._consumers.metrics.leaves += 1
        return self._consumers.fence(group, [member], answer)


def static_member(group: ConsumerGroup, member_id: str, instance_id: str) -> Member:
    """The member with both ids. Raises KafkaError UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID."""
    member = group.static_member(instance_id)
    if member is None:
        raise KafkaError(Error.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if member.member_id != member_id:
        message = f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}."
        raise KafkaError(Error.FENCED_INSTANCE_ID, message)
    return member


def new_member_id() -> str:
    """As Kafka's: a random UUID in 22 characters of URL-safe base64."""
    return urlsafe_b64encode(uuid4().bytes)[:22].decode()


def _check_epoch(member: Member, epoch: int, owned: Reported) -> None:
    """Raises KafkaError FENCED_MEMBER_EPOCH. A member whose answer was lost may still be in the epoch before, owning no more."""
    if epoch in {JOIN, member.epoch}:
        return
    lost = epoch == member.previous_epoch and epoch < member.epoch and owned is not None
    if lost and all(index in member.assigned.get(topic["topic_id"], NOTHING) for topic in owned or () for index in topic["partitions"]):
        return
    size = "greater" if epoch > member.epoch else "smaller"
    raise KafkaError(
        Error.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {size} member epoch ({epoch}) than the one known by the group coordinator ({member.epoch}). "
        "The member must abandon all its partitions and rejoin.",
    )
