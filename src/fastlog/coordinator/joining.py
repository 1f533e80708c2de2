"""JoinGroup: who may join, under which member id, and whether that starts a rebalance (Kafka 4.3's rules)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from fastlog.coordinator.classic import NO_MEMBER, ClassicGroup, Member, Message, Reply, State
from fastlog.coordinator.failures import shown
from fastlog.coordinator.operation import Client, Result
from fastlog.coordinator.printable import printable
from fastlog.coordinator.rebalance import Rebalancer, protocols_of, reason_of
from fastlog.coordinator.records import GroupRecord
from fastlog.protocol.errors import Error, KafkaError

log = logging.getLogger("fastlog.groups")

_MEMBER_ID_FIRST = 4  # from this version on a new member has to join again with the id it was given (KIP-394)
_SKIP_ASSIGNMENT = 9  # from this version on a leader can be told to keep the assignment it has (KIP-814)


@dataclass(frozen=True, slots=True)
class _Return:
    """A static member's return under a new member id."""

    client: Client
    group: ClassicGroup
    old_id: str
    new_id: str
    leader_before: str | None


class Joining:
    """JoinGroup requests to the groups of one Rebalancer."""

    def __init__(self, rebalancer: Rebalancer) -> None:
        self._rebalancer = rebalancer

    def join(self, client: Client, request: Message, reply: Reply) -> Result:
        """Answers through `reply`, at once or when the join phase ends."""
        rebalancer = self._rebalancer
        rebalancer.metrics.joins += 1
        member_id: str = request["member_id"]
        group = rebalancer.groups.get(request["group_id"])
        if group is None:
            if member_id != NO_MEMBER:
                return self._refuse(reply, Error.UNKNOWN_MEMBER_ID, member_id)
            group = rebalancer.create(request["group_id"])
        if not self._accepts(group, member_id):
            member = group.members.get(member_id)
            if member is not None:
                group.dismiss(member, Error.GROUP_MAX_SIZE_REACHED)
            group.remove(member_id)
            return self._refuse(reply, Error.GROUP_MAX_SIZE_REACHED)
        if group.state is State.DEAD:
            # It is being deleted; a moment later the member can start a new one.
            return self._refuse(reply, Error.COORDINATOR_NOT_AVAILABLE, member_id)
        if not group.supports(request["protocol_type"], [name for name, _ in protocols_of(request)]):
            return self._refuse(reply, Error.INCONSISTENT_GROUP_PROTOCOL, member_id)
        if member_id == NO_MEMBER:
            return self._join_new(client, request, group, reply)
        return self._join_again(client, request, group, member_id, reply)

    def _accepts(self, group: ClassicGroup, member_id: str) -> bool:
        """Whether group.max.size leaves room. During a rebalance those who joined count, so that the last ones are turned away."""
        size_max = self._rebalancer.settings.group_size_max
        member = group.members.get(member_id)
        if group.state is State.PREPARING_REBALANCE:
            return (member is not None and member.awaiting_join is not None) or group.awaiting_joins < size_max
        if group.state in {State.COMPLETING_REBALANCE, State.STABLE}:
            return member is not None or len(group.members) < size_max
        return True

    def _join_new(self, client: Client, request: Message, group: ClassicGroup, reply: Reply) -> Result:
        instance_id = request.get("group_instance_id")
        member_id = f"{client.client_id if instance_id is None else instance_id}-{uuid4()}"
        if instance_id is not None:
            current = group.static_members.get(instance_id)
            if current is not None:
                return self._rejoin_static(_Return(client, group, current, member_id, group.leader_id), request, reply)
        elif client.version >= _MEMBER_ID_FIRST:
            self._rebalancer.await_pending(group, member_id, request["session_timeout_ms"])
            return self._refuse(reply, Error.MEMBER_ID_REQUIRED, member_id)
        return self._rebalancer.add_member(client, request, group, member_id, reply)

    def _join_again(self, client: Client, request: Message, group: ClassicGroup, member_id: str, reply: Reply) -> Result:
        instance_id = request.get("group_instance_id")
        if member_id in group.pending_joins:
            if instance_id is not None:
                # A static member is never given an id to come back with.
                return self._refuse(reply, Error.UNKNOWN_SERVER_ERROR, member_id)
            return self._rebalancer.add_member(client, request, group, member_id, reply)
        try:
            member = group.check_member(member_id, instance_id)
        except KafkaError as failure:
            return self._refuse(reply, failure.code, member_id)
        same = protocols_of(request) == member.protocols
        if group.state is State.PREPARING_REBALANCE:
            return self._rebalancer.update_member(request, group, member, f"member {member_id} joins", reply)
        if group.state is State.COMPLETING_REBALANCE and same:
            # Perhaps the response got lost: the generation is the same, so the answer is too.
            reply(group.join_response(member_id))
            return Result()
        if group.state is State.STABLE and same and not group.is_leader(member_id):
            reply(group.join_response(member_id, with_members=False))
            return Result()
        # A leader that joins again wants a new assignment: what it sees of the topics has changed.
        what = "leader joins again" if same else "metadata changed"
        return self._rebalancer.update_member(request, group, member, f"{what}: member {member_id}", reply)

    def _rejoin_static(self, back: _Return, request: Message, reply: Reply) -> Result:
        """A static member is back after a restart, under a new member id; in a stable group that alone is no reason to rebalance."""
        rebalancer = self._rebalancer
        group = back.group
        instance_id: str = request["group_instance_id"]
        log.info("group %s: static member %s is back under a new member id", group.label, printable(instance_id))
        rebalancer.metrics.members_fenced += 1
        member = group.replace_static(instance_id, back.old_id, back.new_id, rebalancer.session_timer(group.group_id, back.new_id))
        member.session.arm(member.session_timeout_ms)
        before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
        group.update(member, protocols_of(request), request["rebalance_timeout_ms"], request["session_timeout_ms"], reply)
        if group.state is State.STABLE:
            if group.select_protocol() != group.protocol:
                return rebalancer.prepare(group, f"static member {instance_id} changes the protocol ({reason_of(request)})")
            assignment = {each.member_id: each.assignment for each in group.members.values()}
            return Result(
                [GroupRecord(group.group_id, group.metadata_value(assignment))],
                replay=False,
                done=partial(self._static_stored, back, member, before),
            )
        if group.state is State.COMPLETING_REBALANCE:
            # The leader may be computing an assignment for the old member id.
            return rebalancer.prepare(group, f"static member {instance_id} joins again ({reason_of(request)})")
        return rebalancer.complete_if_joined(group)

    def _static_stored(self, back: _Return, member: Member, before: tuple[list[tuple[str, bytes]], int, int], error: Error) -> None:
        """The new member id is in the log, or could not be written and must be forgotten. `before`: protocols and time-outs until then."""
        group = back.group
        if error is Error.NONE:
            group.stored = True
        if group.members.get(member.member_id) is not member:
            return  # it has left meanwhile, and was answered
        if error is not Error.NONE:
            reply = member.awaiting_join
            group.set_awaiting_join(member, None)
            group.update(member, *before, None)
            assert member.instance_id is not None
            session = self._rebalancer.session_timer(group.group_id, back.old_id)
            restored = group.replace_static(member.instance_id, member.member_id, back.old_id, session)
            restored.session.arm(restored.session_timeout_ms)
            if reply is not None:
                reply({"error_code": shown(error), "member_id": NO_MEMBER})
            return
        if group.state is not State.STABLE:
            return  # a rebalance began meanwhile; its end answers
        group.find_subscribed_topics()  # it may have come back with another subscription
        if back.client.version >= _SKIP_ASSIGNMENT:
            group.answer_join(member, group.join_response(member.member_id, skip_assignment=group.is_leader(member.member_id)))
        else:
            # Named leader again, it would assign anew; naming the id before makes it a follower that fetches its old assignment.
            response = group.join_response(member.member_id, with_members=False)
            response["leader"] = back.leader_before or NO_MEMBER
            group.answer_join(member, response)

    @staticmethod
    def _refuse(reply: Reply, error: Error, member_id: str = NO_MEMBER) -> Result:
        reply({"error_code": error, "member_id": member_id})
        return Result()
