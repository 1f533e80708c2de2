"""What the coordinator writes to `__consumer_offsets`, in Kafka's own key and value formats, as Kafka 4.3 writes them.

A key begins with an int16 that says its kind (0 and 1: a committed offset, 2: a classic group, 3-8 and 16: a consumer group), a value
with the version of its schema; a null value is a tombstone. Other kinds belong to other group types and are left alone.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from fastlog.protocol.messages import decode_data, encode_data

Message: TypeAlias = dict[str, Any]

NO_TOPIC_ID: Final = UUID(int=0)

_OFFSET_KEY: Final = 1
_GROUP_KEY: Final = 2
_OFFSET_VALUE: Final = 4
_OFFSET_VALUE_EXPIRING: Final = 1  # the only version with an expiry of its own (OffsetCommit v2-v4 with a retention time)
_GROUP_VALUE: Final = 3
_GROUP_VALUE_MAX: Final = 4
_INT16 = struct.Struct(">h")


class OffsetValue(NamedTuple):
    """A committed offset. Times are wall clock milliseconds; -1: none (leader epoch too)."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_ms: int
    expire_ms: int
    topic_id: UUID


class OffsetRecord(NamedTuple):
    """A commit of one partition; `value` None deletes it."""

    group: str
    topic: str
    partition: int
    value: OffsetValue | None


class GroupRecord(NamedTuple):
    """A group's state (fields of GroupMetadataValue); `value` None deletes the group."""

    group: str
    value: Message | None


class ConsumerKind(IntEnum):
    """Kinds of records about consumer groups (KIP-848). A group's, a member's, or a regular expression's."""

    GROUP = 3
    PARTITIONS = 4  # Kafka 4.0's; only its end is written
    MEMBER = 5
    TARGET = 6
    TARGET_MEMBER = 7
    CURRENT = 8
    REGEX = 16


_CONSUMER: Final = {
    ConsumerKind.GROUP: ("consumer_group_metadata", ""),
    ConsumerKind.PARTITIONS: ("consumer_group_partition_metadata", ""),
    ConsumerKind.MEMBER: ("consumer_group_member_metadata", "member_id"),
    ConsumerKind.TARGET: ("consumer_group_target_assignment_metadata", ""),
    ConsumerKind.TARGET_MEMBER: ("consumer_group_target_assignment_member", "member_id"),
    ConsumerKind.CURRENT: ("consumer_group_current_member_assignment", "member_id"),
    ConsumerKind.REGEX: ("consumer_group_regular_expression", "regular_expression"),
}
"""Name of the schema, and of the key's field behind the group id."""


class ConsumerRecord(NamedTuple):
    """Something about a consumer group (fields of the kind's value); `value` None deletes it. `of`: the member or regular expression."""

    kind: ConsumerKind
    group: str
    of: str
    value: Message | None


CoordinatorRecord: TypeAlias = OffsetRecord | GroupRecord | ConsumerRecord


def encode(record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
    """Key and value of a record."""
    if isinstance(record, OffsetRecord):
        key = {"group": record.group, "topic": record.topic, "partition": record.partition}
        encoded_key = _INT16.pack(_OFFSET_KEY) + encode_data("offset_commit_key", _OFFSET_KEY, key)
        value = record.value
        if value is None:
            return encoded_key, None
        version = _OFFSET_VALUE if value.expire_ms == -1 else _OFFSET_VALUE_EXPIRING
        fields = {
            "offset": value.offset,
            "leader_epoch": value.leader_epoch,
            "metadata": value.metadata,
            "commit_timestamp": value.commit_ms,
            "expire_timestamp": value.expire_ms,
            "topic_id": value.topic_id,
        }
        return encoded_key, _INT16.pack(version) + encode_data("offset_commit_value", version, fields)
    if isinstance(record, ConsumerRecord):
        name, of = _CONSUMER[record.kind]
        encoded_key = _INT16.pack(record.kind) + encode_data(
            f"{name}_key", record.kind, {"group_id": record.group} | ({of: record.of} if of else {})
        )
        return encoded_key, None if record.value is None else _INT16.pack(0) + encode_data(f"{name}_value", 0, record.value)
    encoded_key = _INT16.pack(_GROUP_KEY) + encode_data("group_metadata_key", _GROUP_KEY, {"group": record.group})
    if record.value is None:
        return encoded_key, None
    return encoded_key, _INT16.pack(_GROUP_VALUE) + encode_data("group_metadata_value", _GROUP_VALUE, record.value)


def decode(key: bytes, value: bytes | None) -> CoordinatorRecord | None:
    """The record of a key and value from the log; None for a kind that is not ours.

    Raises ValueError when it is ours but can't be read.
    """
    if len(key) < _INT16.size:
        raise ValueError("a key of less than two bytes")
    (kind,) = _INT16.unpack_from(key)
    if kind in {0, _OFFSET_KEY}:
        fields = decode_data("offset_commit_key", kind, key[2:])
        return OffsetRecord(fields["group"], fields["topic"], fields["partition"], None if value is None else _decode_offset(value))
    if kind == _GROUP_KEY:
        fields = decode_data("group_metadata_key", kind, key[2:])
        return GroupRecord(fields["group"], None if value is None else _decode_group(value))
    if kind in _CONSUMER:
        name, of = _CONSUMER[ConsumerKind(kind)]
        fields = decode_data(f"{name}_key", kind, key[2:])
        read = None if value is None else decode_data(f"{name}_value", _version(value, 0), value[2:])
        return ConsumerRecord(ConsumerKind(kind), fields["group_id"], fields[of] if of else "", read)
    return None


def _decode_offset(value: bytes) -> OffsetValue:
    fields = decode_data("offset_commit_value", _version(value, _OFFSET_VALUE), value[2:])
    return OffsetValue(
        fields["offset"],
        fields["leader_epoch"],
        fields["metadata"],
        fields["commit_timestamp"],
        fields["expire_timestamp"],
        fields["topic_id"],
    )


def _decode_group(value: bytes) -> Message:
    fields = decode_data("group_metadata_value", _version(value, _GROUP_VALUE_MAX), value[2:])
    for member in fields["members"]:
        if member["rebalance_timeout"] == -1:  # version 0 has none
            member["rebalance_timeout"] = member["session_timeout"]
    return fields


def _version(value: bytes, newest: int) -> int:
    if len(value) < _INT16.size:
        raise ValueError("a value of less than two bytes")
    version: int = _INT16.unpack_from(value)[0]
    if not 0 <= version <= newest:
        raise ValueError(f"a value of version {version}")
    return version
