"""What this machine is, and what a process on it uses, from /proc and /sys (Linux; proc(5))."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def device_of(path: Path) -> str:
    """The name in /proc/diskstats of the device that holds the path; "" when it has none (tmpfs, overlay)."""
    number = path.stat().st_dev
    wanted = (os.major(number), os.minor(number))
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == wanted:
            return fields[2]
    return ""


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return found


def mount_of(path: Path) -> str:
    """The mount that holds the path: "device on point type fs (options)"."""
    best, found = "", ""
    real = str(path.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind, options = line.split()[:4]
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, found = point, f"{device} on {point} type {kind} ({options})"
    return found


def read_or(path: Path, missing: str = "?") -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return missing


def describe(directory: Path) -> dict[str, object]:
    """The machine as a report names it."""
    models = (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    device = device_of(directory)
    queue = Path("/sys/class/block") / device / "queue"
    if not queue.exists():
        queue = (Path("/sys/class/block") / device).resolve().parent / "queue"
    return {
        "cpu": f"{os.cpu_count()} x {next(models, platform.machine())}",
        "memory_gb": round(meminfo()["MemTotal"] / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mount": mount_of(directory),
        "device": device,
        "write_cache": read_or(queue / "write_cache"),
        "fua": read_or(queue / "fua"),
        "scheduler": read_or(queue / "scheduler"),
        "free_disk_gb": round(shutil.disk_usage(directory).free / 1e9, 1),
        "io_uring_disabled": read_or(Path("/proc/sys/kernel/io_uring_disabled"), "no such setting"),
    }
