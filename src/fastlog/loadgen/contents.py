"""Records made and compressed beforehand, for batches that are compressed: by the codecs' own libraries, as the Java client does it."""

from __future__ import annotations

import random

from fastlog.loadgen.wire import uvarint
from fastlog.native.compression import compress

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
TRIES = 400


def varint(value: int) -> bytes:
    """Zigzag."""
    return uvarint(value << 1 if value >= 0 else (-value << 1) - 1)


def records_section(records: int, record_bytes: int, seed: int) -> bytes:
    """What stands behind a batch's header, not compressed. Half of each value is new, so that every codec gets it to about half."""
    chance = random.Random(seed)
    made = bytearray()
    for index in range(records):
        half = chance.randbytes(-(-record_bytes // 2))
        body = b"\0" + varint(0) + varint(index) + varint(-1) + varint(record_bytes) + (half + half)[:record_bytes] + varint(0)
        made += varint(len(body)) + body
    return bytes(made)


def sections(codec: str, records: int, record_bytes: int, fillings: int, seed: int) -> list[bytes]:
    """So many different ones, compressed, all of one size (requests are of one size): contents are drawn until there are.

    Raises ValueError when chance doesn't give so many.
    """
    by_size: dict[int, list[bytes]] = {}
    for i in range(TRIES):
        made = compress(records_section(records, record_bytes, seed * TRIES + i), CODECS[codec])
        alike = by_size.setdefault(len(made), [])
        alike.append(made)
        if len(alike) == fillings:
            return alike
    raise ValueError(f"no {fillings} contents that {codec} makes equally large: ask for fewer fillings")
