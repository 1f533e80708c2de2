"""The data plane on the compiled core: one thread per core, commands by mail, answers as futures of the event loop.

Implements `fastlog.broker.plane.DataPlane`. All of it runs on the event loop's thread, but for the shards' own threads, which run
compiled code without the interpreter's lock for as long as the broker lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import socket
import stat
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastlog import _core
from fastlog.broker.plane import (
    AppendResult,
    BatchRules,
    ClientBounds,
    DeleteRecordsResult,
    ListenAddress,
    LogSettings,
    OpenResult,
    PartitionSpec,
    PlaneConfig,
    PlaneFacts,
    Positions,
    ProducerState,
    ReadResult,
    Request,
    StandingAnswer,
    TimeResult,
    TxnCheck,
)
from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_KEY
from fastlog.protocol.records import build_end_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("fastlog.plane")

BACKLOG = 4096
INFLATE_MAX = 128 << 20
"""Bytes that one compressed batch may decompress to while it is looked into; they are never all in memory at once."""
LISTENER_SHARD = 0
CUT_WAIT_S = 1.0
"""How long requests that are told to end may take to do so."""
# LogCtlKind in native/log.pxd
CLOSE, DELETE, SETTINGS, LEADER_EPOCH, DELETE_RECORDS, _, ROLL, COMPACTABLE, SWAP, PRODUCERS, FAIL = range(11)
PRODUCER_HEAD, PRODUCER_ENTRY = 10, struct.Struct(">qhiqiqiq")  # a producer snapshot: native/producers.pxd


@dataclass(slots=True)
class _Partition:
    handle: int
    shard: int


def _settings(settings: LogSettings) -> tuple[Any, ...]:
    return (
        settings.segment_bytes,
        settings.segment_ms,
        settings.segment_jitter_ms,
        settings.index_interval_bytes,
        settings.segment_index_bytes,
        settings.flush_messages,
        settings.flush_ms,
        settings.write_caching,
        settings.disk_reserve,
        settings.verify_reads,
        settings.recycle_bytes,
    )


def _bounds(bounds: ClientBounds) -> tuple[tuple[float | None, bool], tuple[float | None, bool], tuple[float | None, bool]]:
    produce, fetch, request = bounds.produce, bounds.fetch, bounds.request
    return (produce.rate, produce.shared), (fetch.rate, fetch.shared), (request.rate, request.shared)


def _rules(rules: BatchRules) -> tuple[Any, ...]:
    return (
        rules.size_max,
        rules.before_max_ms,
        rules.after_max_ms,
        rules.log_append_time,
        rules.keys_required,
        rules.look_inside,
        rules.codec,
        rules.level,
        INFLATE_MAX,
    )


class ShardedPlane:
    """See `fastlog.broker.plane.DataPlane` for each method's contract."""

    def __init__(self) -> None:
        self._core: _core.DataPlane | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._waiting: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._appends: dict[int, asyncio.Future[AppendResult]] = {}
        self._next = 0
        self._partitions: dict[tuple[UUID, int], _Partition] = {}
        self._per_shard: list[int] = []
        self._owners: Sequence[int] = ()
        self._sockets: list[tuple[socket.socket, ListenAddress]] = []
        self._listeners: list[str] = []
        self._on_request: Callable[[Request], None] | None = None
        self._on_txn_check: Callable[[TxnCheck], None] | None = None
        self._flushing = False
        self._checks: dict[int, int] = {}
        """Transactional produces that wait: their number of partitions, by token."""

    # ---- life ----

    async def start(
        self, config: PlaneConfig, on_request: Callable[[Request], None], on_txn_check: Callable[[TxnCheck], None]
    ) -> PlaneFacts:
        self._on_request = on_request
        self._on_txn_check = on_txn_check
        self._loop = asyncio.get_running_loop()
        n = len(config.cores)
        limits = config.limits
        # workers and this thread stay on the broker's cores; each shard's thread pins itself to one of them below
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, set(config.cores))
        arenas: list[str | None] = [None] * n
        if config.arena is not None:
            token = secrets.token_hex(16)
            arenas = [os.path.join(config.arena, f"fastlog-{token}-{shard}") for shard in range(n)]  # noqa: PTH118
        self._owners = _shards(limits.get("fastlog.partition.shards", 0), n)
        takers = _shards(limits.get("fastlog.connection.shards", 0), n)
        self._core = _core.DataPlane(
            shards=n,
            io=config.io,
            memory=config.memory * 5 // 8 // n,
            buffers=config.memory // 4 // n,
            arenas=arenas,
            workers=2,
            lock_fds=list(config.lock_fds),
            flexible=_flexible(),
            limits={
                "request_bytes_max": limits.get("socket.request.max.bytes", 104_857_600),
                "requests_per_conn_max": 1024,
                "bytes_per_conn_max": 32 << 20,
                "answers_per_conn_max": 64 << 20,
                "conns_max": max(1, limits.get("max.connections", 2**31 - 1) // len(takers)),
                "idle_ms": limits.get("connections.max.idle.ms", 600_000),
                "stuck_ms": limits.get("fastlog.pinned.timeout.ms", 10_000),
                "fetch_bytes_max": limits.get("fetch.max.bytes", 57_671_680),
                "sessions_max": max(1, limits.get("max.incremental.fetch.session.cache.slots", 1000) // n),
            },
            accept_mask=sum(1 << shard for shard in takers),
            flush_group=config.one_flush_for_many,
            relics=list(config.relics),
            quota_samples=config.quota_samples,
            quota_window_ms=config.quota_window_ms,
            producer_expires_ms=limits.get("producer.id.expiration.ms", 86_400_000),
            unchecked_max=limits.get("fastlog.recovery.bytes.max", 0) // n,
        )
        self._per_shard = [0] * n
        await self._run_threads(config.cores)
        self._loop.add_reader(self._core.fileno(), self._poll)
        return PlaneFacts(
            io="io_uring" if self._core.engine.startswith("io_uring") else "epoll",
            io_why=self._core.engine,
            arenas=[arena for arena in arenas if arena is not None],
            relics_why=self._core.relics_why,
        )

    async def _run_threads(self, cores: Sequence[int]) -> None:
        core, loop = self._core, self._loop
        assert core is not None
        assert loop is not None
        ready: list[asyncio.Future[str | None]] = []
        for shard, cpu in enumerate(cores):
            future: asyncio.Future[str | None] = loop.create_future()
            ready.append(future)

            def run(shard: int = shard, cpu: int = cpu, future: asyncio.Future[str | None] = future) -> None:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, {cpu})
                core.run_shard(shard, lambda why: loop.call_soon_threadsafe(future.set_result, why))

            thread = threading.Thread(target=run, name=f"shard-{shard}", daemon=True)
            thread.start()
            self._threads.append(thread)
        for why in await asyncio.gather(*ready):
            if why is not None:
                raise OSError(why)

    async def drop_relics(self) -> None:
        core = self._running()
        core.drop_relics()

    async def bind(self, addresses: Sequence[ListenAddress]) -> list[ListenAddress]:
        bound: list[ListenAddress] = []
        for address in addresses:
            sock, real = _bind(address)
            self._sockets.append((sock, real))
            bound.append(real)
        return bound

    async def accept(self) -> None:
        core = self._running()
        for sock, address in self._sockets:
            sock.listen(BACKLOG)
            self._listeners.append(address.name)
            index = len(self._listeners) - 1
            await self._call(core.listen, LISTENER_SHARD, sock.fileno(), index)

    async def drain(self, timeout_ms: int) -> int:
        core = self._running()
        await self._call(core.unlisten, LISTENER_SHARD)
        waits = [asyncio.ensure_future(self._call(core.drain, shard)) for shard in range(core.n)]
        await asyncio.wait(waits, timeout=timeout_ms / 1000)
        if self._checks:  # nobody may answer them any more, and their requests hold partitions
            for token, partitions in list(self._checks.items()):
                self.txn_checked(token, [Error.COORDINATOR_NOT_AVAILABLE] * partitions)
            await asyncio.wait(waits, timeout=CUT_WAIT_S)
        for wait in waits:
            wait.cancel()
        return sum(shard["conns"] for shard in core.stats())

    async def stop(self) -> None:
        if self._core is None or self._loop is None:
            return
        core = self._core
        for shard in range(core.n):
            await self._call(core.stop, shard)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.005)
                await asyncio.sleep(0)
        self._loop.remove_reader(core.fileno())
        for sock, address in self._sockets:
            _unbind(sock, address)
        self._sockets.clear()

    # ---- mail ----

    def _running(self) -> _core.DataPlane:
        if self._core is None:
            raise RuntimeError("the data plane was not started")
        return self._core

    async def _call(self, send: Callable[..., bool], *arguments: Any) -> tuple[Any, ...]:
        """Sends a command and waits for its result. `send` is a command of the core's: it takes a cookie first."""
        assert self._loop is not None
        self._next += 1
        cookie = self._next
        future: asyncio.Future[tuple[Any, ...]] = self._loop.create_future()
        self._waiting[cookie] = future
        self._sent(send(cookie, *arguments))
        return await future

    def _sent(self, to_flush: bool) -> None:
        """What is sent in one turn of the event loop goes out at its end."""
        if to_flush and not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        assert self._loop is not None
        self._flushing = self._running().flush()
        if self._flushing:  # a shard has much to do
            self._loop.call_later(0.001, self._flush)

    def _poll(self) -> None:
        for item in self._running().poll():
            kind = item[0]
            if kind == _core.REQUEST:
                _, token, key, version, correlation, client_id, peer, listener, body = item
                assert self._on_request is not None
                name = self._listeners[listener]
                self._on_request(Request(token, key, version, correlation, client_id, peer, name, memoryview(body)))
            elif kind == _core.APPENDED:
                append = self._appends.pop(item[1])
                if not append.done():
                    append.set_result(AppendResult(Error(item[2]), item[3]))
            elif kind == _core.DONE:
                future = self._waiting.pop(item[1], None)
                if future is not None and not future.done():
                    future.set_result(item[2])
            elif kind == _core.TXN_CHECK:
                _, token, transactional_id, producer_id, epoch, add, partitions = item
                assert self._on_txn_check is not None
                named = [(UUID(bytes=topic_id), topic, partition) for topic_id, topic, partition in partitions]
                self._checks[token] = len(named)
                self._on_txn_check(TxnCheck(token, transactional_id, producer_id, epoch, add, named))
            else:
                log.log(item[1], "%s", item[2])

    def respond(self, token: int, body: bytes, throttle_ms: int = 0, standing: StandingAnswer | None = None) -> None:
        assert standing is None or isinstance(standing, _core.StandingAnswer)
        self._sent(self._running().respond(token, body, throttle_ms, standing))

    def standing(self) -> StandingAnswer:
        return _core.StandingAnswer()

    def close(self, token: int, why: str) -> None:
        self._sent(self._running().close(token, why.encode()))

    def expire_producers(self, after_ms: int) -> None:
        self._running().expire_producers(after_ms)

    # ---- quotas ----

    def set_quotas(self, default: ClientBounds, named: Mapping[str, ClientBounds]) -> None:
        self._running().set_quotas(_bounds(default), [(name.encode(), _bounds(bounds)) for name, bounds in named.items()])

    def requests_counted(self) -> bool:
        return self._running().requests_counted()

    def count_request(self, client_id: str | None, spent_ns: int) -> int:
        return self._running().count_request((client_id or "").encode(), spent_ns, time.monotonic_ns())

    # ---- partitions ----

    def _of(self, topic_id: UUID, partition: int) -> _Partition | None:
        return self._partitions.get((topic_id, partition))

    async def open_partition(self, spec: PartitionSpec) -> OpenResult:
        core = self._running()
        shard = min(self._owners, key=lambda shard: self._per_shard[shard])
        self._per_shard[shard] += 1
        error, why, recovered, lost, arena, handle = await self._call(
            core.open_partition,
            shard,
            os.fsencode(spec.path),
            spec.topic_id.bytes,
            spec.partition,
            spec.leader_epoch,
            spec.create,
            spec.clean,
            spec.together,
            _settings(spec.settings),
        )
        if error:
            self._per_shard[shard] -= 1
        else:
            self._partitions[spec.topic_id, spec.partition] = _Partition(handle, shard)
        return OpenResult(Error(error), why, recovered, lost, arena)

    async def _control(self, at: _Partition, kind: int, number: int = 0, settings: tuple[Any, ...] = (), end: int = 0) -> tuple[Any, ...]:
        core = self._running()
        return await self._call(core.control, at.handle, kind, number, settings, end)

    async def _end(self, topic_id: UUID, partition: int, kind: int) -> str | None:
        """Why it did not end as it should, or None."""
        core = self._running()
        at = self._partitions.pop((topic_id, partition), None)
        if at is None:
            return None
        error, why, _ = await self._control(at, kind)
        await self._call(core.free_partition, at.handle)
        self._per_shard[at.shard] -= 1
        return why or Error(error).name if error else None

    async def close_partition(self, topic_id: UUID, partition: int) -> None:
        why = await self._end(topic_id, partition, CLOSE)
        if why is not None:
            raise OSError(why)

    async def delete_partition(self, topic_id: UUID, partition: int) -> None:
        why = await self._end(topic_id, partition, DELETE)
        if why is not None:
            log.error("the data of partition %s-%d was not all removed: %s", topic_id, partition, why)

    async def publish_topic(self, name: str, topic_id: UUID, partitions: int, rules: BatchRules, internal: bool) -> None:
        core = self._running()
        found = [self._of(topic_id, partition) for partition in range(partitions)]
        handles = [at.handle if at is not None else 0 for at in found]
        encoded = name.encode()
        results = await asyncio.gather(
            *(self._call(core.publish, shard, encoded, topic_id.bytes, handles, _rules(rules), internal) for shard in range(core.n))
        )
        if any(result[0] for result in results):
            raise MemoryError(f"no memory to publish topic {name}")

    async def unpublish_topic(self, topic_id: UUID) -> None:
        core = self._running()
        await asyncio.gather(*(self._call(core.unpublish, shard, topic_id.bytes) for shard in range(core.n)))

    async def set_log_settings(self, topic_id: UUID, partition: int, settings: LogSettings) -> None:
        at = self._of(topic_id, partition)
        if at is not None:
            await self._control(at, SETTINGS, settings=_settings(settings))

    async def set_leader_epoch(self, topic_id: UUID, partition: int, epoch: int) -> None:
        at = self._of(topic_id, partition)
        if at is not None:
            await self._control(at, LEADER_EPOCH, epoch)

    def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> asyncio.Future[AppendResult]:
        return self._append(topic_id, partition, batch, acks)

    def _append(self, topic_id: UUID, partition: int, batch: bytes, acks: int, txn_version: int = 0) -> asyncio.Future[AppendResult]:
        assert self._loop is not None
        future: asyncio.Future[AppendResult] = self._loop.create_future()
        at = self._of(topic_id, partition)
        if at is None:
            future.set_result(AppendResult(Error.UNKNOWN_TOPIC_OR_PARTITION))
            return future
        self._next += 1
        self._appends[self._next] = future
        self._sent(self._running().append(self._next, at.handle, batch, acks, txn_version))
        return future

    def write_txn_marker(
        self,
        topic_id: UUID,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
        version: int = 1,
    ) -> asyncio.Future[AppendResult]:
        batch = build_end_marker(
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            coordinator_epoch=coordinator_epoch,
            commit=commit,
            timestamp_ms=int(time.time() * 1000),
        )
        return self._append(topic_id, partition, batch, -1, version)

    async def describe_producers(self, topic_id: UUID, partition: int) -> list[ProducerState]:
        at = self._of(topic_id, partition)
        if at is None:
            return []
        error, _, _, *found = await self._control(at, PRODUCERS)
        if error:
            return []
        entries = PRODUCER_ENTRY.iter_unpack(found[0][PRODUCER_HEAD:])
        return [
            ProducerState(producer_id, epoch, sequence, timestamp, coordinator_epoch, txn_start)
            for producer_id, epoch, sequence, _, _, timestamp, coordinator_epoch, txn_start in entries
        ]

    def txn_checked(self, token: int, errors: Sequence[Error]) -> None:
        if self._checks.pop(token, None) is not None:
            self._sent(self._running().txn_checked(token, [int(error) for error in errors]))

    async def read(self, topic_id: UUID, partition: int, offset: int, max_bytes: int, *, to_log_end: bool = False) -> ReadResult:
        core, at = self._running(), self._of(topic_id, partition)
        if at is None:
            return ReadResult(Error.UNKNOWN_TOPIC_OR_PARTITION)
        result = await self._call(core.read, at.handle, offset, max_bytes, to_log_end)
        return ReadResult(Error(result[0]), *result[1:])

    async def delete_records(self, topic_id: UUID, partition: int, offset: int) -> DeleteRecordsResult:
        at = self._of(topic_id, partition)
        if at is None:
            return DeleteRecordsResult(Error.UNKNOWN_TOPIC_OR_PARTITION)
        error, _, low_watermark = await self._control(at, DELETE_RECORDS, offset)
        return DeleteRecordsResult(Error(error), low_watermark)

    async def roll(self, topic_id: UUID, partition: int) -> Error:
        at = self._of(topic_id, partition)
        return Error((await self._control(at, ROLL))[0]) if at is not None else Error.UNKNOWN_TOPIC_OR_PARTITION

    async def fail_partition(self, topic_id: UUID, partition: int, error: int) -> None:
        at = self._of(topic_id, partition)
        if at is not None:
            await self._control(at, FAIL, error)

    async def compactable(self, topic_id: UUID, partition: int) -> int | None:
        at = self._of(topic_id, partition)
        if at is None:
            return None
        error, _, offset = await self._control(at, COMPACTABLE)
        return None if error else offset

    async def swap_segments(self, topic_id: UUID, partition: int, base_offset: int, end: int) -> tuple[Error, str]:
        at = self._of(topic_id, partition)
        if at is None:
            return Error.UNKNOWN_TOPIC_OR_PARTITION, ""
        error, why, _ = await self._control(at, SWAP, base_offset, end=end)
        return Error(error), why

    async def find_time(self, topic_id: UUID, partition: int, timestamp: int) -> TimeResult:
        core, at = self._running(), self._of(topic_id, partition)
        if at is None:
            return TimeResult(Error.UNKNOWN_TOPIC_OR_PARTITION)
        error, offset, found = await self._call(core.find_time, at.handle, timestamp)
        return TimeResult(Error(error), offset, found)

    def positions(self, topic_id: UUID, partition: int) -> Positions | None:
        at = self._of(topic_id, partition)
        return Positions(*self._running().positions(at.handle)) if at is not None else None

    def stats(self) -> dict[str, Any]:
        """{"shards": one dict of int by name for each shard}."""
        return {"shards": self._running().stats()}


