"""The records that say what consumer groups are, made from their state and read back into it (KIP-848)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastlog.coordinator.consumer_group import LEAVE, NOTHING, Classic, ConsumerGroup, Member, MemberState, Message, Owned, Resolved
from fastlog.coordinator.records import ConsumerKind, ConsumerRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from fastlog.coordinator.assignors import Assignment


def group_record(group_id: str, epoch: int, metadata_hash: int) -> ConsumerRecord:
    return ConsumerRecord(ConsumerKind.GROUP, group_id, "", {"epoch": epoch, "metadata_hash": metadata_hash})


def member_record(group_id: str, member: Member) -> ConsumerRecord:
    classic = member.classic
    return ConsumerRecord(
        ConsumerKind.MEMBER,
        group_id,
        member.member_id,
        {
            "instance_id": member.instance_id,
            "rack_id": member.rack_id,
            "client_id": member.client_id,
            "client_host": member.client_host,
            "subscribed_topic_names": sorted(member.topics),
            "subscribed_topic_regex": member.regex,
            "rebalance_timeout_ms": member.rebalance_timeout_ms,
            "server_assignor": member.assignor,
            "classic_member_metadata": None
            if classic is None
            else {
                "session_timeout_ms": classic.session_timeout_ms,
                "supported_protocols": [{"name": name, "metadata": metadata} for name, metadata in classic.protocols],
            },
        },
    )


def target_record(group_id: str, epoch: int, at_ms: int) -> ConsumerRecord:
    return ConsumerRecord(ConsumerKind.TARGET, group_id, "", {"assignment_epoch": epoch, "assignment_timestamp": at_ms})


def member_target_record(group_id: str, member_id: str, target: Assignment) -> ConsumerRecord:
    partitions = [{"topic_id": topic_id, "partitions": sorted(indexes)} for topic_id, indexes in target.items()]
    return ConsumerRecord(ConsumerKind.TARGET_MEMBER, group_id, member_id, {"topic_partitions": partitions})


def current_record(group_id: str, member: Member) -> ConsumerRecord:
    return ConsumerRecord(
        ConsumerKind.CURRENT,
        group_id,
        member.member_id,
        {
            "member_epoch": member.epoch,
            "previous_member_epoch": member.previous_epoch,
            "state": int(member.state),
            "assigned_partitions": _owned_value(member.assigned),
            "partitions_pending_revocation": _owned_value(member.revoking),
        },
    )


def regex_record(group_id: str, regex: str, resolved: Resolved) -> ConsumerRecord:
    value: Message = {"topics": sorted(resolved.topics), "version": resolved.version, "timestamp": resolved.at_ms}
    return ConsumerRecord(ConsumerKind.REGEX, group_id, regex, value)


def regex_tombstone(group_id: str, regex: str) -> ConsumerRecord:
    return ConsumerRecord(ConsumerKind.REGEX, group_id, regex, None)


def member_tombstones(group_id: str, member_id: str) -> list[ConsumerRecord]:
    kinds = (ConsumerKind.CURRENT, ConsumerKind.TARGET_MEMBER, ConsumerKind.MEMBER)
    return [ConsumerRecord(kind, group_id, member_id, None) for kind in kinds]


def group_tombstones(group: ConsumerGroup, member_ids: Iterable[str] | None = None) -> list[ConsumerRecord]:
    """In the order that Kafka's replay asks for. `member_ids`: instead of those of the group's members."""
    group_id = group.group_id
    members = list(group.members if member_ids is None else member_ids)

    def of_members(kind: ConsumerKind) -> list[ConsumerRecord]:
        return [ConsumerRecord(kind, group_id, member_id, None) for member_id in members]

    return [
        *of_members(ConsumerKind.CURRENT),
        *of_members(ConsumerKind.TARGET_MEMBER),
        ConsumerRecord(ConsumerKind.TARGET, group_id, "", None),
        *of_members(ConsumerKind.MEMBER),
        *(regex_tombstone(group_id, regex) for regex in group.resolved),
        ConsumerRecord(ConsumerKind.PARTITIONS, group_id, "", None),
        ConsumerRecord(ConsumerKind.GROUP, group_id, "", None),
    ]


def whole_group(group: ConsumerGroup) -> list[ConsumerRecord]:
    """All that makes the group what it is."""
    group_id = group.group_id
    return [
        *(member_record(group_id, member) for member in group.members.values()),
        group_record(group_id, group.epoch, group.metadata_hash),
        *(member_target_record(group_id, member_id, group.targets.get(member_id, {})) for member_id in group.members),
        target_record(group_id, group.assignment_epoch, group.assignment_ms),
        *(current_record(group_id, member) for member in group.members.values()),
    ]


def apply(group: ConsumerGroup, record: ConsumerRecord) -> None:
    """Makes the group what the record says; the end of the group itself is its owner's business."""
    value = record.value
    match record.kind:
        case ConsumerKind.GROUP:
            if value is not None:
                group.epoch = value["epoch"]
                group.metadata_hash = value["metadata_hash"]
        case ConsumerKind.PARTITIONS:
            group.has_partition_record = value is not None
        case ConsumerKind.MEMBER:
            if value is None:
                group.remove(record.of)
            else:
                group.put(_with_metadata(group.members.get(record.of) or Member(record.of), value))
        case ConsumerKind.TARGET:
            group.assignment_epoch = -1 if value is None else value["assignment_epoch"]
            group.assignment_ms = 0 if value is None else value["assignment_timestamp"]
        case ConsumerKind.TARGET_MEMBER:
            if value is None:
                group.targets.pop(record.of, None)
            else:
                group.targets[record.of] = {
                    topic["topic_id"]: frozenset(topic["partitions"]) for topic in value["topic_partitions"] if topic["partitions"]
                }
        case ConsumerKind.CURRENT:
            member = group.members.get(record.of)
            if value is not None:
                group.put(_with_current(member or Member(record.of), value))
            elif member is not None:
                group.put(replace(member, epoch=LEAVE, previous_epoch=LEAVE, assigned=NOTHING, revoking=NOTHING))
        case ConsumerKind.REGEX:
            resolved = None if value is None else Resolved(frozenset(value["topics"]), value["version"], value["timestamp"])
            group.resolve(record.of, resolved)


