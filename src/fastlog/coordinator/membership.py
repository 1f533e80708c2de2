"""SyncGroup, Heartbeat, LeaveGroup, and the groups' side of describing, deleting, loading and unloading (Kafka 4.3's rules)."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.classic import NO_MEMBER, ClassicGroup, Member, Message, Reply, State
from fastlog.coordinator.failures import shown
from fastlog.coordinator.operation import Result
from fastlog.coordinator.printable import printable
from fastlog.coordinator.records import GroupRecord
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.coordinator.rebalance import Rebalancer

log = logging.getLogger("fastlog.groups")


class Membership:
    """What members ask of the groups of one Rebalancer once they have joined."""

    def __init__(self, rebalancer: Rebalancer) -> None:
        self._rebalancer = rebalancer
        self._groups = rebalancer.groups

    # -- SyncGroup ------------------------------------------------------------------------------------------------------------------

    def sync(self, request: Message, reply: Reply) -> Result:
        """Answers through `reply`: at once, or when the leader's assignment is in the log."""
        self._rebalancer.metrics.syncs += 1
        group = self._groups.get(request["group_id"])
        try:
            if group is None or group.state is State.EMPTY:
                raise KafkaError(Error.UNKNOWN_MEMBER_ID)
            member = self._check_sync(group, request)
        except KafkaError as failure:
            reply({"error_code": failure.code})
            return Result()
        group.pending_syncs.discard(member.member_id)
        if not group.pending_syncs:
            group.sync_timer.disarm()
        if group.state is State.STABLE:
            reply(self._assignment(group, member))
            return Result()
        group.answer_sync(member, {"error_code": Error.REBALANCE_IN_PROGRESS})  # an earlier one that its sender gave up on
        member.awaiting_sync = reply
        if not group.is_leader(member.member_id):
            return Result()
        assignment = {each["member_id"]: each["assignment"] for each in request["assignments"]}
        missing = [member_id for member_id in group.members if member_id not in assignment]
        if missing:
            log.warning("group %s: the leader's assignment leaves out %d members; theirs is empty", group.label, len(missing))
        return Result(
            [GroupRecord(group.group_id, group.metadata_value(assignment))],
            replay=False,
            done=partial(self._assignment_stored, group, group.generation, assignment),
        )

    def _check_sync(self, group: ClassicGroup, request: Message) -> Member:
        if group.state is State.DEAD:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
        member = group.check_member(request["member_id"], request.get("group_instance_id"))
        if request["generation_id"] != group.generation:
            raise KafkaError(Error.ILLEGAL_GENERATION)
        for asked, actual in ((request.get("protocol_type"), group.protocol_type), (request.get("protocol_name"), group.protocol)):
            if asked is not None and actual is not None and asked != actual:
                raise KafkaError(Error.INCONSISTENT_GROUP_PROTOCOL)
        if group.state is State.PREPARING_REBALANCE:
            raise KafkaError(Error.REBALANCE_IN_PROGRESS)
        return member

    def _assignment_stored(self, group: ClassicGroup, generation: int, assignment: dict[str, bytes], error: Error) -> None:
        """The assignment is in the log, or could not be written; another rebalance may have begun meanwhile, then it is of no use."""
        if error is Error.NONE:
            group.stored = True
        if group.state is not State.COMPLETING_REBALANCE or group.generation != generation:
            return
        if error is not Error.NONE:
            self._rebalancer.reset_assignments(group, shown(error))
            reason = f"its assignment could not be stored: {error.name}"
            self._rebalancer.run_later(lambda: self._rebalancer.rebalance_or_complete(group, reason))
            return
        for member in group.members.values():
            member.assignment = assignment.get(member.member_id, b"")
        group.move_to(State.STABLE, self._rebalancer.clock.now_ms())
        self._rebalancer.metrics.rebalances_completed += 1
        for member in list(group.members.values()):
            if group.answer_sync(member, self._assignment(group, member)):
                # A session that ended while this waited was let pass, and nobody watches it since.
                member.session.arm(member.session_timeout_ms)

    @staticmethod
    def _assignment(group: ClassicGroup, member: Member) -> Message:
        return {
            "error_code": Error.NONE,
            "protocol_type": group.protocol_type,
            "protocol_name": group.protocol,
            "assignment": member.assignment,
        }

    # -- Heartbeat ------------------------------------------------------------------------------------------------------------------

    def heartbeat(self, request: Message) -> Error:
        """O(1)."""
        self._rebalancer.metrics.heartbeats += 1
        group = self._groups.get(request["group_id"])
        if group is None:
            return Error.UNKNOWN_MEMBER_ID
        if group.state is State.DEAD:
            return Error.COORDINATOR_NOT_AVAILABLE
        try:
            member = group.check_member(request["member_id"], request.get("group_instance_id"))
        except KafkaError as failure:
            return failure.code
        if request["generation_id"] != group.generation:
            return Error.ILLEGAL_GENERATION
        member.session.arm(member.session_timeout_ms)
        return Error.REBALANCE_IN_PROGRESS if group.state is State.PREPARING_REBALANCE else Error.NONE

    # -- LeaveGroup -----------------------------------------------------------------------------------------------------------------

    def leave(self, request: Message) -> Result:
        """Members by member id, by both ids, or by instance id alone (an administrator's way to remove a static member)."""
        identities: list[Message] = request["members"]
        group = self._groups.get(request["group_id"])
        if group is not None and group.state is State.DEAD:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
        responses: list[Message] = []
        left = 0
        for identity in identities:
            error = Error.UNKNOWN_MEMBER_ID if group is None else self._leave_one(group, identity)
            left += error is Error.NONE
            responses.append(
                {"member_id": identity["member_id"], "group_instance_id": identity.get("group_instance_id"), "error_code": error}
            )
        result = Result()
        if group is not None and left:
            self._rebalancer.metrics.leaves += left
            if group.state in {State.STABLE, State.COMPLETING_REBALANCE}:
                result = self._rebalancer.rebalance_or_complete(group, f"{left} members left")
            elif group.state is State.PREPARING_REBALANCE:
                result = self._rebalancer.complete_if_joined(group)
        result.response = {"error_code": Error.NONE, "members": responses}
        return result

    def _leave_one(self, group: ClassicGroup, identity: Message) -> Error:
        member_id: str = identity["member_id"]
        instance_id = identity.get("group_instance_id")
        if member_id == NO_MEMBER:
            member_id = group.static_members.get(instance_id, NO_MEMBER) if instance_id is not None else NO_MEMBER
            if member_id == NO_MEMBER:
                return Error.UNKNOWN_MEMBER_ID
        elif member_id in group.pending_joins:
            group.drop_pending_join(member_id)
            return Error.NONE
        else:
            try:
                group.check_member(member_id, instance_id)
            except KafkaError as failure:
                return failure.code
        log.info("group %s: member %s leaves (%s)", group.label, printable(member_id), printable(identity.get("reason") or "no reason"))
        group.dismiss(group.members[member_id], Error.UNKNOWN_MEMBER_ID)
        group.remove(member_id)
        return Error.NONE

    # -- administration -------------------------------------------------------------------------------------------------------------

    def describe(self, group_id: str, version: int, *, is_consumer: bool = False) -> Message:
        """One group of a DescribeGroups response of `version`. `is_consumer`: there is a consumer group of that id."""
        group = self._groups.get(group_id)
        if group is not None:
            return group.describe()
        response: Message = {"group_id": group_id, "group_state": State.DEAD.value}
        if version >= 6:
            what = "is not a classic group" if is_consumer else "not found"
            response |= {"error_code": Error.GROUP_ID_NOT_FOUND, "error_message": f"Group {group_id} {what}."}
        return response

    def listed(self, states: set[str], types: set[str]) -> list[Message]:
        """ListGroups entries of the groups in these states and of these types (lower case; empty: all)."""
        if types and "classic" not in types:
            return []
        return [
            {
                "group_id": group.group_id,
                "protocol_type": group.protocol_type or "",
                "group_state": group.state.value,
                "group_type": "classic",
            }
            for group in self._groups.values()
            if not states or group.state.value.lower() in states
        ]

    def check_delete(self, group_id: str) -> ClassicGroup:
        """The group, if it may be deleted: KafkaError GROUP_ID_NOT_FOUND or NON_EMPTY_GROUP if not."""
        group = self._groups.get(group_id)
        if group is None or group.state is State.DEAD:
            raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
        if group.state is not State.EMPTY:
            raise KafkaError(Error.NON_EMPTY_GROUP)
        return group

    # -- the log --------------------------------------------------------------------------------------------------------------------

    def replay(self, record: GroupRecord) -> None:
        """Applies a record from the log. Of a running coordinator's own records only tombstones come here: its state is ahead of others."""
        group_id, value = record
        self._rebalancer.forget(group_id)
        if value is None:
            return
        group = self._rebalancer.new_group(group_id)
        timestamp = value["current_state_timestamp"]
        group.state_ms = None if timestamp == -1 else timestamp
        group.generation = value["generation"]
        group.protocol_type = value["protocol_type"] or None
        group.protocol = value["protocol"]
        group.leader_id = value["leader"]
        group.stored = True
        for member in value["members"]:
            group.add(
                Member(
                    member["member_id"],
                    member["group_instance_id"],
                    member["client_id"],
                    member["client_host"],
                    member["rebalance_timeout"],
                    member["session_timeout"],
                    value["protocol_type"],
                    [(value["protocol"] or "", member["subscription"])],
                    self._rebalancer.session_timer(group_id, member["member_id"]),
                    member["assignment"],
                )
            )
        if group.members:
            group.state = State.STABLE
        group.find_subscribed_topics()
        self._groups[group_id] = group

    def on_loaded(self) -> list[Result]:
        """All has been read: members have to heartbeat from now on."""
        results = []
        for group in list(self._groups.values()):
            for member in group.members.values():
                member.session.arm(member.session_timeout_ms)
            if len(group.members) > self._rebalancer.settings.group_size_max:
                results.append(self._rebalancer.prepare(group, "more members than group.max.size"))
        return results

    def unload(self) -> None:
        """This broker stops coordinating these groups (or starts over): whoever waits has to look for the coordinator again."""
        for group in self._groups.values():
            group.move_to(State.DEAD, self._rebalancer.clock.now_ms())
            group.disarm()
            for member in list(group.members.values()):
                group.dismiss(member, Error.NOT_COORDINATOR, member.member_id)
        self._groups.clear()
