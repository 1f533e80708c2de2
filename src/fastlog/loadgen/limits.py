"""What this machine can do at best, through the kernel interfaces that a broker uses: the yardstick beside the brokers' numbers.

Each figure is a dict with some of MB_per_s, per_s, p50_us, p99_us, cpu_s_per_GB. MB are 10^6 bytes.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastlog.native import loadlimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
FILE_BYTES = 512 * MIB
ECHO, CATCH = 1, 2
Figures = dict[str, dict[str, Any]]


def _buffer(size: int) -> mmap.mmap:
    """Page-aligned memory with contents that don't compress."""
    made = mmap.mmap(-1, size)
    made[:] = os.urandom(size)
    return made


def _named(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def _repeat(do: Callable[[int], int], size: int, depth: int, seconds: float, file_bytes: int) -> dict[str, float]:
    """Calls do(offset) again and again, wrapping at the file's end, in `depth` threads with a part of the file each."""
    part = file_bytes // depth // size * size

    def work(index: int) -> list[float]:
        times: list[float] = []
        offset = 0
        end = time.perf_counter() + seconds
        while True:
            begun = time.perf_counter()
            if begun >= end:
                return times
            do(index * part + offset)
            times.append(time.perf_counter() - begun)
            offset = (offset + size) % part

    begun = time.perf_counter()
    with ThreadPoolExecutor(depth) as pool:
        done = list(pool.map(work, range(depth)))
    took = time.perf_counter() - begun
    times = sorted(t for each in done for t in each)
    return {
        "MB_per_s": round(len(times) * size / 1e6 / took, 1),
        "per_s": round(len(times) / took, 1),
        "p50_us": round(times[len(times) // 2] * 1e6, 1),
        "p99_us": round(times[int(len(times) * 0.99)] * 1e6, 1),
    }


def disk(directory: Path, seconds: float, file_bytes: int = FILE_BYTES) -> Figures:
    """Writes and reads with O_DIRECT by size and number in flight, plain and durable, in a file of half a GiB, `seconds` each.

    Raises OSError where O_DIRECT is missing.
    """
    path = directory / "fastlog-limits"
    found: Figures = {}
    data = _buffer(MIB)
    plain = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    direct = -1
    try:
        direct = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        os.posix_fallocate(plain, 0, file_bytes)
        for offset in range(0, file_bytes, MIB):  # blocks that were written before owe no metadata afterwards
            os.pwritev(direct, [data], offset)
        os.fsync(plain)

        def measure(name: str, do: Callable[[int, memoryview], int], size: int, depths: tuple[int, ...]) -> None:
            piece = memoryview(data)[:size]
            for depth in depths:
                figures = _repeat(lambda at: do(at, piece), size, depth, seconds, file_bytes)
                found[f"{name} {_named(size)}, {depth} in flight"] = figures

        for size in (64 * KIB, MIB):
            measure("write", lambda at, piece: os.pwritev(direct, [piece], at), size, (1, 4, 16))
        for size, depths in ((4 * KIB, (1, 4, 16)), (64 * KIB, (1, 4, 16)), (256 * KIB, (1,)), (MIB, (1, 4))):
            # RWF_DSYNC onto blocks that were written before: what an acknowledgement from stable storage costs at least.
            measure("durable write", lambda at, piece: os.pwritev(direct, [piece], at, os.RWF_DSYNC), size, depths)

        def flushed(at: int, piece: memoryview) -> int:
            os.pwritev(plain, [piece], at)
            os.fdatasync(plain)
            return 0

        measure("buffered write and fdatasync", flushed, 64 * KIB, (1,))
        os.fsync(plain)
        targets = threading.local()

        def read(at: int, piece: memoryview) -> int:
            if not hasattr(targets, "buffer"):
                targets.buffer = mmap.mmap(-1, MIB)
            return os.preadv(direct, [memoryview(targets.buffer)[: len(piece)]], at)

        for size in (64 * KIB, MIB):
            measure("read", read, size, (1, 4, 16))
    finally:
        os.close(plain)
        if direct >= 0:
            os.close(direct)
        path.unlink()
    return found


def processor(core: int, seconds: float) -> Figures:
    """Copying memory and checking sums on one core; from memory (64 MiB) and from the cache (64 KiB)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return {
            f"{what} {_named(size)}": {"MB_per_s": round(rate(size, seconds), 1)}
            for what, rate in (("memory copy", loadlimits.copy_rate), ("CRC-32C", loadlimits.checksum_rate))
            for size in (64 * KIB, 64 * MIB)
        }
    finally:
        os.sched_setaffinity(0, before)


def serve(listener: socket.socket, core: int | None = None) -> None:
    """The far end of `network`: answers one connection after the other until the listener is closed.

    A connection says what it wants in eight bytes: ECHO or CATCH (with CRC-32C: CATCH + 1) and the size of its messages. After CATCH the
    far end says what it took: bytes, seconds, CPU seconds (three doubles), once the near end has shut down its side.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})  # of this thread
    while True:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        with end:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = end.recv(8, socket.MSG_WAITALL)
            if len(asked) < 8:
                continue
            what, size = struct.unpack("<II", asked)
            if not 0 < size <= 64 * MIB:
                continue
            if what == ECHO:
                loadlimits.serve_echo(end.fileno(), size)
            elif what in (CATCH, CATCH + 1):
                end.sendall(struct.pack("<ddd", *loadlimits.catch(end.fileno(), size, what == CATCH + 1)))


def network(address: tuple[str, int], seconds: float, label: str = "") -> Figures:
    """Echoes, closed and by the clock, and receiving with and without a checksum, against `serve` at an address. Raises OSError."""
    found: Figures = {}

    def connect(what: int, size: int) -> socket.socket:
        made = socket.create_connection(address, timeout=10)
        made.settimeout(None)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sendall(struct.pack("<II", what, size))
        return made

    for size, rate in ((KIB, 0.0), (KIB, 1000.0), (KIB, 10_000.0), (64 * KIB, 10e6 / (64 * KIB))):
        with connect(ECHO, size) as near:
            mine = loadlimits.ping(near.fileno(), size, rate, seconds)
        name = f"{label}echo of {_named(size)}, {f'{rate:.0f} a second' if rate else 'one after the other'}"
        found[name] = {key: mine[key] for key in ("count", "p50_us", "p99_us", "max_us")}
    for size in (64 * KIB, MIB):
        for checksum in (False, True):
            with connect(CATCH + checksum, size) as near:
                loadlimits.pour(near.fileno(), size, seconds)
                near.shutdown(socket.SHUT_WR)
                total, took, cpu = struct.unpack("<ddd", near.recv(24, socket.MSG_WAITALL))
            name = f"{label}receive {_named(size)}{' and CRC-32C' if checksum else ''}"
            found[name] = {"MB_per_s": round(total / 1e6 / took, 1), "cpu_s_per_GB": round(cpu / (total / 1e9), 3)}
    return found


def loopback(broker_core: int, load_core: int, seconds: float) -> Figures:
    """`network` over loopback, the receiver on the broker's core, the sender on the generator's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = threading.Thread(target=serve, args=(listener, broker_core), daemon=True)
        far.start()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {load_core})
        try:
            return network(listener.getsockname()[:2], seconds)
        finally:
            os.sched_setaffinity(0, before)
            listener.shutdown(socket.SHUT_RDWR)
            far.join()


def best(figures: Figures, name: str) -> tuple[str, float]:
    """The highest MB/s among the figures whose names begin so. Raises ValueError when there is none."""
    return max(((each, found["MB_per_s"]) for each, found in figures.items() if each.startswith(name)), key=lambda pair: pair[1])
