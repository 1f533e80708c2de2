"""Groups are placed where Kafka places them; the numbers are Java's."""

import pytest

from fastlog.coordinator.hashing import java_string_hash, partition_of


@pytest.mark.parametrize(
    ("text", "code", "partition"),
    [
        ("", 0, 0),
        ("abc", 96354, 4),
        ("my-group", -1906497762, 12),
        ("orders-app", 772757305, 5),
        ("グループ", 383750870, 20),
        ("emoji-\U0001f600", 1164511306, 6),
        ("console-consumer-12345", 158455506, 6),
        ("polygenelubricants", -2147483648, 0),
    ],
)
def test_as_java(text: str, code: int, partition: int) -> None:
    assert java_string_hash(text) == code & 0xFFFFFFFF
    assert partition_of(text, 50) == partition
