"""Data directories, checkpoints, epochs and placement, each by itself."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fastlog.storage import directory as directories
from fastlog.storage.directory import DataDirectory, DirectoryError, open_directory, random_id
from fastlog.storage.epochs import UNDEFINED, Epochs, load_epochs
from fastlog.storage.files import DamagedFileError, read_checkpoint, replace_file, write_checkpoint
from fastlog.storage.placement import Placement, remove_partition, survey

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from fastlog.storage.directory import open_directory
open_directory(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def _holder(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_directory_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "ALIVE_WAIT_S", 0.1)
    with _holder(tmp_path) as holder:
        with pytest.raises(DirectoryError, match=rf"is locked by process {holder.pid}: stop it, or give another with --data"):
            open_directory(tmp_path)
        holder.kill()
        holder.wait()
        open_directory(tmp_path).close()


def test_a_lock_that_outlives_its_process_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a ring does until its last request has ended: here another process has the descriptor."""
    fd = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        dead.wait()
        os.write(fd, f"{dead.pid}\n".encode())
    keeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], pass_fds=[fd])
    os.close(fd)
    began = time.monotonic()
    open_directory(tmp_path).close()
    assert 0.1 < time.monotonic() - began < 20
    assert "which has ended: its last writes; waiting" in caplog.text
    keeper.wait()


