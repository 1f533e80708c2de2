"""Disks that fill up, fail or are missing, on small real file systems: what stops, what goes on, and what the broker says."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.errors import Error
from tests.broker.test_real import Wire
from tests.support.metrics import total
from tests.support.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.process import Broker

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: from then on everything on the file system fails with EIO
NOLOGFLUSH = 2
BODY = os.urandom(60_000)
BLKIO = Path("/sys/fs/cgroup/blkio")


class Disk:
    """A file system of 64 MB in a file."""

    def __init__(self, image: Path, at: Path) -> None:
        self.image, self.at = image, at
        with image.open("wb") as file:
            file.truncate(64 << 20)
        at.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.at], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.at], check=False, capture_output=True)

    def fail(self) -> None:
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path, "disk")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path, "other")


def mounted(tmp_path: Path, name: str) -> Iterator[Disk]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    try:
        made = Disk(tmp_path / f"{name}.image", tmp_path / name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this host lets nobody mount: {error}")
    yield made
    made.unmount()


def data_on(disk: Disk, tmp_path: Path) -> str:
    """The name of a data directory that lies on the disk, while the broker's log does not."""
    (disk.at / "data").mkdir()
    (tmp_path / disk.at.name).with_suffix(".data").symlink_to(disk.at / "data")
    return f"{disk.at.name}.data"


def fill(wire: Wire, topic: str) -> int:
    """Produces until the broker says that there is no room; the number of batches that were taken."""
    for count in range(3000):
        answer = wire.produce(topic, [BODY])
        if answer["error_code"]:
            assert answer["error_code"] == Error.KAFKA_STORAGE_ERROR
            return count
    raise AssertionError("64 MB took more than 180 MB")


def taken(wire: Wire, topic: str) -> Callable[[], bool]:
    return lambda: wire.produce(topic, [BODY])["error_code"] == 0


def read_to_end(wire: Wire, topic: str) -> int:
    """Reads a partition from its start; where it ends."""
    described = wire.call("Metadata", 9, topics=[{"name": topic}])["topics"][0]
    assert described["error_code"] == 0
    offset = high = 0
    while True:
        asked = [{"topic": topic, "partitions": [{"partition": 0, "fetch_offset": offset, "partition_max_bytes": 8 << 20}]}]
        answer = wire.call("Fetch", 11, replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=8 << 20, topics=asked)
        part = answer["responses"][0]["partitions"][0]
        if part["error_code"] == Error.OFFSET_OUT_OF_RANGE:  # retention was there
            first = {"name": topic, "partitions": [{"partition_index": 0, "timestamp": -2}]}
            offset = wire.call("ListOffsets", 1, replica_id=-1, topics=[first])["topics"][0]["partitions"][0]["offset"]
            continue
        assert part["error_code"] == 0
        high = part["high_watermark"]
        data, at = part["records"] or b"", 0
        while at + 61 <= len(data) and at + 12 + int.from_bytes(data[at + 8 : at + 12]) <= len(data):
            offset = int.from_bytes(data[at : at + 8]) + int.from_bytes(data[at + 23 : at + 27]) + 1
            at += 12 + int.from_bytes(data[at + 8 : at + 12])
        if offset == high:
            return offset


