from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple, Self

from typing_extensions import Buffer

from fastlog.native.tape import Tape

class Positions(NamedTuple):
    log_start: int
    last_stable: int
    high_watermark: int
    log_end: int
    leader_epoch: int
    offline: int
    bytes: int

class AppendResult(NamedTuple):
    error: int
    base_offset: int
    log_start: int

class ReadResult(NamedTuple):
    error: int
    data: bytes
    log_start: int
    last_stable: int
    high_watermark: int

class TimeResult(NamedTuple):
    error: int
    offset: int
    timestamp: int

class OpenResult(NamedTuple):
    error: int
    why: str
    recovered: bool
    lost_bytes: int
    arena_bytes: int

class LogError(Exception):
    code: int
    why: str

class LocalStore:
    logs: list[LocalLog]
    why: str
    def __init__(
        self,
        *,
        engine: str = "auto",
        memory: int = ...,
        arena: str | PathLike[str] | None = None,
        relics: Sequence[str | PathLike[str]] = (),
        threads: int = 2,
        shard: int = 0,
        io_threads: int = 2,
        lock: int = -1,
        flush_group: bool = False,
        producer_expires_ms: int = 0,
        checkpoint_bytes: int = 0,
        unchecked_max: int = 0,
        tape: Tape | None = None,
    ) -> None: ...
    @property
    def engine(self) -> str: ...
    @property
    def relic_bytes(self) -> int: ...
    def run(self, seconds: float = 0.0) -> None: ...
    def drop_relics(self) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def open(
        self,
        path: str | PathLike[str],
        *,
        topic_id: bytes = ...,
        partition: int = 0,
        leader_epoch: int = 0,
        create: bool | None = None,
        clean: bool = False,
        together: bool = False,
        **settings: Any,
    ) -> LocalLog: ...
    def pump(self, logs: list[LocalLog], batch: Buffer, count: int, *, acks: int = -1, in_flight: int = 16) -> int: ...
    def close(self) -> None: ...
    def crash(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, value: object, trace: object) -> None: ...

class Pending:
    @property
    def done(self) -> bool: ...
    @property
    def batch(self) -> bytes: ...
    def result(self, seconds: float = 60) -> AppendResult: ...

class Pinned:
    @property
    def done(self) -> bool: ...
    @property
    def error(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    def release(self) -> None: ...

class Watcher:
    @property
    def fired(self) -> bool: ...
    def cancel(self) -> None: ...

class LocalLog:
    opened: OpenResult
    settings: dict[str, Any]
    def submit(
        self, batch: Buffer, acks: int = -1, append_time: int = -1, *, txn_version: int = 0, guard: int | None = None
    ) -> Pending: ...
    def append(self, batch: Buffer, acks: int = -1, *, txn_version: int = 0, guard: int | None = None) -> AppendResult: ...
    def ask(self, producer_id: int, epoch: int, sequence: int, bumps: bool = False) -> int: ...
    def read(self, offset: int, max_bytes: int = ..., *, to_log_end: bool = False, whole_first: bool = True) -> ReadResult: ...
    def read_committed(self, offset: int, max_bytes: int = ...) -> tuple[ReadResult, list[tuple[int, int]]]: ...
    def pin(self, offset: int, max_bytes: int = ..., *, wait: bool = True) -> Pinned: ...
    def watch(self, past: int, *, committed: bool = False) -> Watcher: ...
    def find_time(self, timestamp: int) -> TimeResult: ...
    def flush(self) -> None: ...
    def roll(self) -> None: ...
    def producers(self) -> bytes: ...
    def set_settings(self, **settings: Any) -> None: ...
    def set_leader_epoch(self, epoch: int) -> None: ...
    def delete_records(self, offset: int) -> int: ...
    def compactable(self) -> int: ...
    def swap(self, base_offset: int, end: int) -> int: ...
    def close(self) -> None: ...
    def delete(self) -> None: ...
    @property
    def positions(self) -> Positions: ...
    @property
    def progress(self) -> tuple[int, int, int]: ...