def test_a_directory_that_kafka_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka takes a POSIX lock on the same file."""
    monkeypatch.setattr(directories, "ALIVE_WAIT_S", 0.1)
    monkeypatch.setattr(directories, "DEAD_WAIT_S", 0.1)
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DirectoryError, match="is locked by another process"):
            open_directory(tmp_path)
        holder.kill()


def test_stamped_once_and_checked_ever_after(tmp_path: Path) -> None:
    one = open_directory(tmp_path / "new" / "deep")
    assert (one.cluster_id, one.clean) == (None, False)
    one.stamp("cluster-A", 1)
    identity = one.id
    assert len(identity) == 22
    text = (one.path / "meta.properties").read_text()
    assert text == f"cluster.id=cluster-A\ndirectory.id={identity}\nfastlog.format=1\nnode.id=1\nversion=1\n"
    one.mark_clean()
    one.close()
    again = open_directory(one.path)
    assert (again.cluster_id, again.id, again.clean) == ("cluster-A", identity, True)
    again.stamp("cluster-A", 1)
    with pytest.raises(DirectoryError, match="belongs to cluster cluster-A, not B"):
        again.stamp("B", 1)
    with pytest.raises(DirectoryError, match="belongs to node 1, not 2"):
        again.stamp("cluster-A", 2)
    again.mark_dirty()
    again.close()
    third = open_directory(one.path)
    assert not third.clean
    third.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("fastlog.format=2\ncluster.id=x\nnode.id=1\ndirectory.id=y\n", "has format 2; this release reads formats up to 1: use a newer"),
        ("#comment\nversion=1\ncluster.id=x\nnode.id=1\n", "is a data directory of Apache Kafka"),
        ("fastlog.format=one\n", "is damaged"),
        ("fastlog.format=1\ncluster.id=x\n", "is damaged"),
        ("", "is damaged"),
        ("\udcff", "is damaged"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "meta.properties").write_text(content, errors="surrogateescape")
    with pytest.raises(DirectoryError, match=why):
        open_directory(tmp_path)
    (tmp_path / "meta.properties").unlink()
    open_directory(tmp_path).close()  # the lock was given back


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryError, match=r"file/data can't be used: Not a directory"):
        open_directory(tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(DirectoryError, match=r"may not write there \(chown it, or give another with --data\)"):
            open_directory(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_random_ids() -> None:
    ids = {random_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(one) == 22 and not one.startswith("-") for one in ids)


# ---- files ----


def test_checkpoints_are_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert read_checkpoint(path, 2) == []
    write_checkpoint(path, [(1, "a"), (2, "b")])
    assert path.read_text() == "0\n2\n1 a\n2 b\n"
    assert read_checkpoint(path, 2) == [["1", "a"], ["2", "b"]]
    write_checkpoint(path, [])
    assert read_checkpoint(path, 2) == []
    for damaged in (b"", b"0", b"1\n0\n", b"0\n1\n", b"0\n1\n1 2 3\n", b"0\n2\n1 2\n", b"0\nx\n1 2\n", b"\xff\xfe"):
        replace_file(path, damaged)
        with pytest.raises(DamagedFileError, match=str(path)):
            read_checkpoint(path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


# ---- epochs ----


def test_epochs_as_kafkas_cache_keeps_them() -> None:
    epochs = Epochs()
    assert epochs.end_offset(0, 10) == UNDEFINED
    for epoch, start in ((2, 0), (4, 11), (7, 20)):
        assert epochs.assign(epoch, start)
    assert not epochs.assign(7, 25)
    answers = {asked: epochs.end_offset(asked, 33) for asked in (-1, 0, 2, 3, 4, 5, 6, 7, 8)}
    assert answers == {
        -1: UNDEFINED,
        0: (0, 0),
        2: (2, 11),
        3: (2, 11),
        4: (4, 20),
        5: (4, 20),
        6: (4, 20),
        7: (7, 33),
        8: UNDEFINED,
    }
    assert not epochs.truncate_end(21)
    assert epochs.truncate_end(20)
    assert epochs.entries == [(2, 0), (4, 11)]
    assert epochs.assign(5, 11), "an epoch that wrote nothing is replaced"
    assert epochs.entries == [(2, 0), (5, 11)]
    assert epochs.truncate_start(5)
    assert epochs.entries == [(2, 5), (5, 11)]
    assert epochs.truncate_start(11)
    assert epochs.entries == [(5, 11)]
    assert not epochs.truncate_start(3)
    with pytest.raises(ValueError, match="epoch -1"):
        epochs.assign(-1, 0)


def test_epochs_are_kept_in_kafkas_file(tmp_path: Path) -> None:
    epochs = Epochs()
    epochs.assign(0, 0)
    epochs.assign(3, 50)
    epochs.save(str(tmp_path))
    assert (tmp_path / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n3 50\n"
    assert load_epochs(str(tmp_path)).entries == [(0, 0), (3, 50)]
    (tmp_path / "leader-epoch-checkpoint").write_text("0\n1\nx 0\n")
    with pytest.raises(DamagedFileError):
        load_epochs(str(tmp_path))


# ---- placement ----


class _Directory(DataDirectory):
    def __init__(self, name: str, free: int) -> None:
        self.id = name
        self.free = free
        self.failed = None

    def free_bytes(self) -> int:
        if self.free < 0:
            raise OSError("the disk is gone")
        return self.free


def test_partitions_are_dealt_to_the_emptiest_directory_with_room() -> None:
    a, b, c, full, gone = _Directory("a", 900), _Directory("b", 1000), _Directory("c", 1000), _Directory("full", 50), _Directory("gone", -1)
    placement = Placement([a, b, c, full, gone], ["a", "a", "b", "elsewhere"])
    assert [placement.choose().id for _ in range(7)] == ["c", "b", "c", "b", "c", "a", "b"]
    placement.count("a", -3)
    assert placement.choose() is a
    for directory in (a, b, c):
        directory.free = 10
    placement.refresh()
    assert placement.choose() is full


def test_survey_tells_strangers_from_what_a_deletion_left(tmp_path: Path) -> None:
    data = open_directory(tmp_path)
    for name in ("t-0", "t-1", "a-b-2", "x-0.0f0f-delete", "other", "-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "file-0").write_text("")
    assert survey(data, {"t-0"}) == (["a-b-2", "t-1"], ["x-0.0f0f-delete"])
    data.close()


def test_removing_a_partition(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 249 + "-1")
    for path in (tmp_path / "t-0", long):
        path.mkdir()
        (path / "00000000000000000000.log").write_bytes(b"x")
        remove_partition(path)
        remove_partition(path)
    assert list(tmp_path.iterdir()) == []
