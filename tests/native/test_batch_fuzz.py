"""Spoiled batches against the plain reference, and spoiled streams against the libraries; a seed is printed with every failure."""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlog.native import batchtool as native
from fastlog.native.compression import decompress
from fastlog.protocol.errors import Error
from fastlog.protocol.records import HEADER_BYTES, Codec, Record, build_batch, iter_batches
from tests.native import outside
from tests.native.batches import NOW, Rules, judge, random_records, remake
from tests.native.spoil import spoil_bytes, spoiled

# Both are right where a stream breaks off in the middle of a broken record: the reference decompresses all before it reads any.
EITHER = {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD}
# What a stream may make us allocate: the library's limit for streams, which Kafka's Java has too. A decoder may refuse larger windows
# (RFC 8878, 3.1.1.1.2); the one-shot call that we are compared with needs no window, and takes any.
ZSTD_WINDOW_MAX = 128 << 20
# A frame that lost its single-segment flag: its content size is read as a window of 3 GiB.
WIDE = bytes.fromhex(
    "28b52ffd00ac5d020032040505f039f23309794021eb23524134a35244f8b88216004c05fa08d745058709021343c2b01807b40e40c146ab765779c05c502d20"
    "04c138e37071538e9e32a869406617b855e3962d"
)


def compare(data: bytes, rules: Rules) -> Error:
    held = bytearray(data)
    code = Error(native.check(held, NOW, **rules.given())[0])
    expected, made = judge(data, NOW, rules)
    assert code is expected or (expected is Error.CORRUPT_MESSAGE and code in EITHER), data.hex()
    assert held == made
    quick = bytearray(data)
    assert native.check(quick, NOW, quick=True, **rules.given())[0] in {code, 32_767}
    for cut in (data[:60], data[:-1], data):
        native.peek(cut)
    try:
        native.find_time(data, NOW)
        list(iter_batches(data))
    except ValueError:
        assert code is not Error.NONE
    return code


def explore(seed: int, count: int) -> dict[Error, int]:
    seen: dict[Error, int] = {}
    for i, (data, rules) in enumerate(spoiled(random.Random(seed), count)):
        try:
            code = compare(data, rules)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, batch {i}") from error
        seen[code] = seen.get(code, 0) + 1
    return seen


def explore_streams(seed: int, count: int) -> None:
    chance = random.Random(seed)
    for i in range(count):
        data = chance.choice([b"", b"ab" * 40_000]) + bytes(chance.choices(b"abc", k=chance.randrange(300)))
        codec = chance.choice(list(Codec)[1:])
        packed = spoil_bytes(chance, outside.compress(data, codec))
        try:
            expected = outside.decompress(packed, codec, 1 << 20)
        except ValueError:
            expected = None
        try:
            made = decompress(packed, codec, 1 << 20)
        except ValueError:
            made = None
        if made is None and expected is not None and codec is Codec.ZSTD and outside.zstd_window(packed) > ZSTD_WINDOW_MAX:
            continue
        assert made == expected, f"seed {seed}, stream {i}: {codec.name} {packed.hex()}"


def test_spoiled_batches() -> None:
    seen = explore(7, 3000)
    assert seen[Error.NONE] > 100
    assert {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD, Error.INVALID_TIMESTAMP, Error.UNSUPPORTED_COMPRESSION_TYPE} <= seen.keys()


def test_spoiled_streams() -> None:
    explore_streams(8, 1500)


def test_a_zstd_frame_with_too_large_a_window_is_refused() -> None:
    assert len(outside.decompress(WIDE, Codec.ZSTD)) == 172
    assert outside.zstd_window(WIDE) == 3 << 30
    with pytest.raises(ValueError, match="decompressed"):
        decompress(WIDE, Codec.ZSTD)
    frames = outside.zstd(b"a") + WIDE[:5] + bytes([17 << 3]) + WIDE[6:]  # a window of the limit itself
    assert outside.zstd_window(frames) == ZSTD_WINDOW_MAX
    assert decompress(frames, Codec.ZSTD) == outside.decompress(frames, Codec.ZSTD)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_spoiled_batches_and_streams_for_minutes() -> None:
    until = time.monotonic() + float(os.environ.get("FASTLOG_FUZZ_S", "120"))
    seed = random.SystemRandom().randrange(1 << 40)
    while time.monotonic() < until:
        explore(seed, 500)
        explore_streams(seed, 500)
        seed += 1


bytes_or_none = st.none() | st.binary(max_size=80)
records = st.lists(
    st.tuples(
        st.integers(0, 2**62),
        bytes_or_none,
        bytes_or_none,
        st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), bytes_or_none), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(records, st.sampled_from(list(Codec)), st.sampled_from(list(Codec)))
def test_any_records_survive_building_checking_and_recoding(
    given_records: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]], codec: Codec, target: Codec
) -> None:
    wanted = [Record(i, t, k, v, tuple(h)) for i, (t, k, v, h) in enumerate(given_records)]
    data = bytearray(build_batch(wanted, timestamp_ms=NOW, codec=codec))
    before = bytes(data)
    assert native.check(data, NOW, after_max_ms=2**63 - 1)[0] == 0
    assert data == before
    (batch,) = iter_batches(data)
    assert list(batch.records) == wanted
    (batch,) = iter_batches(native.recode(data, codec=target)[2])
    assert (batch.codec, list(batch.records)) == (target, wanted)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(list(Codec)), st.booleans())
def test_any_bytes_for_records(body: bytes, codec: Codec, pack: bool) -> None:
    whole = build_batch(random_records(random.Random(0), 3), timestamp_ms=NOW)
    packed = outside.compress(body, codec) if pack else body
    compare(bytes(remake(whole, body=packed, attributes=int(codec))), Rules())
    assert len(whole) > HEADER_BYTES
