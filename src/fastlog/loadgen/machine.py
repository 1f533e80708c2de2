"""What this machine is, and what a process on it uses, from /proc and /sys (Linux; proc(5))."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

NVME = re.compile(r"nvme\d+")
MOST_INTERRUPTS = 0.9
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


def interrupts_core(device: str, table: str | None = None) -> int | None:
    """The one core that nearly all interrupts of a virtio or NVMe disk go to; None when there is no such core, or it isn't known.

    What a disk's completions cost is then on that core: the broker's place is there, and anything else that keeps the core busy delays them
    (up to a tick, 4 ms, with a kernel that doesn't preempt). `table`: the contents of /proc/interrupts.
    """
    place = (Path("/sys/class/block") / device).resolve() if device else Path()
    controller = next((part for part in reversed(place.parts) if part.startswith("virtio") or NVME.fullmatch(part)), "")
    if not controller:
        return None
    lines = (Path("/proc/interrupts").read_text() if table is None else table).splitlines()
    cores = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    counts = [0] * len(cores)
    for line in lines[1:]:
        fields = line.split()
        name = fields[-1]
        if name.startswith((f"{controller}-req", f"{controller}q")) and len(fields) > len(cores):
            counts = [a + int(b) for a, b in zip(counts, fields[1:], strict=False)]
    most = max(counts)
    return cores[counts.index(most)] if most > MOST_INTERRUPTS * sum(counts) else None


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
        "interrupts_core": interrupts_core(device),
        "scheduler": read_or(queue / "scheduler"),
        "free_disk_gb": round(shutil.disk_usage(directory).free / 1e9, 1),
        "io_uring_disabled": read_or(Path("/proc/sys/kernel/io_uring_disabled"), "no such setting"),
    }
