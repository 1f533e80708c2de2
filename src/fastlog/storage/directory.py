"""A data directory: held by one process, stamped with cluster and format, marked when it was left in order.

    .lock                 flock and POSIX lock (Kafka's) for as long as the broker lives; holds its pid
    meta.properties       Kafka's file: cluster.id, node.id, directory.id, version; and fastlog.format
    .kafka_cleanshutdown  there when all logs were closed in order; gone, durably, before the first append after that
    log-start-offset-checkpoint, TOPIC-PARTITION/

Format rule: a release reads the formats up to its own. A newer release may write a newer format only after it has stamped it, and an
older release then refuses the directory: going back needs a release that still writes the older format.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Final

from fastlog.storage.files import DamagedFileError, read_checkpoint, remove_file, replace_file, sync_directory, write_checkpoint

log = logging.getLogger("fastlog.storage")
FORMAT: Final = 1
META: Final = "meta.properties"
LOCK: Final = ".lock"
CLEAN: Final = ".kafka_cleanshutdown"
LOG_STARTS: Final = "log-start-offset-checkpoint"
DISK_ERRORS: Final = frozenset((errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EUCLEAN, errno.ESTALE))
ALIVE_WAIT_S: Final = 3.0
"""How long to wait for a lock whose holder runs: it may be about to end."""
DEAD_WAIT_S: Final = 30.0
"""How long to wait when its holder is gone: the kernel still finishes what that process had asked the disk for."""


class DirectoryError(Exception):
    """A data directory can't be used; the text tells the operator which, why, and what to do."""


def random_id() -> str:
    """A random id in the form that Kafka writes them: 22 characters of URL-safe base64, none of which reads as an option."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


class DiskError(DirectoryError):
    """The disk under a data directory fails: its partitions are offline, those on other disks need not be."""


class DataDirectory:
    """Made by `open_directory`; `close` gives it back."""

    def __init__(self, path: Path, lock_fd: int, properties: dict[str, str]) -> None:
        self.path = path
        self.lock_fd = lock_fd
        self.id = properties.get("directory.id", "")
        self.cluster_id = properties.get("cluster.id")
        """None: not stamped yet."""
        self.clean = (path / CLEAN).exists()
        """Whether it was left in order: the ends of its logs need not be searched for."""
        self.failed: str | None = None
        """Why nothing of it is served any more: its disk has failed."""
        self._properties = properties

    def stamp(self, cluster_id: str, node_id: int) -> None:
        """Says durably whose directory this is. Raises DirectoryError when it is another's, OSError."""
        if self.cluster_id not in (None, cluster_id):
            raise DirectoryError(
                f"{self.path} belongs to cluster {self.cluster_id}, not {cluster_id}: give a directory of this cluster, or a new one"
            )
        if self.cluster_id is not None and self._properties.get("node.id") != str(node_id):
            raise DirectoryError(f"{self.path} belongs to node {self._properties.get('node.id')}, not {node_id} (node.id)")
        if self.cluster_id is None:
            self.id = random_id()
            self.cluster_id = cluster_id
            self._properties = {
                "cluster.id": cluster_id,
                "directory.id": self.id,
                "fastlog.format": str(FORMAT),
                "node.id": str(node_id),
                "version": "1",
            }
            replace_file(self.path / META, "".join(f"{name}={value}\n" for name, value in self._properties.items()).encode())

    def mark_dirty(self) -> None:
        """From now on, a crash means that the ends of the logs must be searched for. Durable when it returns. Raises OSError."""
        remove_file(self.path / CLEAN)

    def mark_clean(self) -> None:
        """All logs were closed in order. Raises OSError."""
        replace_file(self.path / CLEAN, json.dumps({"version": 0, "brokerEpoch": -1}).encode())

    def partition_path(self, topic: str, partition: int) -> Path:
        return self.path / f"{topic}-{partition}"

    def free_bytes(self) -> int:
        """Space that this process may use. Raises OSError."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def load_log_starts(self) -> dict[tuple[str, int], int]:
        """The offsets from which logs begin that begin inside a segment. Raises DamagedFileError, OSError."""
        path = self.path / LOG_STARTS
        try:
            return {(topic, int(partition)): int(offset) for topic, partition, offset in read_checkpoint(path, 3)}
        except ValueError as error:
            raise DamagedFileError(f"{path}: {error}") from None

    def save_log_starts(self, starts: dict[tuple[str, int], int]) -> None:
        """Durable when it returns. Raises OSError."""
        write_checkpoint(self.path / LOG_STARTS, ((topic, partition, offset) for (topic, partition), offset in sorted(starts.items())))

    def close(self) -> None:
        """Gives the lock back; rings that hold the lock file keep it until their last request has ended."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


