"""What this machine can do at best, through the kernel interfaces that a broker uses: the yardstick beside the brokers' numbers."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
FILE_BYTES = 512 * MIB


def _buffer(size: int) -> mmap.mmap:
    """Page-aligned memory with contents that don't compress."""
    made = mmap.mmap(-1, size)
    made[:] = os.urandom(size)
    return made


def _repeat(write: Callable[[int], int], size: int, depth: int, seconds: float) -> dict[str, float]:
    """Calls write(offset) one after the other, wrapping at the file's end, in `depth` threads with a part of the file each."""
    part = FILE_BYTES // depth // size * size

    def work(index: int) -> tuple[int, list[float]]:
        times: list[float] = []
        offset = 0
        end = time.perf_counter() + seconds
        while True:
            begun = time.perf_counter()
            if begun >= end:
                return len(times), times
            write(index * part + offset)
            times.append(time.perf_counter() - begun)
            offset = (offset + size) % part

    begun = time.perf_counter()
    with ThreadPoolExecutor(depth) as pool:
        done = list(pool.map(work, range(depth)))
    took = time.perf_counter() - begun
    times = sorted(t for _, each in done for t in each)
    return {
        "MB_per_s": round(sum(n for n, _ in done) * size / 1e6 / took, 1),
        "p50_us": round(times[len(times) // 2] * 1e6, 1),
        "p99_us": round(times[int(len(times) * 0.99)] * 1e6, 1),
    }


def disk(directory: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Sequential and durable writes and reads with O_DIRECT in a file of half a GiB. Raises OSError where O_DIRECT is missing."""
    path = directory / "limits"
    found: dict[str, dict[str, float]] = {}
    data = _buffer(MIB)
    plain = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    direct = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    try:
        os.posix_fallocate(plain, 0, FILE_BYTES)
        for offset in range(0, FILE_BYTES, MIB):  # blocks that were written before owe no metadata afterwards
            os.pwritev(direct, [data], offset)
        os.fsync(plain)
        for depth in (1, 4):
            found[f"write 1 MiB, {depth} in flight"] = _repeat(lambda at: os.pwritev(direct, [data], at), MIB, depth, seconds)
        for size in (4 * KIB, 64 * KIB, 256 * KIB, MIB):
            piece = memoryview(data)[:size]
            durable = _repeat(lambda at, piece=piece: os.pwritev(direct, [piece], at, os.RWF_DSYNC), size, 1, seconds)  # type: ignore[misc]
            found[f"durable write (DSYNC on written blocks) {size // KIB} KiB, 1 in flight"] = durable

        def flushed(at: int) -> int:
            os.pwritev(plain, [memoryview(data)[: 64 * KIB]], at)
            os.fdatasync(plain)
            return 0

        found["buffered write 64 KiB + fdatasync, 1 in flight"] = _repeat(flushed, 64 * KIB, 1, seconds)
        os.fsync(plain)
        targets = threading.local()

        def read(at: int) -> int:
            if not hasattr(targets, "buffer"):
                targets.buffer = mmap.mmap(-1, MIB)
            return os.preadv(direct, [targets.buffer], at)

        for depth in (1, 4):
            found[f"read 1 MiB, {depth} in flight"] = _repeat(read, MIB, depth, seconds)
    finally:
        os.close(plain)
        os.close(direct)
        path.unlink()
    return found


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def loopback(broker_core: int, load_core: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Echo and receive over loopback TCP, the receiver on the broker's core, the sender on the generator's."""
    from fastlog.native import loadlimits as socketlimits

    found: dict[str, dict[str, Any]] = {}

    def both(far_work: Callable[[int], Any], near_work: Callable[[int], Any]) -> tuple[Any, Any]:
        near, far = _pair()
        result: list[Any] = []

        def run() -> None:
            os.sched_setaffinity(0, {broker_core})
            result.append(far_work(far.fileno()))

        worker = threading.Thread(target=run)
        before = os.sched_getaffinity(0)
        worker.start()
        try:
            os.sched_setaffinity(0, {load_core})
            mine = near_work(near.fileno())
        finally:
            os.sched_setaffinity(0, before)
            near.close()
            worker.join()
            far.close()
        return mine, result[0]

    for size, rate in ((1024, 0.0), (1024, 1000.0)):
        mine, _ = both(
            lambda fd, size=size: socketlimits.serve_echo(fd, size),  # type: ignore[misc]
            lambda fd, size=size, rate=rate: socketlimits.ping(fd, size, rate, seconds),  # type: ignore[misc]
        )
        name = f"echo of {size} bytes, {f'{rate:.0f} a second' if rate else 'one after the other'}"
        found[name] = {key: mine[key] for key in ("count", "p50_us", "p99_us", "max_us")}
    for size in (64 * KIB, MIB):
        for checksum in (False, True):
            _, (total, took, cpu) = both(
                lambda fd, size=size, checksum=checksum: socketlimits.catch(fd, size, checksum),  # type: ignore[misc]
                lambda fd, size=size: socketlimits.pour(fd, size, seconds),  # type: ignore[misc]
            )
            name = f"receive {size // KIB} KiB{' + CRC-32C' if checksum else ''}"
            found[name] = {"MB_per_s": round(total / 1e6 / took, 1), "cpu_s_per_GB": round(cpu / (total / 1e9), 3)}
    return found
