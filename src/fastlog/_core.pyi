# The compiled core's typed surface; see the docstrings of the rooms behind it (native/bridge.pyx and others).

from collections.abc import Callable
from typing import Any, TypeAlias

from fastlog.native.batchtool import peek as peek
from fastlog.native.clientcolumn import arrow_array as arrow_array
from fastlog.native.clientcolumn import arrow_chunks as arrow_chunks
from fastlog.native.clientcolumn import arrow_fields as arrow_fields
from fastlog.native.clientcolumn import column as column
from fastlog.native.clientcolumn import header_rows as header_rows
from fastlog.native.clientconsumer import ConsumerCore as ConsumerCore
from fastlog.native.clientdelivery import Deliveries as Deliveries
from fastlog.native.clientdelivery import Delivery as Delivery
from fastlog.native.clientheaders import encode_headers as encode_headers
from fastlog.native.clientproducer import ProducerCore as ProducerCore
from fastlog.native.clientproducer import partition_for as partition_for
from fastlog.native.clientrecords import Record as Record
from fastlog.native.clientrecords import RecordBatch as RecordBatch
from fastlog.native.clientrecords import RecordBatches as RecordBatches
from fastlog.native.codec import Codec as Codec
from fastlog.native.codec import CodecError as CodecError
from fastlog.native.codec import DecodeError as DecodeError
from fastlog.native.codec import EncodeError as EncodeError
from fastlog.native.compact import Compaction as Compaction
from fastlog.native.compact import CompactionCancelledError as CompactionCancelledError
from fastlog.native.compact import DamagedLogError as DamagedLogError
from fastlog.native.compression import compress as compress
from fastlog.native.compression import decompress as decompress
from fastlog.native.crc32c import checksum as _checksum
from fastlog.native.disksync import DiskSync as DiskSync
from fastlog.native.offsetcommit import Commit as Commit
from fastlog.native.offsetcommit import hold_commits as hold_commits
from fastlog.native.offsetcommit import read_commit as read_commit
from fastlog.native.offsetpack import pack_commit as pack_commit
from fastlog.native.recordpack import pack_pairs as pack_pairs
from fastlog.native.recordpack import pack_records as pack_records
from fastlog.native.recordpack import pairs_bytes as pairs_bytes
from fastlog.native.standing import StandingAnswer as StandingAnswer

crc32c = _checksum

REQUEST: int
APPENDED: int
DONE: int
LOG: int
TXN_CHECK: int

_Bound: TypeAlias = tuple[float | None, bool]

class DataPlane:
    n: int
    engine: str
    relics_why: str
    def __init__(
        self,
        *,
        shards: int,
        io: str,
        memory: int,
        buffers: int,
        arenas: list[str | None],
        workers: int,
        lock_fds: list[int],
        flexible: list[int],
        limits: dict[str, int],
        accept_mask: int,
        flush_group: bool,
        relics: list[str],
        quota_samples: int,
        quota_window_ms: int,
        producer_expires_ms: int,
        unchecked_max: int,
    ) -> None: ...
    def run_shard(self, i: int, ready: Callable[[str | None], object]) -> None: ...
    def fileno(self) -> int: ...
    def poll(self) -> list[tuple[Any, ...]]: ...
    def respond(self, token: int, body: bytes, throttle_ms: int, standing: StandingAnswer | None = None) -> bool: ...
    def close(self, token: int, why: bytes) -> bool: ...
    def txn_checked(self, token: int, errors: list[int]) -> bool: ...
    def flush(self) -> bool: ...
    def open_partition(
        self,
        cookie: int,
        shard: int,
        path: bytes,
        topic_id: bytes,
        index: int,
        leader_epoch: int,
        create: bool,
        clean: bool,
        together: bool,
        settings: tuple[Any, ...],
    ) -> bool: ...
    def control(self, cookie: int, handle: int, kind: int, number: int, settings: tuple[Any, ...], end: int = 0) -> bool: ...
    def append(self, cookie: int, handle: int, batch: bytes, acks: int, txn_version: int = 0) -> bool: ...
    def read(self, cookie: int, handle: int, offset: int, max_bytes: int, to_log_end: bool) -> bool: ...
    def find_time(self, cookie: int, handle: int, timestamp: int) -> bool: ...
    def publish(
        self, cookie: int, shard: int, name: bytes, topic_id: bytes, handles: list[int], rules: tuple[Any, ...], internal: bool
    ) -> bool: ...
    def unpublish(self, cookie: int, shard: int, topic_id: bytes) -> bool: ...
    def free_partition(self, cookie: int, handle: int) -> bool: ...
    def listen(self, cookie: int, shard: int, fd: int, listener: int) -> bool: ...
    def unlisten(self, cookie: int, shard: int) -> bool: ...
    def drain(self, cookie: int, shard: int) -> bool: ...
    def stop(self, cookie: int, shard: int) -> bool: ...
    def drop_relics(self) -> None: ...
    def relics_bytes(self) -> int: ...
    def expire_producers(self, after_ms: int) -> None: ...
    def set_quotas(self, default: tuple[_Bound, _Bound, _Bound], named: list[tuple[bytes, tuple[_Bound, _Bound, _Bound]]]) -> None: ...
    def requests_counted(self) -> bool: ...
    def count_request(self, client: bytes, spent_ns: int, now_ns: int) -> int: ...
    def positions(self, handle: int) -> tuple[int, int, int, int, int, int, int]: ...
    def stats(self) -> list[dict[str, int]]: ...
