"""Members of consumer groups that use the classic protocol: their joins, syncs, heartbeats and leaves (KIP-848, Kafka 4.3's rules).

Such a member's generation is its member epoch, and its target assignment is the broker's, whatever it proposes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.classic import CONSUMER, NO_MEMBER, Message, Reply
from fastlog.coordinator.consumer_group import Classic, ConsumerGroup, Member, MemberState
from fastlog.coordinator.consumer_heartbeat import RegexChange, new_member_id, static_member
from fastlog.coordinator.embedded import decode_subscription, encode_assignment, version_of
from fastlog.coordinator.failures import shown
from fastlog.coordinator.operation import Result
from fastlog.coordinator.printable import printable
from fastlog.coordinator.rebalance import protocols_of, reason_of
from fastlog.coordinator.reconciliation import Target
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.coordinator.consumer_heartbeat import Heartbeats
    from fastlog.coordinator.consumers import Consumers
    from fastlog.coordinator.operation import Client
    from fastlog.coordinator.records import CoordinatorRecord

log = logging.getLogger("fastlog.groups")

_MEMBER_ID_FIRST = 4  # as in `joining`


class ClassicMembers:
    """Requests of the classic protocol to consumer groups with members."""

    def __init__(self, consumers: Consumers, heartbeats: Heartbeats) -> None:
        self._consumers = consumers
        self._heartbeats = heartbeats
        self._topology = consumers.topology

    # -- JoinGroup ------------------------------------------------------------------------------------------------------------------

    def join(self, client: Client, group: ConsumerGroup, request: Message, reply: Reply) -> Result:
        """Answers through `reply` when the member's new state is in the log."""
        self._consumers.metrics.joins += 1
        try:
            return self._join(client, group, request, reply)
        except KafkaError as failure:
            reply({"error_code": failure.code, "member_id": request["member_id"]})
            return Result()

    def _join(self, client: Client, group: ConsumerGroup, request: Message, reply: Reply) -> Result:
        heartbeats, consumers, group_id = self._heartbeats, self._consumers, group.group_id
        instance_id: str | None = request.get("group_instance_id")
        unknown = request["member_id"] == NO_MEMBER
        member_id = new_member_id() if unknown else request["member_id"]
        protocols = protocols_of(request)
        heartbeats.check_room(group, member_id)
        if not group.supports_classic(request["protocol_type"], [name for name, _ in protocols]):
            raise KafkaError(Error.INCONSISTENT_GROUP_PROTOCOL)
        if unknown and instance_id is None and client.version >= _MEMBER_ID_FIRST:
            reply({"error_code": Error.MEMBER_ID_REQUIRED, "member_id": member_id})
            return Result()
        records: list[CoordinatorRecord] = []
        if instance_id is None:
            member = group.members.get(member_id) or Member(member_id)
        elif unknown:
            member = heartbeats.joined_static(group, member_id, instance_id, records, classic=True)
        else:
            member = static_member(group, member_id, instance_id)
        replaced = group.static_member(instance_id)
        downgrade = replaced is not None and consumers.migration.replaces_last(group, replaced)
        try:
            subscription = decode_subscription(protocols[0][1])
        except ValueError:
            raise KafkaError(Error.UNKNOWN_SERVER_ERROR, "malformed embedded consumer protocol") from None
        updated = replace(
            member,
            instance_id=member.instance_id if instance_id is None else instance_id,
            rack_id=subscription["rack_id"] or member.rack_id,
            rebalance_timeout_ms=request["rebalance_timeout_ms"],
            topics=frozenset(subscription["topics"]),
            regex="",
            client_id=client.client_id,
            client_host=client.host,
            classic=Classic(request["session_timeout_ms"], tuple(protocols)),
        )
        log.info(
            "group %s: member %s joins with the classic protocol (%s)", group.label, printable(member_id), printable(reason_of(request))
        )
        changed = heartbeats.subscription_changed(group, member, updated, records)
        changed |= heartbeats.regex_changed(group, member, updated, records) is not RegexChange.NONE
        epoch = group.epoch
        if changed or not group.refreshed:
            epoch = heartbeats.refresh(group, member, updated, records, changed=changed)
        owned = [
            {"topic_id": topic.topic_id, "partitions": each["partitions"]}
            for each in subscription["owned_partitions"]
            if (topic := self._topology.get(each["topic"])) is not None
        ]
        others = (each for each in group.members.values() if each is not replaced)
        if downgrade and not (group.assignment_epoch == epoch and all(each.is_reconciled_to(epoch) for each in others)):
            consumers.migration.downgrade_with(group, updated, records, rebalance=True)
        else:
            if downgrade:
                target = Target(group.assignment_epoch, group.target_of(updated))
            else:
                target = heartbeats.target(group, epoch, member, updated, records)
            updated = heartbeats.reconciled(group, updated, target, owned, records, subscription_changed=changed)
            if downgrade:
                consumers.migration.downgrade_with(group, updated, records, rebalance=False)
        response = {
            "error_code": Error.NONE,
            "member_id": member_id,
            "generation_id": updated.epoch,
            "protocol_type": CONSUMER,
            "protocol_name": protocols[0][0],
        }
        done = partial(self._joined, group_id, updated, response, reply, downgrade=downgrade)
        return Result(records, replay=not downgrade, done=done, at_once=True)

    def _joined(self, group_id: str, member: Member, response: Message, reply: Reply, error: Error, *, downgrade: bool) -> None:
        """The member is in the log, or could not be written."""
        if error is not Error.NONE:
            reply({"error_code": shown(error), "member_id": response["member_id"]})
            return
        self._consumers.stop_join(group_id, member.member_id)
        if not downgrade:
            assert member.classic is not None
            self._consumers.watch_session(group_id, member.member_id, member.classic.session_timeout_ms)
            self._consumers.watch_sync(group_id, member.member_id, member.rebalance_timeout_ms)
        reply(response)

    # -- SyncGroup ------------------------------------------------------------------------------------------------------------------

    def sync(self, group: ConsumerGroup, request: Message, reply: Reply) -> Result:
        self._consumers.metrics.syncs += 1
        try:
            member, classic = self._member(group, request)
            self._check_protocol(classic, request)
            if group.assignment_epoch > member.epoch and member.state is not MemberState.UNREVOKED_PARTITIONS:
                self._consumers.watch_join(group.group_id, member)
                raise KafkaError(Error.REBALANCE_IN_PROGRESS)
            version = version_of(classic.protocols[0][1])
        except KafkaError as failure:
            reply({"error_code": failure.code})
            return Result()
        self._consumers.stop_sync(group.group_id, member.member_id)
        self._consumers.watch_session(group.group_id, member.member_id, classic.session_timeout_ms)
        partitions = [
            {"topic": topic.name, "partitions": sorted(indexes)}
            for topic_id, indexes in member.assigned.items()
            if (topic := self._topology.by_id(topic_id)) is not None
        ]
        reply(
            {
                "error_code": Error.NONE,
                "protocol_type": request.get("protocol_type"),
                "protocol_name": request.get("protocol_name"),
                "assignment": encode_assignment(version, partitions),
            }
        )
        return Result()

    @staticmethod
    def _check_protocol(classic: Classic, request: Message) -> None:
        for asked, actual in ((request.get("protocol_type"), CONSUMER), (request.get("protocol_name"), classic.protocols[0][0])):
            if asked is not None and asked != actual:
                raise KafkaError(Error.INCONSISTENT_GROUP_PROTOCOL)

    @staticmethod
    def _member(group: ConsumerGroup, request: Message) -> tuple[Member, Classic]:
        """Who asks. Raises KafkaError."""
        instance_id = request.get("group_instance_id")
        member_id: str = request["member_id"]
        member = group.member(member_id) if instance_id is None else static_member(group, member_id, instance_id)
        if member.classic is None:
            raise KafkaError(Error.UNKNOWN_MEMBER_ID)
        if request["generation_id"] != member.epoch:
            raise KafkaError(Error.ILLEGAL_GENERATION)
        return member, member.classic

    # -- Heartbeat ------------------------------------------------------------------------------------------------------------------

    def heartbeat(self, group: ConsumerGroup, request: Message) -> Error:
        self._consumers.metrics.heartbeats += 1
        try:
            member, classic = self._member(group, request)
        except KafkaError as failure:
            return failure.code
        self._consumers.watch_session(group.group_id, member.member_id, classic.session_timeout_ms)
        if (
            member.epoch < group.assignment_epoch
            or member.state is MemberState.UNREVOKED_PARTITIONS
            or (member.state is MemberState.UNRELEASED_PARTITIONS and not group.waits_for_others(member))
        ):
            self._consumers.watch_join(group.group_id, member)
            return Error.REBALANCE_IN_PROGRESS
        return Error.NONE

    # -- LeaveGroup -----------------------------------------------------------------------------------------------------------------

    def leave(self, group: ConsumerGroup, request: Message) -> Result:
        """Members of either protocol, named as in Membership.leave."""
        responses: list[Message] = []
        leaving: dict[str, Member] = {}
        for identity in request["members"]:
            error = Error.NONE
            try:
                member = self._leaving(group, identity)
                leaving[member.member_id] = member
                reason = printable(identity.get("reason") or "no reason")
                log.info("group %s: member %s leaves (%s)", group.label, printable(member.member_id), reason)
            except KafkaError as failure:
                error = failure.code
            responses.append(
                {"member_id": identity["member_id"], "group_instance_id": identity.get("group_instance_id"), "error_code": error}
            )
        self._consumers.metrics.leaves += len(leaving)
        return self._consumers.fence(group, list(leaving.values()), {"error_code": Error.NONE, "members": responses})

    @staticmethod
    def _leaving(group: ConsumerGroup, identity: Message) -> Member:
        instance_id = identity.get("group_instance_id")
        if instance_id is None:
            return group.member(identity["member_id"])
        member = group.static_member(instance_id)
        if member is None:
            raise KafkaError(Error.UNKNOWN_MEMBER_ID)
        return member if identity["member_id"] == NO_MEMBER else static_member(group, identity["member_id"], instance_id)
