"""Compression: every way that clients write it, streams that are broken, and bombs; against the libraries called directly."""

import gzip
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastlog.native import batchtool as native
from fastlog.native.compression import compress, decompress
from fastlog.protocol.errors import Error
from fastlog.protocol.records import Codec
from tests.native import outside
from tests.native.batches import NOW, of_records, record, remake, simple

CODECS = [Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD]
SIZES = [0, 1, 15, 60, 61, 64, 65, 1000, 32_767, 32_768, 32_769, 65_536, 131_071, 131_072, 131_073, 400_000]


def text(n: int, seed: int = 0) -> bytes:
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randrange(2, 12)).hex().encode() for _ in range(400)]
    return b" ".join(chance.choices(words, k=n // 6 + 1))[:n]


def contents(n: int) -> list[bytes]:
    return [text(n), random.Random(n).randbytes(n), b"a" * n, (text(997) * (n // 997 + 1))[:n]]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(codec: Codec, size: int) -> None:
    for data in contents(size):
        assert outside.decompress(compress(data, codec), codec) == data
        assert decompress(outside.compress(data, codec), codec) == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("level", [-5, 0, 1, 6, 9, 12, 17, 22])
def test_levels(codec: Codec, level: int) -> None:
    data = text(150_000)
    packed = compress(data, codec, level)
    assert outside.decompress(packed, codec) == data
    assert len(packed) < len(data) * 0.8


WAYS = {
    "snappy, one block (librdkafka)": (Codec.SNAPPY, outside.snappy),
    "snappy in small blocks": (Codec.SNAPPY, lambda d: outside.java_snappy(d, 1000)),
    "snappy in large blocks": (Codec.SNAPPY, lambda d: outside.java_snappy(d, 1 << 20)),
    "lz4 in blocks of 256 KiB": (Codec.LZ4, lambda d: outside.lz4(d, block_size_id=5)),
    "lz4 in blocks of 4 MiB": (Codec.LZ4, lambda d: outside.lz4(d, block_size_id=7)),
    "lz4 with checksums and size": (Codec.LZ4, lambda d: outside.lz4(d, checksums=True, content_size=True)),
    "gzip with a name and a comment": (
        Codec.GZIP,
        lambda d: (
            b"\x1f\x8b\x08\x18" + bytes(6) + b"name\0comment\0" + zlib.compress(d, 9)[2:-4] + struct.pack("<II", zlib.crc32(d), len(d))
        ),
    ),
    "gzip in two members": (Codec.GZIP, lambda d: gzip.compress(d[:20_000]) + gzip.compress(d[20_000:])),
    "gzip, stored": (Codec.GZIP, lambda d: gzip.compress(d, 0)),
    "zstd at its highest": (Codec.ZSTD, lambda d: outside.zstd(d, 22)),
    "zstd at its fastest": (Codec.ZSTD, lambda d: outside.zstd(d, -100)),
    "zstd in two frames and a skipped one": (
        Codec.ZSTD,
        lambda d: outside.zstd(d[:20_000]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + outside.zstd(d[20_000:]),
    ),
}


@pytest.mark.parametrize(("codec", "pack"), WAYS.values(), ids=WAYS.keys())
def test_ways_of_writing_it(codec: Codec, pack) -> None:  # type: ignore[no-untyped-def]
    for size in (1, 30_000, 300_000):
        for data in contents(size):
            assert decompress(pack(data), codec) == data


def literal(data: bytes) -> bytes:
    n = len(data) - 1
    return (bytes([n << 2]) if n < 60 else b"\xf8" + n.to_bytes(3, "little")) + data


def uvarint(n: int) -> bytes:
    made = b""
    while n >= 0x80:
        made += bytes([n & 0x7F | 0x80])
        n >>= 7
    return made + bytes([n])


def far_copy(length: int, distance: int) -> bytes:
    return bytes([(length - 1) << 2 | 3]) + struct.pack("<I", distance)


@pytest.mark.parametrize("distance", [1, 7, 8, 65_535, 65_536, 65_537, 100_000, 199_999, 200_000])
def test_snappy_back_references_of_any_length(distance: int) -> None:
    """Compressors that see more than 64 KiB at once refer back further than the library's own."""
    start = random.Random(distance).randbytes(200_000)
    block = literal(start) + far_copy(64, distance) * 3 + literal(b"end") + far_copy(33, distance) * 2000
    size = 200_000 + 192 + 3 + 33 * 2000
    block = uvarint(size) + block
    assert outside.unsnappy(block) == decompress(block, Codec.SNAPPY)
    framed = outside.JAVA_MAGIC + struct.pack(">iii", 1, 1, len(block)) + block
    assert decompress(framed, Codec.SNAPPY) == outside.unsnappy(block)
    assert decompress(framed + struct.pack(">i", len(block)) + block, Codec.SNAPPY) == outside.unsnappy(block) * 2


def refused(packed: bytes, codec: Codec) -> bool:
    try:
        decompress(packed, codec)
    except ValueError:
        return True
    return False


BAD = {
    "lz4 with linked blocks": (Codec.LZ4, outside.lz4(text(200_000), linked=True)),
    "lz4 with something behind": (Codec.LZ4, outside.lz4(text(500)) + b"x"),
    "lz4 frame twice": (Codec.LZ4, outside.lz4(text(500)) * 2),
    "lz4 with a wrong header checksum": (Codec.LZ4, outside.lz4(text(500))[:6] + b"\0" + outside.lz4(text(500))[7:]),
    "lz4 of the old kind": (Codec.LZ4, b"\x02\x21\x4c\x18" + outside.lz4(text(500))[4:]),
    "lz4, a skipped frame": (Codec.LZ4, b"\x50\x2a\x4d\x18\x03\0\0\0abc" + outside.lz4(text(500))),
    "gzip with something behind": (Codec.GZIP, gzip.compress(text(500)) + b"x"),
    "gzip with zeroes behind": (Codec.GZIP, gzip.compress(text(500)) + bytes(30)),
    "zlib for gzip": (Codec.GZIP, zlib.compress(text(500))),
    "gzip with a wrong checksum": (Codec.GZIP, gzip.compress(text(500))[:-8] + bytes(8)),
    "zstd with something behind": (Codec.ZSTD, outside.zstd(text(500)) + b"x"),
    "snappy of a version to come": (Codec.SNAPPY, outside.JAVA_MAGIC + struct.pack(">ii", 2, 2) + outside.java_snappy(text(500))[16:]),
    "snappy, block past the end": (Codec.SNAPPY, outside.java_snappy(text(500))[:-1]),
    "snappy, negative block": (Codec.SNAPPY, outside.java_snappy(b"") + struct.pack(">i", -5) + bytes(20)),
    "snappy, reference before the start": (Codec.SNAPPY, uvarint(8) + literal(b"abcd") + far_copy(4, 5)),
    "snappy, reference to nothing": (Codec.SNAPPY, uvarint(8) + literal(b"abcd") + far_copy(4, 0)),
    "snappy, more than said": (Codec.SNAPPY, uvarint(7) + literal(b"abcd") + far_copy(4, 4)),
    "snappy, less than said": (Codec.SNAPPY, uvarint(9) + literal(b"abcd") + far_copy(4, 4)),
    "snappy, literal past the end": (Codec.SNAPPY, uvarint(60) + literal(b"a" * 60)[:-1]),
    "snappy, size of six bytes": (Codec.SNAPPY, b"\xff\xff\xff\xff\xff\x01" + literal(b"abcd")),
    "snappy, 4 GiB of nothing": (Codec.SNAPPY, uvarint(2**32 - 1) + literal(b"abcd")),
    "snappy, an element cut short": (Codec.SNAPPY, uvarint(8) + literal(b"abcd") + far_copy(4, 4)[:-1]),
}


@pytest.mark.parametrize(("codec", "packed"), BAD.values(), ids=BAD.keys())
def test_what_clients_could_not_read_is_refused(codec: Codec, packed: bytes) -> None:
    assert refused(packed, codec)
    assert native.check(remake(simple(1), body=packed, attributes=codec), NOW)[0] == Error.CORRUPT_MESSAGE


@pytest.mark.parametrize("codec", CODECS)
def test_cut_short_anywhere(codec: Codec) -> None:
    for data in (text(700), b"z" * 900, text(140_000)):
        packed = outside.compress(data, codec)
        step = max(1, len(packed) // 500)
        for n in range(0, len(packed), step):
            if codec is Codec.SNAPPY and n == 16:
                continue  # the header alone: no blocks, no bytes
            assert refused(packed[:n], codec), n


@pytest.mark.parametrize("codec", CODECS)
def test_a_broken_stream_leaves_nothing_behind_for_the_next(codec: Codec) -> None:
    data = text(200_000)
    packed = outside.compress(data, codec)
    for n in (1, 10, len(packed) // 2, len(packed) - 1):
        refused(packed[:n], codec)
        assert decompress(packed, codec) == data
        assert outside.decompress(compress(data, codec), codec) == data


@pytest.mark.parametrize("codec", CODECS)
def test_large_records_cross_pieces(codec: Codec) -> None:
    chance = random.Random(5)
    sizes = [131_072, 1, 300_000, 65_530, 65_536, 5, 131_060, 0, 262_144]
    body = b"".join(
        record(i, chance.randbytes(size // 3), text(size - size // 3, i), timestamp_delta=chance.randrange(2**40))
        for i, size in enumerate(sizes)
    )
    data = of_records(body, len(sizes), codec)
    assert native.check(data, NOW, after_max_ms=2**62)[0] == 0
    for shift in range(40):  # every field of the second record at every place around a piece's edge
        body = record(0, b"", bytes(131_040 + shift)) + record(1, b"key", b"v" * 300, timestamp_delta=-(2**50))
        assert native.check(of_records(body, 2, codec), NOW)[0] == 0


# ---- bombs ---------------------------------------------------------------------------------------------------------------------

MIB = 1 << 20


def memory(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])


@contextmanager
def growth_within(kib: int) -> Iterator[None]:
    """Fails when resident memory grows by more at any moment inside; under AddressSanitizer, whose shadow grows too, it does not."""
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak (VmHWM) anew
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before <= kib or "libasan" in os.environ.get("LD_PRELOAD", "")


def zstd_bomb(size: int) -> bytes:
    """A frame of run-length blocks: four bytes for 128 KiB each."""
    blocks = size // 131_072
    block = b"".join((131_072 << 3 | 1 << 1 | int(i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks))
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(21 - 10) << 3]) + block


def lz4_bomb(size: int) -> bytes:
    head = outside.lz4(bytes(1 << 22), block_size_id=7)
    frame, block, mark = head[:7], head[7:-4], head[-4:]
    return frame + block * (size >> 22) + mark


def snappy_bomb(size: int) -> bytes:
    zeroes = outside.snappy(bytes(MIB))
    return outside.java_snappy(b"") + (struct.pack(">i", len(zeroes)) + zeroes) * (size // MIB)


def gzip_bomb(size: int) -> bytes:
    made = gzip.compress(bytes(64 * MIB), 9)
    return made * (size // (64 * MIB))


BOMBS = {Codec.GZIP: gzip_bomb, Codec.SNAPPY: snappy_bomb, Codec.LZ4: lz4_bomb, Codec.ZSTD: zstd_bomb}


def as_batch(packed: bytes, codec: Codec) -> bytearray:
    """One record, whose value goes on for as long as the stream does."""
    return remake(simple(1), body=packed, attributes=codec)


@pytest.mark.parametrize("codec", CODECS)
def test_bombs_cost_neither_memory_nor_time(codec: Codec) -> None:
    start = b"\xfe\xff\xff\xff\x0f\0\0\0\1" + b"\xe0\xff\xff\xff\x0f"  # a record of 2 GiB, no key, a value of nearly 2 GiB
    bomb = BOMBS[codec](1 << 30)
    if codec is Codec.GZIP:
        packed = gzip.compress(start) + bomb
    elif codec is Codec.ZSTD:
        packed = outside.zstd(start) + bomb
    elif codec is Codec.LZ4:
        packed = bomb[:7] + outside.lz4(start)[7:-4] + bomb[7:]
    else:
        block = outside.snappy(start)
        packed = bomb[:16] + struct.pack(">i", len(block)) + block + bomb[16:]
    data = as_batch(packed, codec)
    native.check(bytearray(data), NOW, inflate_max=MIB, size_max=1 << 30)  # the thread's context is there now
    began = time.perf_counter()
    with growth_within(12_000):  # lz4 with blocks of 4 MiB takes two of them
        code, why, _info = native.check(data, NOW, inflate_max=64 * MIB, size_max=1 << 30)
    assert (code, why) == (Error.MESSAGE_TOO_LARGE, "the records decompress to more than the broker allows")
    assert time.perf_counter() - began < 5
    began = time.perf_counter()
    assert native.check(data, NOW, quick=True, inflate_max=64 * MIB, size_max=1 << 30)[:2] == (32_767, None)
    assert time.perf_counter() - began < 0.5  # the CRC of up to 50 MB of bomb included


@pytest.mark.parametrize("codec", CODECS)
def test_quick_checks_decide_what_is_small(codec: Codec) -> None:
    assert native.check(simple(1000, codec=codec), NOW, quick=True)[0] == 0
    assert native.check(of_records(record(0, b"", bytes(262_144)), 1, codec), NOW, quick=True)[0] == 32_767
    assert (
        native.check(of_records(record(0, b"", bytes(262_144)), 1, codec), NOW, quick=True, inflate_max=200_000)[0]
        == Error.MESSAGE_TOO_LARGE
    )
    small = simple(3, codec=codec)
    assert native.check(small, NOW, quick=True, size_max=len(small) - 1)[0] == Error.MESSAGE_TOO_LARGE


def test_a_size_that_snappy_claims_takes_no_memory() -> None:
    claims = uvarint(1 << 30) + literal(b"abcdefgh") + far_copy(64, 8) * 100_000
    data = as_batch(claims, Codec.SNAPPY)
    with growth_within(1000):
        assert native.check(data, NOW, inflate_max=1 << 31)[0] == Error.CORRUPT_MESSAGE


def test_zstd_windows_are_not_kept() -> None:
    """A frame may ask for a window of 128 MiB; that memory is touched only as far as bytes come out, and given back."""
    asks = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(27 - 10) << 3]) + (8 << 3 | 1).to_bytes(3, "little") + b"12345678"
    with growth_within(2000):
        for _ in range(20):
            assert decompress(asks, Codec.ZSTD) == b"12345678"
    too_wide = asks[:5] + bytes([(28 - 10) << 3]) + asks[6:]
    assert refused(too_wide, Codec.ZSTD)


def test_threads_have_contexts_of_their_own() -> None:
    data = text(300_000)
    packed = {codec: outside.compress(data, codec) for codec in CODECS}
    wrong: list[Codec] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            codec = chance.choice(CODECS)
            if decompress(packed[codec], codec) != data or outside.decompress(compress(data, codec), codec) != data:
                wrong.append(codec)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
