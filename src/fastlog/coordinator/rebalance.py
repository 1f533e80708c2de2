"""How a classic group gets from one generation to the next: the join phase, the timers and the members that do not come back.

The rules are those of Kafka 4.3's GroupMetadataManager. Every method changes groups at once and returns what is to be appended.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.classic import ClassicGroup, Member, Message, Reply, State
from fastlog.coordinator.operation import Client, Environment, Result, Run
from fastlog.coordinator.printable import printable
from fastlog.coordinator.records import GroupRecord
from fastlog.coordinator.standing import Standings
from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlog.coordinator.timers import Timer

log = logging.getLogger("fastlog.groups")


def protocols_of(request: Message) -> list[tuple[str, bytes]]:
    """(name, metadata) of a JoinGroup request, in the member's order of preference."""
    return [(protocol["name"], protocol["metadata"]) for protocol in request["protocols"]]


def reason_of(request: Message) -> str:
    return request.get("reason") or "no reason"


class Rebalancer:
    """The classic groups of one partition of `__consumer_offsets`."""

    def __init__(self, environment: Environment, run: Run) -> None:
        self.settings = environment.settings
        self.clock = environment.clock
        self.metrics = environment.metrics
        self.groups: dict[str, ClassicGroup] = {}
        self._timers = environment.timers
        self._run = run
        self.standings = partial(Standings, environment.standing, self.clock)  # makes a group's

    # -- groups and members ---------------------------------------------------------------------------------------------------------

    def new_group(self, group_id: str) -> ClassicGroup:
        """A new empty group that nobody can find yet."""
        return ClassicGroup(
            group_id,
            self._timer(partial(self._join_due, group_id)),
            self._timer(partial(self._sync_due, group_id)),
            self.clock.now_ms(),
            self.standings(),
        )

    def create(self, group_id: str) -> ClassicGroup:
        group = self.new_group(group_id)
        self.groups[group_id] = group
        return group

    def forget(self, group_id: str) -> None:
        """The group is gone, or has become a consumer group; whoever waits is told to ask again."""
        group = self.groups.pop(group_id, None)
        if group is None:
            return
        for member in list(group.members.values()):
            group.dismiss(member, Error.COORDINATOR_NOT_AVAILABLE)
        group.disarm()
        group.move_to(State.DEAD, self.clock.now_ms())

    def session_timer(self, group_id: str, member_id: str) -> Timer:
        return self._timer(partial(self._session_due, group_id, member_id))

    def await_pending(self, group: ClassicGroup, member_id: str, session_timeout_ms: int) -> None:
        """A member id was given out; it must come back within its session timeout."""
        timer = self.session_timer(group.group_id, member_id)
        group.pending_joins[member_id] = timer
        timer.arm(session_timeout_ms)

    def add_member(self, client: Client, request: Message, group: ClassicGroup, member_id: str, reply: Reply) -> Result:
        """A member joins that was not in the group."""
        member = Member(
            member_id,
            request.get("group_instance_id"),
            client.client_id,
            client.host,
            request["rebalance_timeout_ms"],
            request["session_timeout_ms"],
            request["protocol_type"],
            protocols_of(request),
            self.session_timer(group.group_id, member_id),
            is_new=True,
        )
        if group.state is State.PREPARING_REBALANCE and group.previous_state is State.EMPTY:
            group.new_member_added = True
        group.add(member, reply)
        # It can't heartbeat while its JoinGroup waits, and nobody tells us when its connection dies.
        member.session.arm(self.settings.new_member_join_ms)
        return self.rebalance_or_complete(group, f"new member {member_id} ({reason_of(request)})")

    def update_member(self, request: Message, group: ClassicGroup, member: Member, reason: str, reply: Reply) -> Result:
        """A member of the group joins again, in a way that asks for a rebalance or is part of one."""
        group.update(member, protocols_of(request), request["rebalance_timeout_ms"], request["session_timeout_ms"], reply)
        return self.rebalance_or_complete(group, f"{reason} ({reason_of(request)})")

    # -- the join phase -------------------------------------------------------------------------------------------------------------

    def rebalance_or_complete(self, group: ClassicGroup, reason: str) -> Result:
        return self.prepare(group, reason) if group.can_rebalance else self.complete_if_joined(group)

    def prepare(self, group: ClassicGroup, reason: str) -> Result:
        """Starts a rebalance: everybody has to join again. The first one of a group waits a while for more members."""
        if group.state is State.COMPLETING_REBALANCE:
            self.reset_assignments(group, Error.REBALANCE_IN_PROGRESS)
        group.pending_syncs.clear()
        group.sync_timer.disarm()
        initial = group.state is State.EMPTY
        if initial:
            delay_ms = self.settings.initial_rebalance_delay_ms
            group.initial_delay = (delay_ms, max(group.rebalance_timeout_ms - delay_ms, 0))
            group.join_timer.arm(delay_ms)
        log.info("group %s: rebalance from generation %d: %s", group.label, group.generation, printable(reason))
        group.move_to(State.PREPARING_REBALANCE, self.clock.now_ms())
        self.metrics.rebalances_started += 1
        if initial:
            return Result()
        if group.all_joined:
            return self.complete(group)
        self._await_joins(group)
        return Result()

    def complete_if_joined(self, group: ClassicGroup) -> Result:
        """Ends the join phase when all are there; an initial one lasts until its delay is over."""
        if group.state is State.PREPARING_REBALANCE and group.previous_state is not State.EMPTY and group.all_joined:
            return self.complete(group)
        return Result()

    def complete(self, group: ClassicGroup) -> Result:
        """Ends the join phase: dynamic members that did not join are removed, the others get the next generation."""
        group.join_timer.disarm()
        group.initial_delay = None
        missing = [member for member in group.members.values() if member.awaiting_join is None and not member.is_static]
        for member in missing:
            group.remove(member.member_id)
        if missing:
            self.metrics.members_expired += len(missing)
            log.info("group %s: removed %d members that did not join again", group.label, len(missing))
        if group.state is State.DEAD:
            return Result()
        if not group.elect_joined_leader() and group.members:
            log.warning("group %s: no member joined again; waiting for its static members", group.label)
            self._await_joins(group)
            return Result()
        group.start_generation(self.clock.now_ms())
        if group.state is State.EMPTY:
            log.info("group %s: empty at generation %d", group.label, group.generation)
            return Result([GroupRecord(group.group_id, group.metadata_value({}))], replay=False, done=partial(self._empty_stored, group))
        log.info("group %s: generation %d with %d members", group.label, group.generation, len(group.members))
        for member in list(group.members.values()):
            group.answer_join(member, group.join_response(member.member_id))
            member.session.arm(member.session_timeout_ms)
            member.is_new = False
            group.pending_syncs.add(member.member_id)
        group.sync_timer.arm(group.rebalance_timeout_ms)
        return Result()

    def reset_assignments(self, group: ClassicGroup, error: Error) -> None:
        """The assignment will not come: whoever waits for it gets the error."""
        for member in list(group.members.values()):
            member.assignment = b""
            if group.answer_sync(member, {"error_code": error}):
                member.session.arm(member.session_timeout_ms)

    # -- leaving --------------------------------------------------------------------------------------------------------------------

    def expire_member(self, group: ClassicGroup, member: Member, reason: str) -> Result:
        """Removes a member that has failed."""
        self.metrics.members_expired += 1
        log.info("group %s: removing member %s: %s", group.label, printable(member.member_id), reason)
        group.dismiss(member, Error.UNKNOWN_MEMBER_ID)
        group.remove(member.member_id)
        if group.state in {State.STABLE, State.COMPLETING_REBALANCE}:
            return self.rebalance_or_complete(group, f"member {member.member_id} expired")
        if group.state is State.PREPARING_REBALANCE and group.all_joined:
            return self.complete(group)
        return Result()

    def expire_pending(self, group: ClassicGroup, member_id: str) -> Result:
        """Takes back a member id that was given out and not used."""
        group.drop_pending_join(member_id)
        if group.state is State.PREPARING_REBALANCE and group.all_joined:
            return self.complete(group)
        return Result()

    # -- timers ---------------------------------------------------------------------------------------------------------------------

    def _timer(self, operation: Callable[[], Result]) -> Timer:
        return self._timers.timer(partial(self._run, operation))

    def run_later(self, operation: Callable[[], Result]) -> None:
        """For what has to happen when no request is there to carry it."""
        self._run(operation)

    def _await_joins(self, group: ClassicGroup) -> None:
        group.initial_delay = None
        group.join_timer.arm(group.rebalance_timeout_ms)

    def _join_due(self, group_id: str) -> Result:
        group = self.groups.get(group_id)
        if group is None or group.state is not State.PREPARING_REBALANCE:
            return Result()
        if group.initial_delay is not None:
            delay_ms, remaining_ms = group.initial_delay
            if group.new_member_added and remaining_ms:
                group.new_member_added = False
                next_ms = min(self.settings.initial_rebalance_delay_ms, remaining_ms)
                group.initial_delay = (next_ms, max(remaining_ms - delay_ms, 0))
                group.join_timer.arm(next_ms)
                return Result()
        return self.complete(group)

    def _sync_due(self, group_id: str) -> Result:
        group = self.groups.get(group_id)
        if group is None or not group.pending_syncs or group.state not in {State.COMPLETING_REBALANCE, State.STABLE}:
            return Result()
        late = [group.members[member_id] for member_id in group.pending_syncs]
        for member in late:
            group.dismiss(member, Error.UNKNOWN_MEMBER_ID)
            group.remove(member.member_id)
        self.metrics.members_expired += len(late)
        return self.prepare(group, f"{len(late)} members did not sync in time")

    def _session_due(self, group_id: str, member_id: str) -> Result:
        group = self.groups.get(group_id)
        if group is None or group.state is State.DEAD:
            return Result()
        if member_id in group.pending_joins:
            return self.expire_pending(group, member_id)
        member = group.members.get(member_id)
        if member is None or member.satisfied_heartbeat() or group.standings.heard_of(member_id):
            return Result()
        return self.expire_member(group, member, "no heartbeat within its session timeout")

    def _empty_stored(self, group: ClassicGroup, error: Error) -> None:
        if error is Error.NONE:
            group.stored = True
        else:
            # Should the broker fail now, the generation before comes back and its members time out: no harm done.
            log.warning("group %s: could not store that it is empty: %s", group.label, error.name)
