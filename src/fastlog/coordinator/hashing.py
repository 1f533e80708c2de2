"""Which partition of `__consumer_offsets` a group lives in."""

from __future__ import annotations

from functools import lru_cache


def java_string_hash(text: str) -> int:
    """`String.hashCode()` of Java (over UTF-16 code units, int32 overflow), as an unsigned 32-bit number."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for index in range(0, len(units), 2):
        value = (31 * value + (units[index] << 8 | units[index + 1])) & 0xFFFFFFFF
    return value


@lru_cache(maxsize=16_384)
def partition_of(group_id: str, partitions: int) -> int:
    """The partition of a group or transactional id among `partitions` (> 0), as Kafka's `Utils.abs` places it (0: the least int32)."""
    value = java_string_hash(group_id)
    return min(value, (1 << 32) - value) % (1 << 31) % partitions
