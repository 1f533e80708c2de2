"""What a ConsumerGroupHeartbeat must be like before anybody looks at its group (Kafka 4.3's rules)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.coordinator.consumer_group import JOIN, LEAVE, LEAVE_STATIC, Message
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEMBER_ID_FIRST = 1  # from this version on the member chooses its id itself


def check_heartbeat(version: int, request: Message, assignors: Sequence[str]) -> None:
    """Raises KafkaError INVALID_REQUEST or UNSUPPORTED_ASSIGNOR."""
    epoch: int = request["member_epoch"]
    if version >= _MEMBER_ID_FIRST or epoch > JOIN or epoch == LEAVE:
        _check_text("MemberId", request["member_id"])
    _check_text("GroupId", request["group_id"])
    _check_text("InstanceId", request["instance_id"])
    _check_text("RackId", request["rack_id"])
    if epoch == JOIN:
        if request["rebalance_timeout_ms"] == -1:
            raise KafkaError(Error.INVALID_REQUEST, "RebalanceTimeoutMs must be provided in first request.")
        if request["topic_partitions"] is None or request["topic_partitions"]:
            raise KafkaError(Error.INVALID_REQUEST, "TopicPartitions must be empty when (re-)joining.")
        if request["subscribed_topic_names"] is None and request["subscribed_topic_regex"] is None:
            message = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
            raise KafkaError(Error.INVALID_REQUEST, message)
    elif epoch == LEAVE_STATIC:
        if request["instance_id"] is None:
            raise KafkaError(Error.INVALID_REQUEST, "InstanceId can't be null.")
    elif epoch < LEAVE_STATIC:
        raise KafkaError(Error.INVALID_REQUEST, "MemberEpoch is invalid.")
    wanted: str | None = request["server_assignor"]
    if wanted is not None and wanted not in assignors:
        known = ", ".join(assignors)
        raise KafkaError(Error.UNSUPPORTED_ASSIGNOR, f"ServerAssignor {wanted} is not supported. Supported assignors: {known}.")


def _check_text(name: str, value: str | None) -> None:
    if value is not None and not value.strip():
        raise KafkaError(Error.INVALID_REQUEST, f"{name} can't be empty.")
