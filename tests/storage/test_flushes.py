"""Whether one flush may do for many files is decided by the file system, its options, and what the device is seen to be given."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlog.storage.flushes import FLUSHES, one_flush_for_many, synced_whole

Host = Callable[..., tuple[Path, Path]]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A made-up /sys and mountinfo for the device that tmp_path is on; each fdatasync is counted as `reach` flushes of it."""

    def make(kind: str = "ext4", options: str = "rw", above: str = "rw", cache: str = "write back", reach: int = 1) -> tuple[Path, Path]:
        device = tmp_path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        disk = tmp_path / "sys/devices/disk"
        (disk / "part/").mkdir(parents=True)
        (disk / "part/partition").write_text("1\n")
        (disk / "queue").mkdir()
        (disk / "queue/write_cache").write_text(cache + "\n")
        stat = disk / "stat"
        stat.write_text(" ".join(["7"] * 17))
        (tmp_path / "sys/dev/block").mkdir(parents=True)
        (tmp_path / f"sys/dev/block/{number}").symlink_to(disk / "part")
        mounts = tmp_path / "mountinfo"
        mounts.write_text(f"21 1 0:5 / /proc rw - proc proc rw\n22 1 {number} / / {above} shared:1 - {kind} /dev/disk1 {options}\n")

        def fdatasync(fd: int) -> None:
            fields = stat.read_text().split()
            fields[15] = str(int(fields[15]) + reach)
            stat.write_text(" ".join(fields))

        monkeypatch.setattr("os.fdatasync", fdatasync)
        return tmp_path / "sys", mounts

    return make


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_allowed_where_each_flush_reaches_the_device(host: Host, tmp_path: Path, kind: str) -> None:
    sys, mounts = host(kind)
    verdict = one_flush_for_many([tmp_path, tmp_path], sys=sys, mounts=mounts)
    assert (verdict.allowed, verdict.why) == (True, f"{kind} on disk")


def test_not_where_flushes_do_not_arrive(host: Host, tmp_path: Path) -> None:
    sys, mounts = host(reach=0)
    verdict = one_flush_for_many([tmp_path], sys=sys, mounts=mounts)
    assert not verdict.allowed
    assert f"0 of {FLUSHES}" in verdict.why


def test_a_device_without_a_cache_needs_none(host: Host, tmp_path: Path) -> None:
    sys, mounts = host(cache="write through", reach=0)
    assert one_flush_for_many([tmp_path], sys=sys, mounts=mounts).allowed


@pytest.mark.parametrize(
    "made",
    [{"kind": "btrfs"}, {"kind": "tmpfs"}, {"options": "rw,nobarrier"}, {"above": "rw,barrier=0"}, {"options": "rw,logdev=/dev/other"}],
)
def test_not_on_other_file_systems_or_without_barriers(host: Host, tmp_path: Path, made: dict[str, str]) -> None:
    sys, mounts = host(**made)
    assert not one_flush_for_many([tmp_path], sys=sys, mounts=mounts).allowed


def test_what_cannot_be_looked_at_is_not_relied_on(host: Host, tmp_path: Path) -> None:
    sys, mounts = host()
    (sys / "devices/disk/queue/write_cache").unlink()
    assert not one_flush_for_many([tmp_path], sys=sys, mounts=mounts).allowed
    assert not one_flush_for_many([tmp_path / "none"], sys=sys, mounts=mounts).allowed
    assert not one_flush_for_many([], sys=sys, mounts=mounts).allowed


KNOWN = {"ext4": True, "xfs": True, "tmpfs": True, "overlay": True, "fuse.sshfs": False, "nfs4": False}


@pytest.mark.parametrize(("kind", "known"), KNOWN.items())
def test_syncfs_is_relied_on_where_it_is_known_to_do_all(host: Host, tmp_path: Path, kind: str, known: bool) -> None:
    _, mounts = host(kind)
    assert synced_whole(tmp_path, mounts=mounts) == known
    assert not synced_whole(Path("/proc"), mounts=mounts)


def test_this_host_gives_an_answer(tmp_path: Path) -> None:
    verdict = one_flush_for_many([tmp_path])
    assert verdict.why
