"""`fastlog log`: damage is found wherever it is, and a log that is being written can be copied for Kafka's tools."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from fastlog.native.logtool import LocalStore
from fastlog.storage.compaction import CHECKPOINT, save_clean_ends
from fastlog.storage.directory import CLEAN, LOCK, LOG_STARTS, META, open_directory
from fastlog.storage.epochs import Epochs
from fastlog.storage.files import CHECKSUM
from fastlog.storage.inspect import check, snapshot
from tests.storage.build import Expected, batch
from tests.storage.test_transactions import data as transactional
from tests.storage.test_transactions import marker
from tests.support.java import dump_segments
from tests.support.process import fastlog_command

if TYPE_CHECKING:
    from pathlib import Path


def fill(path: Path, *, batches: int = 120) -> tuple[LocalStore, Expected]:
    store = LocalStore(memory=4 << 20)
    log = store.open(path, segment_bytes=20_000, index_interval_bytes=1000)
    expected = Expected()
    for i in range(batches):
        data = batch(1, 300, timestamp=4_102_444_800_000 + i, producer_id=5, producer_epoch=0, base_sequence=i)
        expected.add(data)
        log.append(data)
    epochs = Epochs()
    epochs.assign(0, 0)
    epochs.save(str(path))
    return store, expected


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A data directory with one partition, shut down cleanly."""
    directory = open_directory(tmp_path)
    directory.stamp("cluster", 1)
    directory.save_log_starts({("orders", 0): 0})
    directory.close()
    save_clean_ends(tmp_path, {("orders", 0): 17})
    store, _ = fill(tmp_path / "orders-0")
    log = store.logs[0]
    for producer, sequence in ((7, 0), (8, 0), (9, 0), (7, 1)):  # transactions that begin and end between each other
        log.append(transactional(producer, 0, sequence, size=300))
        if sequence:
            log.append(marker(8, 0, commit=False))
    log.append(marker(7, 0, commit=False))
    log.append(marker(9, 0, commit=True))
    log.roll()
    log.append(batch(1, 300))
    store.close()
    (tmp_path / CLEAN).touch()
    return tmp_path


def test_what_is_whole_is_called_so(closed: Path) -> None:
    assert list(check(closed)) == []
    assert list(check(closed / "orders-0")) == []


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
@pytest.mark.parametrize("kind", [".log", ".index", ".timeindex", ".txnindex", ".snapshot"])
def test_a_flipped_bit_is_found_anywhere(closed: Path, kind: str, running: bool) -> None:
    """While a broker runs, in all but the segment that is being written."""
    rng = random.Random(3)
    files = [path for path in sorted((closed / "orders-0").glob("*" + kind)) if path.stat().st_size]
    with (closed / LOCK).open("w") as lock:
        if running:
            fcntl.flock(lock, fcntl.LOCK_EX)
            active = max((closed / "orders-0").glob("*.log")).stem
            files = [path for path in files if path.stem < active or kind == ".snapshot"]
        assert files
        for _ in range(40):
            path = rng.choice(files)
            data = path.read_bytes()
            bit = rng.randrange(len(data) * 8)
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            found = list(check(closed))
            assert found, f"bit {bit % 8} of byte {bit // 8} of {path.name}"
            if kind != ".log":
                assert {problem.file for problem in found} == {path.name}
            path.write_bytes(data)


@pytest.mark.parametrize("name", ["orders-0/leader-epoch-checkpoint", LOG_STARTS, CHECKPOINT, META])
def test_a_flipped_bit_is_found_in_small_files(closed: Path, name: str) -> None:
    """Kafka's formats for them have no checksum; it lies beside the content. The byte is named."""
    path = closed / name
    if CHECKSUM not in os.listxattr(path):
        pytest.skip("needs extended attributes on the file system of temporary files")
    content = path.read_bytes()
    for bit in range(0, len(content) * 8, 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with path.open("r+b") as file:  # in place: a new file would have no checksum
            file.write(damaged)
        found = list(check(closed))
        assert [(problem.file, problem.byte) for problem in found] == [(path.name, bit // 8)]
    path.write_bytes(content)
    assert list(check(closed)) == []


def test_an_index_of_aborted_transactions_that_lacks_one_is_found(closed: Path) -> None:
    (path,) = (closed / "orders-0").glob("*.txnindex")
    content = path.read_bytes()
    assert len(content) == 2 * 34
    path.write_bytes(content[34:])
    (problem,) = check(closed)
    assert (problem.file, "is missing" in problem.what) == (path.name, True)


def test_the_command_says_where(closed: Path) -> None:
    path = sorted((closed / "orders-0").glob("*.log"))[1]
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    done = subprocess.run([*fastlog_command(), "log", "check", str(closed), "--json"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert (problem["partition"], problem["file"]) == ("orders-0", path.name)
    assert problem["byte"] <= 1000 < problem["byte"] + 400
    assert problem["offset"] == int(path.stem) + problem["byte"] // (len(batch(1, 300)))
    text = subprocess.run([*fastlog_command(), "log", "check", str(closed)], capture_output=True, timeout=60, check=False).stdout
    assert text.startswith(b"topic orders partition 0: offset %d, " % problem["offset"])


def test_dump_prints_batches_and_records(closed: Path) -> None:
    path = sorted((closed / "orders-0").glob("*.log"))[1]
    command = [*fastlog_command(), "log", "dump", str(path), "--records", "--json"]
    lines = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.splitlines()
    first = json.loads(lines[0])
    assert (first["position"], first["base_offset"], first["crc_ok"]) == (0, int(path.stem), True)
    assert [record["offset"] for record in first["records"]] == [int(path.stem)]


def test_a_log_that_is_written_is_checked_and_copied(tmp_path: Path) -> None:
    """Its active segment has zeroes past the end; a copy has none."""
    store, expected = fill(tmp_path / "orders-0", batches=100)
    with store, (tmp_path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(check(tmp_path)) == []
        assert snapshot(tmp_path / "orders-0", tmp_path / "copy") == 100
    copied = b"".join(path.read_bytes() for path in sorted((tmp_path / "copy").glob("*.log")))
    assert copied == expected.bytes_from(0)


@pytest.mark.java
@pytest.mark.timeout(300)
def test_kafka_reads_a_copy_of_an_active_segment(tmp_path: Path, kafka_classpath: str) -> None:
    store, _ = fill(tmp_path / "orders-0", batches=100)
    with store:
        snapshot(tmp_path / "orders-0", tmp_path / "copy")
    dumped = dump_segments(kafka_classpath, sorted((tmp_path / "copy").glob("*.log")))
    assert dumped.count("baseOffset:") == 100
    assert "isvalid: false" not in dumped
