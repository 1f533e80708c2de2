"""Metrics that clients push (KIP-714): no subscription asks for any, so what is pushed all the same is taken and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from uuid import UUID

COMPRESSION_TYPES: Final = (4, 3, 1, 2)
"""zstd, lz4, gzip, snappy: the one that is liked best first."""
PUSH_INTERVAL_MS: Final = 300_000


def subscription_id(client: UUID) -> int:
    """Of the empty subscription, for this client."""
    number = crc32(client.bytes)
    return number - (1 << 32) if number >> 31 else number