@pytest.mark.one_engine
@pytest.mark.root("mounts a small disk")
@pytest.mark.parametrize("how", ["deletion", "retention", "file"])
def test_a_full_disk(
    start_broker: Callable[..., Broker], engine: str, tmp_path: Path, disk: Disk, eventually: Callable[..., None], how: str
) -> None:
    """Producers are told, readers, committed offsets and new topics go on; with room again, however it came, producers do too."""
    metrics = f"127.0.0.1:{free_port()}"
    settings = ("fastlog.disk.reserve.bytes=8000000", "log.retention.check.interval.ms=200", "offsets.topic.num.partitions=1")
    args = [part for text in settings for part in ("--set", text)]
    broker = start_broker(data_on(disk, tmp_path), io=engine, args=[*args, "--metrics", metrics])
    (disk.at / "file").write_bytes(bytes(16 << 20))
    wire = Wire(broker.bootstrap)
    assert wire.create("keep", configs={"segment.bytes": "1048576"})["error_code"] == 0
    assert wire.create("drop", configs={"segment.bytes": "1048576"})["error_code"] == 0
    first = fill(wire, "drop") if how == "deletion" else 0
    kept = fill(wire, "keep")
    assert first + kept > 100
    eventually(lambda: total(metrics, "fastlog_disk_full") == 1, 20)
    assert "is full" in broker.log
    assert total(metrics, "fastlog_disk_usable_bytes") > 0
    assert read_to_end(wire, "keep") == kept
    assert wire.create("new")["error_code"] == 0
    group = {"group_id": "g", "generation_id_or_member_epoch": -1, "member_id": ""}
    asked = [{"name": "keep", "partitions": [{"partition_index": 0, "committed_offset": 5}]}]
    wire.call("FindCoordinator", 3, key="g", key_type=0)

    def committed() -> bool:
        answer = wire.call("OffsetCommit", 8, **group, topics=asked)
        return bool(answer["topics"][0]["partitions"][0]["error_code"] == 0)

    eventually(committed, 20)
    assert wire.produce("keep", [BODY])["error_code"] == Error.KAFKA_STORAGE_ERROR
    if how == "deletion":
        assert wire.call("DeleteTopics", 3, topic_names=["drop"], timeout_ms=20_000)["responses"][0]["error_code"] == 0
    elif how == "retention":
        entry = {"name": "retention.bytes", "config_operation": 0, "value": "4000000"}
        resource = {"resource_type": 2, "resource_name": "keep", "configs": [entry]}
        wire.call("IncrementalAlterConfigs", 0, resources=[resource], validate_only=False)
    else:
        (disk.at / "file").unlink()
    eventually(taken(wire, "keep"), 30)
    eventually(lambda: total(metrics, "fastlog_disk_full") == 0, 20)
    assert "has room again" in broker.log
    assert read_to_end(wire, "keep") > kept
    wire.close()
    broker.stop()
    broker.start()
    wire = Wire(broker.bootstrap)
    assert read_to_end(wire, "keep") > kept
    wire.close()
    broker.stop()


@pytest.mark.one_engine
@pytest.mark.root("mounts a small disk")
def test_a_really_full_disk(
    start_broker: Callable[..., Broker], engine: str, tmp_path: Path, disk: Disk, eventually: Callable[..., None]
) -> None:
    """Without a reserve, and with every byte taken by somebody else: still nothing breaks, and it goes on when there is room."""
    broker = start_broker(data_on(disk, tmp_path), io=engine, args=["--set", "fastlog.disk.reserve.bytes=0"])
    wire = Wire(broker.bootstrap)
    assert wire.create("t", configs={"segment.bytes": "1048576"})["error_code"] == 0
    for _ in range(30):
        assert wire.produce("t", [BODY])["error_code"] == 0
    with contextlib.suppress(OSError), (disk.at / "file").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    fill(wire, "t")
    for _ in range(5):
        fill(wire, "t")
        assert wire.create(f"new-{time.monotonic()}")["error_code"] in (0, Error.KAFKA_STORAGE_ERROR)
    count = read_to_end(wire, "t")
    assert count >= 30
    (disk.at / "file").unlink()
    eventually(taken(wire, "t"), 30)
    assert read_to_end(wire, "t") > count
    assert wire.create("later")["error_code"] == 0
    wire.close()
    broker.stop()


@pytest.mark.one_engine
@pytest.mark.root("mounts a small disk")
def test_a_disk_fails(
    start_broker: Callable[..., Broker], engine: str, tmp_path: Path, disk: Disk, other_disk: Disk, eventually: Callable[..., None]
) -> None:
    """Its partitions are offline, those on the other disk go on; so it is after a start without it; with it back, all is there."""
    metrics = f"127.0.0.1:{free_port()}"
    broker = start_broker(data_on(other_disk, tmp_path), io=engine, args=["--data", str(disk.at / "data"), "--metrics", metrics])
    wire = Wire(broker.bootstrap)
    assert wire.create("t", 6)["error_code"] == 0
    for partition in range(6):
        assert wire.produce("t", [b"first"], partition=partition)["error_code"] == 0
    here = {int(p.name.removeprefix("t-")) for p in broker.data.glob("t-*")}
    there = {int(p.name.removeprefix("t-")) for p in (disk.at / "data").glob("t-*")}
    assert len(here) == len(there) == 3

    def errors(wire: Wire) -> dict[int, int]:
        return {partition: wire.produce("t", [b"more"], partition=partition)["error_code"] for partition in range(6)}

    expected = dict.fromkeys(here, 0) | dict.fromkeys(there, int(Error.KAFKA_STORAGE_ERROR))
    disk.fail()
    eventually(lambda: total(metrics, "fastlog_disk_failed") == 1, 20)
    assert "has failed" in broker.log
    assert errors(wire) == expected
    dirs = {d["log_dir"]: d for d in wire.call("DescribeLogDirs", 4, topics=None)["results"]}
    good, bad = dirs[str(broker.data.resolve())], dirs[str(disk.at / "data")]
    assert (good["error_code"], bad["error_code"]) == (0, Error.KAFKA_STORAGE_ERROR)
    assert good["total_bytes"] > good["usable_bytes"] > 0
    assert [len(t["partitions"]) for t in good["topics"]] == [3]
    assert bad["topics"] == []
    assert wire.create("new", 4)["error_code"] == 0
    assert len(list(broker.data.glob("new-*"))) == 4
    wire.close()
    broker.stop()
    disk.unmount()
    broker.start()  # its mount point is there, and empty
    assert "is its disk mounted?" in broker.log
    wire = Wire(broker.bootstrap)
    after = errors(wire)
    assert {partition for partition, error in after.items() if error == 0} == here
    dirs = {d["log_dir"]: d["error_code"] for d in wire.call("DescribeLogDirs", 4, topics=None)["results"]}
    assert dirs == {str(broker.data.resolve()): 0, str(disk.at / "data"): Error.KAFKA_STORAGE_ERROR}
    assert total(metrics, "fastlog_disk_failed") == 1
    wire.close()
    broker.stop()
    disk.mount()
    broker.start()
    wire = Wire(broker.bootstrap)
    assert errors(wire) == dict.fromkeys(range(6), 0)
    wire.close()
    broker.stop()


