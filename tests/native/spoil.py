"""Batches with something wrong, by chance: what the compiled check is compared on with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.records import HEADER_BYTES, Codec, build_batch
from tests.native import outside
from tests.native.batches import FIELDS, HOUR, NOW, Rules, random_records, remake

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

_BITS = {"base_offset": 63, "length": 31, "leader_epoch": 31, "magic": 7, "crc": 32, "attributes": 15, "last_offset_delta": 31}
_BITS |= {"base_timestamp": 63, "max_timestamp": 63, "producer_id": 63, "producer_epoch": 15, "base_sequence": 31, "count": 31}
_NEAR = (-2, -1, 0, 1, 2, 3, 4, 8, 16, 32, 48, 0x7F)


def spoil_bytes(chance: random.Random, data: bytes) -> bytes:
    """A few bits, bytes or stretches of it changed, lost, doubled or exchanged."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        if not made:
            break
        at = chance.randrange(len(made))
        to = min(len(made), at + chance.choice([1, 1, 2, 7, 40]))
        match chance.randrange(7):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            case 2:
                del made[at:to]
            case 3:
                made[at:at] = made[at:to]
            case 4:
                made[at:at] = chance.randbytes(to - at)
            case 5:
                del made[at:]
            case _:
                made[at] = (made[at] + chance.choice([-2, -1, 1, 2])) % 256
    return bytes(made)


def _spoil_header(chance: random.Random, data: bytes | bytearray) -> bytearray:
    name = chance.choice(FIELDS)
    bits = _BITS[name]
    value = chance.choice(_NEAR) if chance.random() < 0.7 else chance.getrandbits(bits)
    if name.endswith("timestamp"):
        value = chance.choice([-2, -1, 0, NOW, NOW + HOUR + 1, 2**63 - 1, -(2**63)])
    if name == "crc":
        value %= 2**32
    return remake(data, **{name: max(-(2**bits), min(value, 2**bits - 1 if name != "crc" else value))})


def spoiled(chance: random.Random, count: int) -> Iterator[tuple[bytes, Rules]]:
    """`count` batches, half of them with right CRCs around wrong records, and the rules to judge them by."""
    for _ in range(count):
        records = random_records(chance, chance.choice([1, 2, 3, 10, 200]), chance.choice([5, 60, 400]))
        codec = chance.choice(list(Codec))
        whole = build_batch(records, timestamp_ms=NOW)
        body = whole[HEADER_BYTES:]
        way = chance.randrange(6)
        if way <= 1:
            body = spoil_bytes(chance, body)
        packed = outside.compress(body, codec)
        if way == 2:
            packed = spoil_bytes(chance, packed)
        data = remake(whole, body=packed, attributes=int(codec))
        if way in {3, 4}:
            data = _spoil_header(chance, data)
        if way == 5:
            data = bytearray(spoil_bytes(chance, bytes(data)))
        yield (
            bytes(data),
            Rules(
                log_append_time=chance.random() < 0.2,
                keys_required=chance.random() < 0.2,
                before_max_ms=chance.choice([2**63 - 1, 5000]),
            ),
        )
