"""What comes from a disk is checked before it is sent: a reader gets what was written, or an error, and the log says where."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.storage.build import Expected, batch, check, count_of, read_all, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalLog, LocalStore

CORRUPT_MESSAGE = 2
AT_MAGIC = 16


def fill(open_store: Callable[..., LocalStore], path: Path, *, batches: int = 120, size: int = 3000, **settings: Any) -> Expected:
    store = open_store(memory=8 << 20)
    log = store.open(path, **settings)
    expected = Expected()
    for i in range(batches):
        data = batch(1 + i % 3, size)
        expected.add(data)
        log.append(data, 1)
    store.close()
    return expected


def roomy(open_store: Callable[..., LocalStore], other: Path) -> LocalStore:
    """A store whose memory is ready: it is made as it is asked for, and until then what was appended may have to be read again."""
    store = open_store(memory=16 << 20)
    log = store.open(other, partition=1)
    for _ in range(200):
        log.append(batch(1, 60_000), 1)
    log.close()
    return store


def place_of(path: Path, expected: Expected, index: int) -> tuple[Path, int]:
    """The file of a batch, and where in it."""
    base = expected.batches[index][0]
    file = max((f for f in path.glob("*.log") if int(f.stem) <= base), key=lambda f: int(f.stem))
    return file, sum(len(data) for b, data in expected.batches[:index] if b >= int(file.stem))


def flip(file: Path, byte: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[byte] ^= 1 << bit
    file.write_bytes(data)


def read_around(log: LocalLog, expected: Expected, damaged: int, max_bytes: int) -> None:
    """All but one batch can be read, from the start and from behind it; that one gives an error each time."""
    before, behind = expected.batches[damaged][0], expected.batches[damaged][0] + count_of(expected.batches[damaged][1])
    offset = 0
    got = b""
    while True:
        result = log.read(offset, max_bytes)
        if result.error:
            break
        whole = split(result.data)
        assert b"".join(whole) == result.data  # a cut batch could not have been checked
        got += result.data
        offset = int.from_bytes(whole[-1][:8], "big") + count_of(whole[-1])
    assert result.error == CORRUPT_MESSAGE
    assert (offset, result.data) == (before, b"")
    assert got + expected.batches[damaged][1] + expected.bytes_from(behind) == expected.bytes_from(0)
    assert log.read(before, max_bytes).error == CORRUPT_MESSAGE
    assert read_all(log, behind, max_bytes=max_bytes) == expected.bytes_from(behind)


@pytest.mark.parametrize("max_bytes", [1, 20_000, 1 << 20])
def test_a_flipped_bit_is_not_sent(
    open_store: Callable[..., LocalStore], tmp_path: Path, capfd: pytest.CaptureFixture[str], max_bytes: int
) -> None:
    """Wherever it is in a batch, but for the fields that its CRC does not cover. The line says file and byte, once."""
    expected = fill(open_store, tmp_path / "t-0", segment_bytes=150_000, index_interval_bytes=10_000)
    rng = random.Random(max_bytes)
    store = open_store(memory=1 << 20)
    for turn in range(12):
        damaged = rng.randrange(len(expected.batches))
        file, at = place_of(tmp_path / "t-0", expected, damaged)
        byte = AT_MAGIC + rng.randrange(5) if turn % 3 == 0 else rng.randrange(AT_MAGIC, len(expected.batches[damaged][1]))
        flip(file, at + byte, bit := rng.randrange(8))
        log = store.open(tmp_path / "t-0", clean=True)
        capfd.readouterr()
        read_around(log, expected, damaged, max_bytes)
        said = capfd.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"t-0/{file.name}: byte {at}: " in said[0]
        assert log.positions.offline == 0
        log.close()
        flip(file, at + byte, bit)
    assert store.stats()["reads_damaged"] >= 24
    log = store.open(tmp_path / "t-0", clean=True)
    check(log, expected)
    store.close()


def test_offsets_are_held_against_the_neighbours(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """The base offset lies outside of the CRC: a batch that says another one is not sent with its neighbours."""
    expected = fill(open_store, tmp_path / "t-0")
    store = open_store(memory=1 << 20)
    for damaged in (1, 50, 118):
        for bit in (0, 1, 5, 6):
            file, at = place_of(tmp_path / "t-0", expected, damaged)
            flip(file, at + 7, bit)
            log = store.open(tmp_path / "t-0", clean=True)
            result = log.read(expected.batches[damaged - 1][0], 50_000)
            assert result.data in (b"", expected.batches[damaged - 1][1])
            log.close()
            flip(file, at + 7, bit)
    store.close()


def test_a_batch_too_large_for_chunks(open_store: Callable[..., LocalStore], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = fill(open_store, tmp_path / "t-0", batches=2, size=1_500_000)
    file, at = place_of(tmp_path / "t-0", expected, 1)
    flip(file, at + 1_400_000, 3)
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0", clean=True)
    assert log.read(0, 1).data == expected.batches[0][1]
    assert log.read(1, 1).error == CORRUPT_MESSAGE
    assert f"byte {at}: a record batch with a wrong CRC" in capfd.readouterr().err
    assert log.read(0, 1).data == expected.batches[0][1]
    store.close()


def test_each_byte_is_checked_once(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """What was appended in this life is not checked at all, what was read once and is still there not again."""
    store = roomy(open_store, tmp_path / "t-1")
    log = store.open(tmp_path / "t-0")
    expected = Expected()
    for i in range(100):
        data = batch(1 + i % 3, 20_000)
        expected.add(data)
        log.append(data, 1)
    check(log, expected)
    assert store.stats()["read_bytes_verified"] == 0
    store.close()
    store = roomy(open_store, tmp_path / "t-2")
    log = store.open(tmp_path / "t-0", clean=True)
    total = log.positions.bytes
    check(log, expected, max_bytes=300_000)
    assert store.stats()["read_bytes_verified"] == total
    check(log, expected)
    assert store.stats()["read_bytes_verified"] == total
    log.append(batch(1, 100))
    assert log.read(expected.end, 1).data
    assert store.stats()["read_bytes_verified"] == total
    store.close()


def test_the_last_block_of_another_life_is_checked(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    """It is read when the log is opened, and appends go on in it."""
    expected = fill(open_store, tmp_path / "t-0", batches=30, size=100)
    file, at = place_of(tmp_path / "t-0", expected, 29)
    flip(file, at + 80, 0)
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0", clean=True)
    data = batch(1, 100)
    expected.add(data)
    assert log.append(data, 1).error == 0
    assert log.read(expected.batches[29][0]).error == CORRUPT_MESSAGE
    assert log.read(expected.batches[30][0]).data == expected.batches[30][1]
    store.close()


def test_it_can_be_turned_off(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    expected = fill(open_store, tmp_path / "t-0")
    file, at = place_of(tmp_path / "t-0", expected, 10)
    flip(file, at + 1000, 0)
    store = open_store(memory=1 << 20)
    log = store.open(tmp_path / "t-0", clean=True, verify_reads=False)
    got = read_all(log, 0)
    assert len(got) == len(expected.bytes_from(0))
    assert got != expected.bytes_from(0)
    assert store.stats()["read_bytes_verified"] == 0
    store.close()