@pytest.mark.one_engine
@pytest.mark.root("mounts a small disk")
def test_a_disk_becomes_read_only(start_broker: Callable[..., Broker], engine: str, disk: Disk, eventually: Callable[..., None]) -> None:
    """As the kernel remounts a file system with errors: found within seconds, though nobody writes."""
    metrics = f"127.0.0.1:{free_port()}"
    broker = start_broker("good", io=engine, args=["--data", str(disk.at / "data"), "--metrics", metrics])
    assert total(metrics, "fastlog_disk_failed") == 0
    subprocess.run(["mount", "-o", "remount,abort", disk.at], check=False, capture_output=True)
    if subprocess.run(["touch", disk.at / "x"], check=False, capture_output=True).returncode == 0:
        subprocess.run(["mount", "-o", "remount,ro", disk.at], check=False, capture_output=True)
    if subprocess.run(["touch", disk.at / "x"], check=False, capture_output=True).returncode == 0:
        pytest.skip("this kernel keeps it writable")
    eventually(lambda: total(metrics, "fastlog_disk_failed") == 1, 30)
    assert "has failed" in broker.log
    wire = Wire(broker.bootstrap)
    assert wire.create("t", 2)["error_code"] == 0
    assert wire.produce("t", [b"v"], partition=1)["error_code"] == 0
    wire.close()
    broker.stop()


def spread(wire: Wire, broker: Broker, disk: Disk) -> tuple[int, int]:
    """A topic with a record in each of two partitions; the one on the broker's first disk, and the one on the other."""
    assert wire.create("t", 2)["error_code"] == 0
    for partition in range(2):
        assert wire.produce("t", [b"first"], partition=partition)["error_code"] == 0
    (here,) = (int(p.name.removeprefix("t-")) for p in broker.data.glob("t-*"))
    (there,) = (int(p.name.removeprefix("t-")) for p in (disk.at / "data").glob("t-*"))
    return here, there


@pytest.mark.root("mounts a small disk")
@pytest.mark.parametrize("how", ["renamed", "unmounted"])
def test_a_data_directory_vanishes(
    start_broker: Callable[..., Broker],
    engine: str,
    tmp_path: Path,
    disk: Disk,
    other_disk: Disk,
    eventually: Callable[..., None],
    how: str,
) -> None:
    """Under a running broker: found by the next probe, its partitions are offline, others go on. With it back, a start finds all of it."""
    metrics = f"127.0.0.1:{free_port()}"
    broker = start_broker(data_on(other_disk, tmp_path), io=engine, args=["--data", str(disk.at / "data"), "--metrics", metrics])
    wire = Wire(broker.bootstrap)
    here, there = spread(wire, broker, disk)
    if how == "renamed":
        (disk.at / "data").rename(disk.at / "elsewhere")
    else:
        disk.unmount()
    eventually(lambda: total(metrics, "fastlog_disk_failed") == 1, 30)
    assert "has failed" in broker.log
    eventually(lambda: wire.produce("t", [b"more"], partition=there)["error_code"] == Error.KAFKA_STORAGE_ERROR, 30)
    assert wire.produce("t", [b"more"], partition=here)["error_code"] == 0
    wire.close()
    broker.stop()
    if how == "renamed":
        (disk.at / "elsewhere").rename(disk.at / "data")
    else:
        disk.mount()
    broker.start()
    wire = Wire(broker.bootstrap)
    for partition in range(2):
        assert wire.produce("t", [b"again"], partition=partition)["error_code"] == 0
    asked = [{"topic": "t", "partitions": [{"partition": there, "fetch_offset": 0, "partition_max_bytes": 1 << 20}]}]
    part = wire.call("Fetch", 11, replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, topics=asked)["responses"][0]["partitions"][
        0
    ]
    assert b"first" in part["records"]
    assert b"again" in part["records"]
    wire.close()
    broker.stop()


