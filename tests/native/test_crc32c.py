"""CRC-32C: published values, and every kernel that this CPU has against the bitwise definition and an outside implementation."""

import random

import crc32c as outside
import pytest

from fastlog.native.crc32c import checksum, kernels

# RFC 3720, appendix B.4, and the check value of the CRC catalogue ("123456789").
KNOWN = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex("01c00000000000000000000000000000140000000000040000000014000000182800000000000000" + "0200000000000000"),
        0xD9963A56,
    ),
]


def bitwise(data: bytes, crc: int = 0) -> int:
    """The definition, a bit at a time."""
    state = crc ^ 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize(("data", "crc"), KNOWN)
def test_known_answers(kernel: str, data: bytes, crc: int) -> None:
    assert checksum(data, 0, kernel) == crc


def test_the_definition_itself() -> None:
    assert all(bitwise(data) == crc for data, crc in KNOWN)


@pytest.mark.parametrize("kernel", kernels())
def test_every_length_and_alignment(kernel: str) -> None:
    data = random.Random(1).randbytes(1700)
    for n in range(1600):
        at = n % 64
        assert checksum(memoryview(data)[at : at + n], 0x12345678, kernel) == outside.crc32c(data[at : at + n], 0x12345678), n
    assert checksum(data, 5, kernel) == bitwise(data, 5)


@pytest.mark.parametrize("kernel", kernels())
def test_long_inputs(kernel: str) -> None:
    chance = random.Random(2)
    data = chance.randbytes(300_000)
    for _ in range(60):
        n, at = chance.randrange(300_000), chance.randrange(64)
        assert checksum(memoryview(data)[at : at + n], 0, kernel) == outside.crc32c(data[at : at + n])


@pytest.mark.parametrize("kernel", kernels())
def test_continues(kernel: str) -> None:
    data = random.Random(3).randbytes(20_000)
    for cut in (0, 1, 7, 8, 511, 512, 4095, 12_288, 19_999, 20_000):
        assert checksum(data[cut:], checksum(data[:cut], 0, kernel), kernel) == checksum(data)


def test_one_flipped_bit_always_shows() -> None:
    data = bytearray(random.Random(4).randbytes(900))
    right = checksum(data)
    for bit in range(0, 7200, 7):
        data[bit // 8] ^= 1 << bit % 8
        assert checksum(data) != right
        data[bit // 8] ^= 1 << bit % 8


def test_the_table_is_always_there_and_unknown_kernels_are_not() -> None:
    assert kernels()[-1] == "table"
    with pytest.raises(ValueError, match="nonesuch"):
        checksum(b"", 0, "nonesuch")
