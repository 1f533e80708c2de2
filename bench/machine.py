"""What this machine is and what its processes use, from /proc and /sys; and bringing it to the same state before each run.

All Linux only. Sources: proc(5), Documentation/admin-guide/iostats.rst (a sector there is 512 bytes).
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fastlog.loadgen.machine import TICKS, cpu_seconds, device_of, meminfo

__all__ = ["cpu_seconds", "device_of", "meminfo"]

PAGE = os.sysconf("SC_PAGE_SIZE")
MB = 1_000_000
DESCRIPTORS = 200_000
IDLE_SHARE, IDLE_WINDOW_SECONDS = 0.03, 0.5


@dataclass(frozen=True)
class Usage:
    """Counters at one moment; subtract two."""

    at: float  # s, monotonic
    cpu: float  # s of the process, kernel time and kernel threads on its behalf (io_uring's workers) included
    core_busy: float  # s during which its core was not idle, whoever ran
    io_written: int  # bytes that the process caused to be written (/proc/PID/io)
    device_written: int  # bytes that went to the device, of all
    switches: int  # context switches of its threads that live

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.at - before.at,
            self.cpu - before.cpu,
            self.core_busy - before.core_busy,
            self.io_written - before.io_written,
            self.device_written - before.device_written,
            self.switches - before.switches,
        )


def allow_descriptors() -> None:
    """Lets brokers that are started from now on open as many files as they are told to be allowed, where this process may do that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, DESCRIPTORS))


def core_busy_seconds(core: int) -> float:
    """User, nice, system, interrupts and steal of a core; not idle, not waiting for I/O."""
    for line in Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] == f"cpu{core}":
            return sum(int(fields[i]) for i in (1, 2, 3, 6, 7, 8)) / TICKS
    raise ValueError(f"no core {core}")


def status(pid: int) -> dict[str, str]:
    pairs = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory in MB: all, and by kind; shared memory (where an arena lies) apart."""
    found = status(pid)
    kinds = {"all": "VmRSS", "anonymous": "RssAnon", "files": "RssFile", "shared": "RssShmem", "peak": "VmHWM"}
    return {kind: round(int(found[name].split()[0]) * 1024 / MB, 1) for kind, name in kinds.items()}


def switches(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            for line in (task / "status").read_text().splitlines():
                if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                    total += int(line.split()[1])
        except FileNotFoundError:
            continue  # a thread that has just ended
    return total


def disk_counters(device: str) -> tuple[int, int]:
    """Bytes written, requests in flight."""
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == device:
            return int(fields[9]) * 512, int(fields[11])
    return 0, 0


def usage(pid: int, core: int, device: str) -> Usage:
    written = 0
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            written = int(line.split()[1])
    return Usage(time.monotonic(), cpu_seconds(pid), core_busy_seconds(core), written, disk_counters(device)[0], switches(pid))


def dirty_limit() -> int:
    """Bytes of dirty page cache at which writers are held back (vm.dirty_ratio of what is available)."""
    share = int(Path("/proc/sys/vm/dirty_ratio").read_text())
    fixed = int(Path("/proc/sys/vm/dirty_bytes").read_text())
    return fixed or meminfo()["MemAvailable"] * share // 100


def wait_for_quiet_disk(device: str, seconds: float = 60) -> None:
    """Writes out all that is dirty and waits until the device has nothing to do (discards of deleted files too)."""
    os.sync()
    deadline = time.monotonic() + seconds
    quiet = 0
    while quiet < 5 and time.monotonic() < deadline:
        before = disk_counters(device)[0]
        time.sleep(0.1)
        after, in_flight = disk_counters(device)
        quiet = quiet + 1 if in_flight == 0 and after - before < MB else 0


def wait_for_idle(pids: list[int], seconds: float = 60) -> float:
    """Waits until these processes together use next to nothing of a core. Returns their share of one at last.

    What a broker has still to do after a load (deleted topics, a JVM that compiles) would otherwise be taken from the next one on its core.
    """
    deadline = time.monotonic() + seconds
    while True:
        begun, before = time.monotonic(), sum(map(cpu_seconds, pids))
        time.sleep(IDLE_WINDOW_SECONDS)
        share = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - begun)
        if share < IDLE_SHARE or time.monotonic() > deadline:
            return share


def drop_page_cache() -> None:
    """Writes out what is dirty and forgets all cached file contents (sysctl/vm.rst of the kernel). Raises OSError: needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1\n")


def fill_page_cache(directory: Path, free_bytes_left: int = 1 << 30) -> float:
    """Turns free memory into clean page cache, by reading a file that is all hole; returns the seconds taken.

    A virtual machine's free pages may have no memory behind them (balloon, free page reporting): the first touch of such a page
    costs microseconds, and whoever runs first would pay for all. Clean cache is handed out again without that.
    """
    begun = time.monotonic()
    free = meminfo()["MemFree"] - free_bytes_left
    if free <= 0:
        return 0.0
    path = directory / "page-cache.hole"
    with path.open("ab") as file:
        file.truncate(meminfo()["MemTotal"])
    size = path.stat().st_size
    step = 1 << 20
    stop = threading.Event()

    def read(start: int, end: int) -> None:
        buffer = memoryview(bytearray(step))
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while file.tell() < end and not stop.is_set():
                file.readinto(buffer)
                if meminfo()["MemFree"] < free_bytes_left:
                    stop.set()

    readers = [threading.Thread(target=read, args=(size * i // 2, size * (i + 1) // 2)) for i in range(2)]
    for each in readers:
        each.start()
    for each in readers:
        each.join()
    return round(time.monotonic() - begun, 1)