@contextlib.contextmanager
def slowed(disk: Disk, pid: int, writes_per_s: int) -> Iterator[None]:
    """The kernel lets the process do so many writes a second to the disk."""
    group = BLKIO / f"fastlog-test-{os.getpid()}-{pid}"
    number = disk.at.stat().st_dev
    try:
        group.mkdir()
        (group / "blkio.throttle.write_iops_device").write_text(f"{os.major(number)}:{os.minor(number)} {writes_per_s}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"this host lets nobody slow a disk down: {error}")
    try:
        yield
    finally:
        (BLKIO / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@pytest.mark.root("mounts a small disk")
def test_a_slow_disk(start_broker: Callable[..., Broker], engine: str, tmp_path: Path, disk: Disk, other_disk: Disk) -> None:
    """Its producers wait and are answered; nothing is called failed; partitions on other disks are not held up."""
    metrics = f"127.0.0.1:{free_port()}"
    broker = start_broker(data_on(other_disk, tmp_path), io=engine, args=["--data", str(disk.at / "data"), "--metrics", metrics])
    wire, other = Wire(broker.bootstrap), Wire(broker.bootstrap)
    here, there = spread(wire, broker, disk)
    with slowed(disk, broker.pid, 1):
        began = time.monotonic()
        slow = threading.Thread(target=lambda: codes.extend(wire.produce("t", [b"s"], partition=there)["error_code"] for _ in range(4)))
        codes: list[int] = []
        slow.start()
        for _ in range(20):
            assert other.produce("t", [b"f"], partition=here)["error_code"] == 0
        answered_meanwhile = len(codes)
        slow.join(120)
        seconds = time.monotonic() - began
    assert codes == [0] * 4
    if seconds < 2:
        pytest.skip("this kernel does not slow it down")
    assert answered_meanwhile < 4
    assert total(metrics, "fastlog_disk_failed") == 0
    assert read_to_end(wire, "t") == (5 if there == 0 else 21)
    wire.close()
    other.close()
    broker.stop()


def test_a_disk_that_lies(start_broker: Callable[..., Broker], engine: str) -> None:
    """A bit that was flipped on the disk: readers of that batch get CORRUPT_MESSAGE and no bytes, others all, and the log says where; with
    the check turned off for the topic they get what is there."""
    broker = start_broker(io=engine)
    wire = Wire(broker.bootstrap)
    assert wire.create("t")["error_code"] == 0
    for _ in range(8):
        assert wire.produce("t", [BODY])["error_code"] == 0
    wire.close()
    broker.stop()
    path = broker.data / "t-0" / f"{0:020}.log"
    data = bytearray(path.read_bytes())
    size = len(data) // 8
    data[3 * size + 30_000] ^= 8
    path.write_bytes(data)
    broker.start()
    wire = Wire(broker.bootstrap)

    def fetch(offset: int) -> tuple[int, bytes]:
        asked = [{"topic": "t", "partitions": [{"partition": 0, "fetch_offset": offset, "partition_max_bytes": 8 << 20}]}]
        answer = wire.call("Fetch", 11, replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=8 << 20, topics=asked)
        part = answer["responses"][0]["partitions"][0]
        return part["error_code"], part["records"] or b""

    assert fetch(0) == (0, bytes(data[: 3 * size]))
    for _ in range(2):
        assert fetch(3) == (Error.CORRUPT_MESSAGE, b"")
    assert fetch(4) == (0, bytes(data[4 * size :]))
    assert broker.log.count(f"t-0/{0:020}.log: byte {3 * size}: a record batch with a wrong CRC") == 1
    assert wire.produce("t", [BODY])["error_code"] == 0
    wanted = {"name": "fastlog.fetch.verify.enable", "config_operation": 0, "value": "false"}
    resource = {"resource_type": 2, "resource_name": "t", "configs": [wanted]}
    answer = wire.call("IncrementalAlterConfigs", 1, resources=[resource], validate_only=False)
    assert answer["responses"][0]["error_code"] == 0
    assert fetch(3)[1].startswith(bytes(data[3 * size : 4 * size]))
    wire.close()
    broker.stop()
