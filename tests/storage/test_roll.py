"""Segments: when they roll, what their files hold, and Kafka's tools as a judge."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.storage.build import Expected, batch, check, reference_indexes, segment_names
from tests.support.java import dump_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlog.native.logtool import LocalStore


def verify_files(path: Path, expected: Expected, interval: int) -> None:
    """Every segment and index of a closed log, byte for byte."""
    bases = [int(name.split(".")[0]) for name in segment_names(path)]
    assert sorted(p.name for p in path.glob("*.index")) == [f"{base:020}.index" for base in bases]
    assert sorted(p.name for p in path.glob("*.timeindex")) == [f"{base:020}.timeindex" for base in bases]
    for base, following in zip(bases, [*bases[1:], expected.end], strict=True):
        inside = [(at, data) for at, data in expected.batches if base <= at < following]
        assert (path / f"{base:020}.log").read_bytes() == b"".join(data for _, data in inside)
        offsets, times = reference_indexes(inside, base, interval)
        assert (path / f"{base:020}.index").read_bytes() == offsets
        assert (path / f"{base:020}.timeindex").read_bytes() == times
    left = {p.suffix for p in path.iterdir()} - {".log", ".index", ".timeindex", ".snapshot", ".metadata"}
    assert not left
    assert not (path / "next.segment").exists()


@pytest.mark.parametrize("interval", [0, 1000, 4096])
def test_files_of_a_closed_log(open_store: Callable[..., LocalStore], place: Path, interval: int) -> None:
    store = open_store()
    path = place / "t-0"
    log = store.open(path, segment_bytes=100_000, index_interval_bytes=interval)
    expected = Expected()
    pending = []
    for i in range(250):
        data = batch(1 + i % 4, 10 + (i * 37) % 900, timestamp=1000 + (i * 7919) % 5000)
        expected.add(data)
        pending.append(log.submit(data, 1))
    assert all(one.result().error == 0 for one in pending)
    log.flush()
    check(log, expected)
    store.close()
    assert len(segment_names(path)) > 3
    verify_files(path, expected, interval)
    assert (path / "partition.metadata").read_text() == "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"


def test_index_goes_on_after_reopening(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    expected = Expected()
    for clean in (True, False, True):
        store = open_store()
        log = store.open(tmp_path / "t-0", clean=clean, index_interval_bytes=2000)
        for i in range(40):
            data = batch(1, 700, timestamp=1000 + 10 * i)
            expected.add(data)
            log.append(data)
        store.close() if not clean or expected.end > 80 else store.crash()
    verify_files(tmp_path / "t-0", expected, 2000)


def test_rolls_by_record_time(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0", segment_ms=1000)
    for timestamp in (5000, 5400, 6000, 6001, 7001, 9999):
        log.append(batch(timestamp=timestamp))
    store.close()
    assert segment_names(tmp_path / "t-0") == [f"{base:020}.log" for base in (0, 3, 5)]


def test_rolls_when_the_index_is_full(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0", segment_index_bytes=80, index_interval_bytes=0)
    for i in range(30):
        log.append(batch(timestamp=1000 + i))
    store.close()
    # The time index is full with one entry less than fits, six here; the first batch of a segment gets no entry.
    assert len(segment_names(tmp_path / "t-0")) > 3
    for name in segment_names(tmp_path / "t-0"):
        assert (tmp_path / "t-0" / name).with_suffix(".timeindex").stat().st_size <= 80


def test_roll_when_asked(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.roll()  # an empty segment does not roll
    for _ in range(3):
        log.append(batch(2))
        log.roll()
    assert segment_names(tmp_path / "t-0") == [f"{base:020}.log" for base in (0, 2, 4, 6)]
    log.append(batch())
    assert log.positions.log_end == 7
    store.close()


def test_snapshot_is_kafkas(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0")
    log.append(batch(3, producer_id=77, producer_epoch=2, base_sequence=10, timestamp=5000))
    store.close()
    data = (tmp_path / "t-0" / f"{3:020}.snapshot").read_bytes()
    assert struct.unpack_from(">hIi", data)[0::2] == (1, 1)
    assert struct.unpack_from(">qhiqiqiq", data, 10) == (77, 2, 12, 2, 2, 5002, -1, -1)
    assert len(data) == 10 + 46


def test_delete_records(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    path = tmp_path / "t-0"
    log = store.open(path, segment_bytes=20_000)
    expected = Expected()
    for _ in range(60):
        data = batch(1, 1000)
        expected.add(data)
        log.append(data)
    before = len(segment_names(path))
    size = log.positions.bytes
    expected.start = log.delete_records(30)
    assert expected.start == 30
    assert log.delete_records(10) == 30  # it never goes back
    check(log, expected)
    assert log.read(29).error == 1
    store.run(0.2)
    assert len(segment_names(path)) < before
    assert log.positions.bytes < size
    assert int(segment_names(path)[0].split(".")[0]) <= 30
    assert log.delete_records(-1) == 60
    assert log.read(60)[:2] == (0, b"")
    with pytest.raises(Exception, match="error 1"):
        log.delete_records(61)
    log.append(batch())
    store.close()
    store = open_store()
    log = store.open(path, clean=True)
    assert log.positions.log_end == 61
    store.close()


def test_delete(open_store: Callable[..., LocalStore], tmp_path: Path) -> None:
    store = open_store()
    log = store.open(tmp_path / "t-0", segment_bytes=50_000)
    for _ in range(100):
        log.submit(batch(1, 5000), 1)
    log.delete()
    assert list(tmp_path.iterdir()) == []
    log = store.open(tmp_path / "t-0")
    assert log.positions.log_end == 0
    store.close()


@pytest.mark.java
@pytest.mark.timeout(300)
def test_kafka_reads_segments_and_indexes(open_store: Callable[..., LocalStore], tmp_path: Path, engine: str, kafka_classpath: str) -> None:
    """DumpLogSegments accepts the log, both indexes and the snapshot of rolled and of cleanly closed segments."""
    store = open_store()
    path = tmp_path / "t-0"
    log = store.open(path, segment_bytes=60_000, index_interval_bytes=1000)
    for i in range(200):
        log.append(batch(2, 300, timestamp=10_000 + i, producer_id=i % 3, producer_epoch=0, base_sequence=2 * (i // 3)))
    store.close()
    files = sorted(str(p) for p in path.iterdir() if p.suffix in {".log", ".index", ".timeindex", ".snapshot"})
    text = dump_segments(kafka_classpath, files)
    for complaint in ("Mismatches in", "Non-secutive", "Found timestamp", "Found out of order", "corrupt", "isvalid: false", "Exception"):
        assert complaint not in text, text[-4000:]
    assert text.count("baseOffset:") == 200
    assert text.count("| offset:") == 400
    assert text.count("producerId: 1 producerEpoch: 0") > 1