def _shards(mask: int, n: int) -> Sequence[int]:
    """The shards of a bit mask; 0 or a mask without any of them means all."""
    chosen = [shard for shard in range(n) if mask >> shard & 1]
    return chosen or range(n)


def _flexible() -> list[int]:
    """Per API key the first version whose request header has tagged fields, or -1."""
    first = [-1] * 128
    for key, api in API_BY_KEY.items():
        if key < len(first) and api.flexible_from is not None:
            first[key] = api.flexible_from
    return first


def _bind(address: ListenAddress) -> tuple[socket.socket, ListenAddress]:
    if address.path is not None:
        return _bind_unix(address), address
    host = address.host or ""
    try:
        found = socket.getaddrinfo(host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"can't listen on {address}: {error.strerror}") from error
    family, kind, proto, _, where = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"can't listen on {address}: {error.strerror}") from error
    return sock, ListenAddress(address.name, host, sock.getsockname()[1])


def _bind_unix(address: ListenAddress) -> socket.socket:
    """Takes over the path of a socket that nobody listens on any more."""
    assert address.path is not None
    path = Path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(address.path):
            path.unlink()
        sock.bind(address.path)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"can't listen on unix:{address.path}: {error.strerror}") from error
    return sock


def _unbind(sock: socket.socket, address: ListenAddress) -> None:
    sock.close()
    if address.path is not None:
        Path(address.path).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