def open_directory(path: Path) -> DataDirectory:
    """Makes the directory if need be and takes its lock, waiting a bounded time. Blocks. Raises DirectoryError."""
    try:
        return _open(path)
    except OSError as error:
        kind = DiskError if error.errno in DISK_ERRORS else DirectoryError
        raise kind(f"the data directory {path} can't be used: {_reason(error)}") from error


def _open(path: Path) -> DataDirectory:
    _make(path)
    path = path.resolve()
    lock_fd = take_lock(path)
    try:
        return DataDirectory(path, lock_fd, read_properties(path))
    except BaseException:
        os.close(lock_fd)
        raise


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        import pwd

        uid = os.geteuid()
        with contextlib.suppress(KeyError):
            return f"user {pwd.getpwuid(uid).pw_name} may not write there (chown it, or give another with --data)"
        return f"user {uid} may not write there (chown it, or give another with --data)"
    if error.errno == errno.EROFS:
        return "its file system is read-only"
    if error.errno == errno.EEXIST:
        return os.strerror(errno.ENOTDIR)
    return error.strerror or str(error)


def _make(path: Path) -> None:
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_directory(made.parent)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def take_lock(path: Path, wait_s: float | None = None) -> int:
    """A descriptor that holds the lock of a data directory, of Kafka's too. Waits a bounded time, at most `wait_s` where that is given.
    Raises DirectoryError, OSError.
    """
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = said = None
        while not _try_lock(fd):
            holder = _holder(fd)
            alive = holder is not None and _runs(holder)
            now = time.monotonic()
            if deadline is None:
                deadline = now + (wait_s if wait_s is not None else ALIVE_WAIT_S if alive else DEAD_WAIT_S)
            if now >= deadline:
                by = f"process {holder}" + ("" if alive else ", which this process can't see") if holder else "another process"
                raise DirectoryError(f"the data directory {path} is locked by {by}: stop it, or give another with --data")
            if not said:
                log.warning("%s is locked by process %s%s; waiting", path, holder, "" if alive else ", which has ended: its last writes")
                said = True
            time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kind that Kafka takes
    except OSError as error:
        fcntl.flock(fd, fcntl.LOCK_UN)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _holder(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _runs(pid: int) -> bool:
    """Whether a process is there and not about to go."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


def read_properties(path: Path) -> dict[str, str]:
    """meta.properties; empty when there is none. Raises DirectoryError, OSError."""
    try:
        lines = (path / META).read_text().splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise DirectoryError(f"{path / META} is damaged: restore it from a backup") from None
    pairs = (line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith(("#", "!")))
    properties = {name.strip(): value.strip() for name, _, value in pairs}
    if "fastlog.format" not in properties:
        if "cluster.id" in properties:
            raise DirectoryError(f"{path} is a data directory of Apache Kafka: `fastlog log adopt` makes one of fastlog's of it")
        raise DirectoryError(f"{path / META} is damaged (no fastlog.format): restore it from a backup")
    found = properties["fastlog.format"]
    if not found.isdigit():
        raise DirectoryError(f"{path / META} is damaged (fastlog.format={found}): restore it from a backup")
    if int(found) > FORMAT:
        raise DirectoryError(f"{path} has format {found}; this release reads formats up to {FORMAT}: use a newer fastlog")
    if not {"cluster.id", "node.id", "directory.id"} <= properties.keys():
        raise DirectoryError(f"{path / META} is damaged (cluster.id, node.id or directory.id is missing): restore it from a backup")
    return properties
