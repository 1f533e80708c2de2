"""What this machine gives the broker: cores, memory, descriptors, and whether memory may outlive the process."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY_MIN: Final = 64 << 20
MEMORY_DEFAULT_MAX: Final = 1 << 30
MEMORY_SHARE: Final = 4
"""By default the budget is this part of what the process may have."""
SHARDS_MAX: Final = 64
DESCRIPTORS_FEW: Final = 4096
"""Fewer open files than these and an operator is warned."""
ARENA_DIRECTORY: Final = "/dev/shm"  # noqa: S108 - the files in it have unpredictable names and are checked
SYSTEM_UID_MAX: Final = 999
"""logind removes what ordinary users leave in shared memory when they log out (RemoveIPC), and nothing of these."""

PID_NAMESPACE_FIRST: Final = 0xEFFFFFFC
MOUNT_NAMESPACE_FIRST: Final = 0xEFFFFFF8


@dataclass(frozen=True, slots=True)
class Decision:
    """A value and where it comes from, for the operator."""

    value: int
    why: str


def cores() -> list[int]:
    """The cores that the process may run on; as many as its CPU quota pays for, when it has one."""
    allowed = sorted(os.sched_getaffinity(0))
    quota = cpu_quota()
    count = len(allowed) if quota is None else max(1, min(len(allowed), round(quota)))
    return allowed[: min(count, SHARDS_MAX)]


def cpu_quota() -> float | None:
    """CPUs' worth of time that the control group may use, or None."""
    least: float | None = None
    for directory in _cgroup_v2():
        limit, _, period = _read(directory / "cpu.max").partition(" ")
        if limit.isdigit() and period.isdigit():
            least = min(int(limit) / int(period), least or float("inf"))
    for directory in _cgroup_v1("cpu"):
        quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            least = min(int(quota) / int(period), least or float("inf"))
    return least


def memory_limit() -> Decision:
    """Bytes that the process may have."""
    limits = [Decision(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "the machine's memory")]
    texts = [_read(directory / "memory.max") for directory in _cgroup_v2()]
    texts += [_read(directory / "memory.limit_in_bytes") for directory in _cgroup_v1("memory")]
    limits += [Decision(int(text), "the control group's limit") for text in texts if text.isdigit()]
    return min(limits, key=lambda limit: limit.value)


def memory_budget() -> Decision:
    """Bytes for buffers, cache and arena together, when the operator does not say."""
    limit = memory_limit()
    share = max(limit.value // MEMORY_SHARE, MEMORY_MIN)
    if share > MEMORY_DEFAULT_MAX:
        return Decision(MEMORY_DEFAULT_MAX, "the default")
    return Decision(share, f"a quarter of {limit.why}")


def raise_descriptor_limit() -> int:
    """Raises RLIMIT_NOFILE to its hard limit and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def arena_directory(memory: int) -> tuple[str | None, str]:
    """Where append arenas may lie so that they outlive a killed process, or None; and why."""
    directory = Path(ARENA_DIRECTORY)
    if in_container():
        return None, "in a container, whose shared memory may go with it"
    if os.getuid() > SYSTEM_UID_MAX and Path("/run/systemd/seats").exists() and not _keeps_ipc():
        return None, "logind may remove an ordinary user's shared memory (RemoveIPC)"
    if not is_tmpfs(directory) or not os.access(directory, os.W_OK | os.X_OK):
        return None, f"{directory} is no tmpfs that may be written to"
    stat = os.statvfs(directory)
    if stat.f_bavail * stat.f_frsize < memory:
        return None, f"{directory} has less than {memory >> 20} MiB free"
    return str(directory), "a tmpfs, which outlives the process"


def is_tmpfs(directory: Path) -> bool:
    """Whether the file system mounted nearest above is a tmpfs."""
    best, kind = "", ""
    for line in _read(Path("/proc/self/mounts")).splitlines():
        _, mounted, found, *_ = line.split(" ")
        if (str(directory) == mounted or str(directory).startswith(mounted.rstrip("/") + "/")) and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind == "tmpfs"


def in_container() -> bool:
    """By the marks that container runtimes leave; a virtual machine made from a container's image has them too and is none."""
    if _in_first_namespaces():
        return False
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or os.environ.get("container"):  # noqa: SIM112 - its name
        return True
    return any(word in _read(Path("/proc/1/cgroup")) for word in ("/docker", "/kubepods", "/lxc", "/containerd"))


def _in_first_namespaces() -> bool:
    """Whether the process is in the PID and mount namespaces that its kernel booted with: its mounts go with the machine only.

    The kernel gives them fixed numbers (include/uapi/linux/nsfs.h; the mount namespace from 6.18 on: before, it is process 1's).
    """
    if _namespace("self", "pid") != PID_NAMESPACE_FIRST:
        return False
    mounts = _namespace("self", "mnt")
    return mounts is not None and mounts in (MOUNT_NAMESPACE_FIRST, _namespace("1", "mnt"))


def _namespace(process: str, kind: str) -> int | None:
    """Its number; None when it may not be looked at."""
    try:
        return Path(f"/proc/{process}/ns/{kind}").stat().st_ino
    except OSError:
        return None


def _keeps_ipc() -> bool:
    lines = [line.strip().replace(" ", "") for line in _read(Path("/etc/systemd/logind.conf")).splitlines()]
    return any(line.lower() in ("removeipc=no", "removeipc=false", "removeipc=0") for line in lines)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cgroup_v2() -> list[Path]:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return _upwards(Path("/sys/fs/cgroup"), path)
    return []


def _cgroup_v1(controller: str) -> list[Path]:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return _upwards(Path("/sys/fs/cgroup") / controller, path)
    return []


def _upwards(root: Path, path: str) -> list[Path]:
    """The group's directory and all above it: each may have a limit of its own."""
    inner = root / path.lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent == root or root in parent.parents)]
