"""Durable rows on other file systems than the one under test: a journaled ext4 and XFS, each on a loop device with direct I/O.

A loop device adds a layer, alike for all brokers: these rows are for what a file system's journal makes of the order of brokers, not to be
compared with the rows on the disk itself. They need root, loop devices and mkfs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.rows import ALL, Row, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.brokers import Broker
    from bench.session import Session

IMAGE_BYTES = 4 << 30
BYTES_MAX = 2 << 30  # of one run
UNMOUNT_ATTEMPTS = 40
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def missing(kind: str) -> str:
    """What is missing for such a file system; "" when nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in (MAKE[kind][0], "losetup", "mount", "umount") if not shutil.which(tool)]
    return f"needs {', '.join(lacking)}" if lacking else ""


def _run(*command: str | Path) -> str:
    """Raises OSError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def written_image(directory: Path) -> Path:
    """A file of which every block was written, so that writing to it owes the file system under it nothing; made once a session."""
    image = directory / "loop.image"
    if not image.exists() or image.stat().st_size < IMAGE_BYTES:
        directory.mkdir(parents=True, exist_ok=True)
        with image.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, IMAGE_BYTES)
            piece = bytes(4 << 20)
            for _ in range(IMAGE_BYTES // len(piece)):
                file.write(piece)
            os.fsync(file.fileno())
    return image


def _unmount(point: Path) -> None:
    """Waits for what a broker that has ended still has open: its last requests in the kernel. Raises OSError when that takes too long."""
    for attempt in range(UNMOUNT_ATTEMPTS):
        try:
            _run("umount", point)
            return
        except OSError:
            if attempt == UNMOUNT_ATTEMPTS - 1:
                raise
            time.sleep(0.5)


@contextlib.contextmanager
def mounted(directory: Path, kind: str) -> Iterator[Path]:
    """An empty file system of that kind on a loop device that bypasses the page cache."""
    image, point = written_image(directory), directory / kind
    point.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as undo:
        device = _run("losetup", "--find", "--show", "--direct-io=on", image)
        undo.callback(_run, "losetup", "--detach", device)
        _run(*MAKE[kind], device)
        _run("mount", device, point)
        undo.callback(_unmount, point)
        yield point


def measuring(kind: str) -> Callable[[Session, Row, Broker], dict[str, Any]]:
    def measure(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
        """A broker of its own on the new file system, warmed by the lead's load; the session's stays up and idle."""
        session.make_room(IMAGE_BYTES)
        with mounted(session.aside, kind) as point:
            other = broker.elsewhere(point)
            other.start()
            try:
                job = session.job(row, other, row.name, session.seconds(row), BYTES_MAX)
                session.generate(replace(job, topic=f"{row.name}-lead", seconds=session.options.lead_seconds, bytes_max=BYTES_MAX // 4))
                return session.observe(other, job, fill=False)
            finally:
                other.stop()

    return measure


def rows(kind: str) -> tuple[Row, ...]:
    shared: dict[str, Any] = {"stable": True, "measure": measuring(kind), "needs": lambda: missing(kind), "seconds_max": 12}
    spread = {"acks": ALL, "partitions": 16, "connections": 16, "window": 4}
    single = {"acks": ALL, "records": 1, "window": 128}
    return (
        Row(
            f"stable-16-{kind}",
            f"64 KiB batches, stable storage before the ack, 16 partitions, on {kind}",
            "own",
            spread,
            metric="MB_per_s",
            unit="MB/s",
            targets=(Target("MB_per_s", 3),),
            **shared,
        ),
        Row(
            f"stable-single-{kind}",
            f"one 1 KiB record per batch, stable storage before the ack, 128 in flight, on {kind}",
            "own",
            single,
            metric="batches_per_s",
            unit="batches/s",
            targets=(Target("batches_per_s", 40),),
            **shared,
        ),
    )


ROWS = (*rows("ext4"), *rows("xfs"))
