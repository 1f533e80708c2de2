"""What consumers of the classic protocol tell each other through the coordinator: subscriptions and assignments, behind their version."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeAlias

from fastlog.protocol.messages import data_versions, decode_data, encode_data

if TYPE_CHECKING:
    from collections.abc import Iterable

Message: TypeAlias = dict[str, Any]

_INT16 = struct.Struct(">h")


def decode_subscription(data: bytes) -> Message:
    """ConsumerProtocolSubscription. Raises ValueError."""
    return _decode("consumer_protocol_subscription", data)


def decode_assignment(data: bytes) -> Message:
    """ConsumerProtocolAssignment. Raises ValueError."""
    return _decode("consumer_protocol_assignment", data)


def encode_assignment(version: int, partitions: Iterable[Message]) -> bytes:
    """ConsumerProtocolAssignment in a version (or the newest known, if that is older). `partitions`: its assigned partitions."""
    version = min(version, data_versions("consumer_protocol_assignment")[1])
    fields = {"assigned_partitions": list(partitions), "user_data": None}
    return _INT16.pack(version) + encode_data("consumer_protocol_assignment", version, fields)


def version_of(data: bytes) -> int:
    """Raises ValueError."""
    if len(data) < _INT16.size or (version := _INT16.unpack_from(data)[0]) < 0:
        raise ValueError("no version")
    return int(version)


def _decode(name: str, data: bytes) -> Message:
    return decode_data(name, min(version_of(data), data_versions(name)[1]), data[_INT16.size :])
