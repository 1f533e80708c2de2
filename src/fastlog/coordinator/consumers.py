"""The consumer groups (KIP-848) of one partition of `__consumer_offsets`: what the log says of them, their timers, and what others ask.

What members ask is in `consumer_heartbeat` and, of those that use the classic protocol, in `consumer_classic`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.consumer_group import ConsumerGroup, Member, MemberState, Message, Resolved
from fastlog.coordinator.consumer_records import (
    apply,
    group_record,
    member_tombstones,
    regex_record,
    regex_tombstone,
)
from fastlog.coordinator.operation import Result
from fastlog.coordinator.patterns import matching
from fastlog.coordinator.printable import printable
from fastlog.coordinator.records import ConsumerKind, ConsumerRecord, CoordinatorRecord
from fastlog.coordinator.topology import Topology
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from fastlog.coordinator.migration import Migration
    from fastlog.coordinator.operation import Client, Environment, Run
    from fastlog.coordinator.ports import StandingAnswer
    from fastlog.coordinator.rebalance import Rebalancer
    from fastlog.coordinator.standing import Standings
    from fastlog.coordinator.timers import Timer

log = logging.getLogger("fastlog.groups")

_EPOCHS_FIRST = 9  # OffsetCommit from this version on has a place for member epochs


class Consumers:
    """Pure state, as all of the coordinator's. `classic`: the classic groups beside them; a group id is one's or the other's."""

    def __init__(self, environment: Environment, run: Run, classic: Rebalancer) -> None:
        self.settings = environment.settings
        self.of_group = environment.groups.of
        self.clock = environment.clock
        self.metrics = environment.metrics
        self.topology = Topology(environment.topics)
        self.groups: dict[str, ConsumerGroup] = {}
        self.classic = classic
        self.migration: Migration
        self._timers = environment.timers
        self._run = run
        self._sessions: dict[tuple[str, str], Timer] = {}  # by group and member
        self._rebalances: dict[tuple[str, str], Timer] = {}
        self._joins: dict[tuple[str, str], Timer] = {}
        self._syncs: dict[tuple[str, str], Timer] = {}
        self._standings: dict[str, Standings] = {}  # by group
        self._resolving: dict[str, Timer] = {}  # by group: its regular expressions are about to be matched

    @property
    def default_assignor(self) -> str:
        return self.settings.consumer_assignors[0]

    # -- timers ---------------------------------------------------------------------------------------------------------------------

    def watch_session(self, group_id: str, member_id: str, timeout_ms: int | None = None) -> None:
        """The member has to be heard of again within the time-out (None: the group's)."""
        timer = self._sessions.get((group_id, member_id))
        if timer is None:
            timer = self._timers.timer(partial(self._run, partial(self._session_due, group_id, member_id)))
            self._sessions[group_id, member_id] = timer
        timer.arm(self.of_group(group_id).session_ms if timeout_ms is None else timeout_ms)

    def watch_rebalance(self, group_id: str, member: Member) -> None:
        """The member has to give up what it must within its rebalance time-out."""
        due = partial(self._rebalance_due, group_id, member.member_id, member.epoch)
        self._timer(self._rebalances, group_id, member.member_id, due).arm(member.rebalance_timeout_ms)

    def stop_rebalance(self, group_id: str, member_id: str) -> None:
        _disarm(self._rebalances, group_id, member_id)

    def watch_join(self, group_id: str, member: Member) -> None:
        """A member that uses the classic protocol has been told to join again, unless it was already."""
        if (group_id, member.member_id) not in self._joins:
            due = partial(self._expire, group_id, member.member_id, "it did not join again within its rebalance time-out")
            self._timer(self._joins, group_id, member.member_id, due).arm(member.rebalance_timeout_ms)

    def stop_join(self, group_id: str, member_id: str) -> None:
        _disarm(self._joins, group_id, member_id)

    def watch_sync(self, group_id: str, member_id: str, timeout_ms: int) -> None:
        """A member that uses the classic protocol has joined, and has to ask for its assignment."""
        due = partial(self._expire, group_id, member_id, "it did not sync in time")
        self._timer(self._syncs, group_id, member_id, due).arm(timeout_ms)

    def stop_sync(self, group_id: str, member_id: str) -> None:
        _disarm(self._syncs, group_id, member_id)

    def stop_timers(self, group_id: str, member_id: str) -> None:
        for timers in (self._sessions, self._rebalances, self._joins, self._syncs):
            _disarm(timers, group_id, member_id)

    def _timer(self, timers: dict[tuple[str, str], Timer], group_id: str, member_id: str, due: Callable[[], Result]) -> Timer:
        _disarm(timers, group_id, member_id)
        timer = timers[group_id, member_id] = self._timers.timer(partial(self._run, partial(self._fire, timers, group_id, member_id, due)))
        return timer

    @staticmethod
    def _fire(timers: dict[tuple[str, str], Timer], group_id: str, member_id: str, due: Callable[[], Result]) -> Result:
        del timers[group_id, member_id]
        return due()

    def _session_due(self, group_id: str, member_id: str) -> Result:
        standings = self._standings.get(group_id)
        if standings is not None and standings.heard_of(member_id):
            return Result()
        del self._sessions[group_id, member_id]
        return self._expire(group_id, member_id, "its session expired")

    def _expire(self, group_id: str, member_id: str, why: str) -> Result:
        group = self.groups.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if group is None or member is None:
            return Result()
        self.metrics.members_expired += 1
        log.info("group %s: member %s is removed: %s", group.label, printable(member_id), why)
        return self.fence(group, [member])

    def _rebalance_due(self, group_id: str, member_id: str, epoch: int) -> Result:
        group = self.groups.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if member is None or member.epoch != epoch:
            return Result()
        return self._expire(group_id, member_id, "it did not give up its partitions in time")

    # -- answers that stand -------------------------------------------------------------------------------------------------------

    def stand(self, group_id: str, member_id: str) -> StandingAnswer:
        """The answer that a member gets now stands until something about its group changes. Its session is watched."""
        standings = self._standings.get(group_id)
        if standings is None:
            standings = self._standings[group_id] = self.classic.standings()
        return standings.grant(member_id, self._sessions[group_id, member_id], self.of_group(group_id).session_ms)

    def revoke_standing(self, group_id: str) -> None:
        """Something about the group changes."""
        standings = self._standings.get(group_id)
        if standings is not None:
            standings.revoke_all()

    def on_settings_change(self) -> None:
        """What members are told of their heartbeats may have changed, or how long their sessions last."""
        for standings in self._standings.values():
            standings.revoke_all()

    # -- members go -----------------------------------------------------------------------------------------------------------------

    def fence(self, group: ConsumerGroup, members: list[Member], response: Message | None = None) -> Result:
        """Removes members; when only members of the classic protocol are left the group becomes a classic one."""
        if not members:
            return Result([], response)
        downgraded = self.migration.downgrade_without(group, members)
        if downgraded is not None:
            downgraded.response = response
            return downgraded
        group_id = group.group_id
        records: list[CoordinatorRecord] = []
        leaving: dict[str, int] = {}
        for member in members:
            records += member_tombstones(group_id, member.member_id)
            if member.regex:
                leaving[member.regex] = leaving.get(member.regex, 0) + 1
        records += [regex_tombstone(group_id, regex) for regex, count in leaving.items() if group.regexes.get(regex) == count]
        metadata_hash = self.topology.hash(group.subscribed_topics_without(members))
        records.append(group_record(group_id, group.epoch + 1, metadata_hash))
        log.info("group %s: epoch %d: %d members are gone", group.label, group.epoch + 1, len(members))
        for member in members:
            self.stop_timers(group_id, member.member_id)
        return Result(records, response, at_once=True)

    # -- regular expressions --------------------------------------------------------------------------------------------------------

    def is_resolving(self, group_id: str) -> bool:
        return group_id in self._resolving

    def resolve_soon(self, group_id: str) -> None:
        """Matches the group's regular expressions against the topics, once what is decided now has been applied."""
        timer = self._resolving[group_id] = self._timers.timer(partial(self._run, partial(self._resolve, group_id)))
        timer.arm(0)

    def _resolve(self, group_id: str) -> Result:
        del self._resolving[group_id]
        group = self.groups.get(group_id)
        if group is None or not group.regexes:
            return Result()
        names = self.topology.names()
        version, now_ms = self.topology.version, self.clock.now_ms()
        found = {regex: Resolved(matching(regex, names), version, now_ms) for regex in group.regexes}
        records: list[CoordinatorRecord] = [regex_record(group_id, regex, resolved) for regex, resolved in found.items()]
        changed = any(group.resolved.get(regex, Resolved()).topics != resolved.topics for regex, resolved in found.items())
        metadata_hash = self.topology.hash(group.named_topics().union(*(resolved.topics for resolved in found.values())))
        if changed or metadata_hash != group.metadata_hash:
            records.append(group_record(group_id, group.epoch + 1, metadata_hash))
            log.info("group %s: epoch %d: its regular expressions match other topics", group.label, group.epoch + 1)
            self.metrics.rebalances_started += 1
            group.refreshed = True
        return Result(records, at_once=True)

    # -- topics ---------------------------------------------------------------------------------------------------------------------

    def on_topic_change(self, name: str, *, created: bool) -> None:
        """A topic came, changed or went: groups that are subscribed to it look at it when one of their members is heard of next."""
        self.topology.on_change(name, created=created)
        for group in self.groups.values():
            if group.is_subscribed_to(name):
                self.revoke_standing(group.group_id)
                group.refreshed = False

    # -- offsets --------------------------------------------------------------------------------------------------------------------

    def check_commit(
        self, client: Client, group: ConsumerGroup, request: Message, *, in_transaction: bool = False
    ) -> Callable[[str, UUID, int], None] | None:
        """Whether the sender may commit. Raises KafkaError; what is returned raises it for a partition that the sender may not commit."""
        if group.doomed:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
        member_id: str = request.get("member_id", "")
        epoch: int = request.get("generation_id_or_member_epoch", -1)
        if epoch < 0 and not group.members:
            return None
        if in_transaction and epoch == -1 and not member_id and request.get("group_instance_id") is None:
            return None
        member = group.member(member_id)
        if not in_transaction and member.classic is None and client.version < _EPOCHS_FIRST:
            message = "OffsetCommit version 9 or above must be used by members using the consumer group protocol"
            raise KafkaError(Error.UNSUPPORTED_VERSION, message)
        if epoch == member.epoch:
            return None
        if epoch > member.epoch:
            raise KafkaError(_stale(member), f"epoch {epoch} is newer than the member's, {member.epoch}")
        return partial(self._check_partition, member, epoch)

    def _check_partition(self, member: Member, epoch: int, topic: str, topic_id: UUID, partition: int) -> None:
        """A commit that was on its way while its sender's epoch rose counts, if the partition was and is its own."""
        since = member.epoch_of(topic_id, partition)
        if since is None and (known := self.topology.get(topic)) is not None:
            since = member.epoch_of(known.topic_id, partition)
        if since is None or epoch < since:
            raise KafkaError(_stale(member), f"epoch {epoch} is older than the member's, and than its hold on {topic}-{partition}")

    def check_fetch(self, group_id: str, member_id: str | None, epoch: int) -> None:
        """Whether the sender may fetch the group's offsets. Raises KafkaError."""
        group = self.groups.get(group_id)
        if group is None or (member_id is None and epoch < 0):
            return
        member = group.member(member_id or "")
        if member.epoch != epoch:
            raise KafkaError(_stale(member), f"epoch {epoch} is not the member's, {member.epoch}")

    # -- administration -------------------------------------------------------------------------------------------------------------

    def check_delete(self, group_id: str) -> ConsumerGroup | None:
        """The group if it may be deleted, None if there is none of that id: KafkaError GROUP_ID_NOT_FOUND or NON_EMPTY_GROUP if not."""
        group = self.groups.get(group_id)
        if group is not None and group.doomed:
            raise KafkaError(Error.GROUP_ID_NOT_FOUND)
        if group is not None and group.members:
            raise KafkaError(Error.NON_EMPTY_GROUP)
        return group

    def describe(self, group_id: str) -> Message:
        """One group of a ConsumerGroupDescribe response."""
        group = self.groups.get(group_id)
        if group is not None:
            return group.describe(self.topology, self.default_assignor)
        what = "is not a consumer group" if group_id in self.classic.groups else "not found"
        return {"group_id": group_id, "error_code": Error.GROUP_ID_NOT_FOUND, "error_message": f"Group {group_id} {what}."}

    def listed(self, states: set[str], types: set[str]) -> list[Message]:
        """ListGroups entries, as those of Membership."""
        if types and "consumer" not in types:
            return []
        entries = []
        for group in self.groups.values():
            state = group.state.value
            if not states or state.lower() in states:
                entries.append({"group_id": group.group_id, "protocol_type": "consumer", "group_state": state, "group_type": "consumer"})
        return entries

    # -- the log --------------------------------------------------------------------------------------------------------------------

    def replay(self, record: ConsumerRecord) -> None:
        """Applies a record: one that was decided just now, or one from the log."""
        self.revoke_standing(record.group)
        group = self.groups.get(record.group)
        if group is None:
            if record.value is None:
                return
            self.classic.forget(record.group)  # a classic group without members that held offsets
            group = self.groups[record.group] = ConsumerGroup(record.group)
        if record.kind is ConsumerKind.GROUP and record.value is None:
            self.forget(record.group)
        else:
            apply(group, record)

    def forget(self, group_id: str) -> None:
        """The group is gone, or has become a classic one."""
        group = self.groups.pop(group_id, None)
        if group is not None:
            self.revoke_standing(group_id)
            self._standings.pop(group_id, None)
            for member_id in group.members:
                self.stop_timers(group_id, member_id)

    def on_loaded(self) -> None:
        """All has been read: members have to be heard of from now on."""
        for group in self.groups.values():
            for member in group.members.values():
                self.watch_session(group.group_id, member.member_id, member.session_timeout_ms)
                if member.state is MemberState.UNREVOKED_PARTITIONS and member.classic is None:
                    self.watch_rebalance(group.group_id, member)

    def unload(self) -> None:
        for timers in (self._sessions, self._rebalances, self._joins, self._syncs):
            for timer in timers.values():
                timer.disarm()
            timers.clear()
        for timer in self._resolving.values():
            timer.disarm()
        self._resolving.clear()
        self.on_settings_change()
        self._standings.clear()
        self.groups.clear()


def _stale(member: Member) -> Error:
    return Error.STALE_MEMBER_EPOCH if member.classic is None else Error.ILLEGAL_GENERATION


def _disarm(timers: dict[tuple[str, str], Timer], group_id: str, member_id: str) -> None:
    timer = timers.pop((group_id, member_id), None)
    if timer is not None:
        timer.disarm()