def _with_metadata(member: Member, value: Message) -> Member:
    classic = value["classic_member_metadata"]
    return replace(
        member,
        instance_id=value["instance_id"],
        rack_id=value["rack_id"],
        client_id=value["client_id"],
        client_host=value["client_host"],
        topics=frozenset(value["subscribed_topic_names"]),
        regex=value["subscribed_topic_regex"],
        rebalance_timeout_ms=value["rebalance_timeout_ms"],
        assignor=value["server_assignor"],
        classic=None
        if classic is None
        else Classic(classic["session_timeout_ms"], tuple((each["name"], each["metadata"]) for each in classic["supported_protocols"])),
    )


def _with_current(member: Member, value: Message) -> Member:
    epoch: int = value["member_epoch"]
    return replace(
        member,
        epoch=epoch,
        previous_epoch=value["previous_member_epoch"],
        state=MemberState(value["state"]),
        assigned=_owned(value["assigned_partitions"], epoch),
        revoking=_owned(value["partitions_pending_revocation"], epoch),
    )


def _owned_value(owned: Owned) -> list[Message]:
    return [
        {"topic_id": topic_id, "partitions": list(epochs), "assignment_epochs": list(epochs.values())} for topic_id, epochs in owned.items()
    ]


def _owned(value: list[Message], epoch: int) -> Owned:
    """Records of Kafka 4.2 and before have no epochs: the member's counts then."""
    owned: dict[UUID, dict[int, int]] = {}
    for topic in value:
        partitions, epochs = topic["partitions"], topic.get("assignment_epochs")
        if epochs is None or len(epochs) != len(partitions):
            epochs = [max(epoch, 0)] * len(partitions)
        owned[topic["topic_id"]] = dict(zip(partitions, epochs, strict=True))
    return owned
