"""A data plane in memory: logs are lists, the disk is a dictionary that outlives it, requests are handed over by the test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from fastlog.protocol.records import build_end_marker, iter_batches
from tests.coordinator.fakes import FakeStanding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID


@dataclass(slots=True)
class FakeLog:
    topic_id: UUID
    batches: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(base offset, next offset, bytes)."""
    start: int = 0

    @property
    def end(self) -> int:
        return self.batches[-1][1] if self.batches else 0


@dataclass(slots=True)
class FakeDisk:
    """What outlives a data plane: logs by path."""

    logs: dict[str, FakeLog] = field(default_factory=dict)
    fail_open: dict[str, str] = field(default_factory=dict)
    """Why opening or making a partition fails, by the name of its directory."""
    lost: dict[str, int] = field(default_factory=dict)
    """Records that a crash takes from a log's end, by the name of its directory."""
    fail_close: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Published:
    name: str
    partitions: int
    rules: BatchRules
    internal: bool


@dataclass(slots=True)
class _Open:
    spec: PartitionSpec
    log: FakeLog
    epoch: int
    settings: LogSettings
    offline: int = 0


class FakePlane:
    """See `fastlog.broker.plane.DataPlane`. `events` records what was asked of it, in order."""

    def __init__(self, disk: FakeDisk) -> None:
        self.disk = disk
        self.open: dict[tuple[UUID, int], _Open] = {}
        self.published: dict[UUID, Published] = {}
        self.events: list[tuple[Any, ...]] = []
        self.closed: list[str] = []
        self.config: PlaneConfig | None = None
        self.accepting = False
        self.quotas = (ClientBounds(), dict[str, ClientBounds]())
        self.muted_ms = 0
        """What came with the last response."""
        self.arenas: list[str] = []
        self._on_request: Callable[[Request], None] | None = None
        self._on_txn_check: Callable[[TxnCheck], None] | None = None
        self._checks: dict[int, asyncio.Future[Sequence[Error]]] = {}
        self._tokens = itertools.count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}

    # ---- life ----

    async def start(
        self, config: PlaneConfig, on_request: Callable[[Request], None], on_txn_check: Callable[[TxnCheck], None]
    ) -> PlaneFacts:
        self.config = config
        self._on_request = on_request
        self._on_txn_check = on_txn_check
        self.events.append(("start",))
        return PlaneFacts(io="fake", io_why="a test", arenas=self.arenas)

    async def drop_relics(self) -> None:
        self.events.append(("drop_relics",))

    async def bind(self, addresses: Sequence[ListenAddress]) -> list[ListenAddress]:
        ports = itertools.count(50_000)
        return [address if address.port or address.path else replace(address, port=next(ports)) for address in addresses]

    async def accept(self) -> None:
        self.accepting = True
        self.events.append(("accept",))

    async def drain(self, timeout_ms: int) -> int:
        self.accepting = False
        self.events.append(("drain", timeout_ms))
        return 0

    async def stop(self) -> None:
        self.events.append(("stop", sorted(f"{o.spec.topic}-{o.spec.partition}" for o in self.open.values())))

    # ---- requests ----

    async def request(self, api_key: int, version: int, body: bytes, *, listener: str, client_id: str | None = "test") -> bytes:
        """Hands a request over and waits for the response's body. Raises ConnectionError with the reason when it was closed."""
        assert self._on_request is not None
        token = next(self._tokens)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[token] = future
        self._on_request(Request(token, api_key, version, 7, client_id, "127.0.0.1:12345", listener, memoryview(body)))
        return await asyncio.wait_for(future, 10)

    def expire_producers(self, after_ms: int) -> None:
        self.producers_expire_ms = after_ms

    def set_quotas(self, default: ClientBounds, named: Mapping[str, ClientBounds]) -> None:
        self.quotas = (default, dict(named))

    def requests_counted(self) -> bool:
        return False

    def count_request(self, client_id: str | None, spent_ns: int) -> int:
        raise AssertionError("no request is counted")

    def standing(self) -> FakeStanding:
        return FakeStanding()

    def respond(self, token: int, body: bytes, throttle_ms: int = 0, standing: StandingAnswer | None = None) -> None:
        self.muted_ms = throttle_ms
        self._answers.pop(token).set_result(body)

    def close(self, token: int, why: str) -> None:
        self.closed.append(why)
        self._answers.pop(token).set_exception(ConnectionError(why))

    # ---- partitions ----

    async def open_partition(self, spec: PartitionSpec) -> OpenResult:
        await asyncio.sleep(0)
        path, name = Path(spec.path), Path(spec.path).name
        self.events.append(("open", name, spec.create))
        if name in self.disk.fail_open:
            return OpenResult(Error.KAFKA_STORAGE_ERROR, self.disk.fail_open[name])
        if spec.create:
            if path.exists():  # noqa: ASYNC240
                return OpenResult(Error.KAFKA_STORAGE_ERROR, "the directory exists")
            path.mkdir()  # noqa: ASYNC240
            self.disk.logs[spec.path] = FakeLog(spec.topic_id)
        elif not path.exists() or spec.path not in self.disk.logs:  # noqa: ASYNC240
            return OpenResult(Error.KAFKA_STORAGE_ERROR, "no such directory")
        log = self.disk.logs[spec.path]
        assert log.topic_id == spec.topic_id
        recovered, lost = not spec.clean and not spec.create, 0
        if recovered:
            for _ in range(self.disk.lost.pop(name, 0)):
                lost += len(log.batches.pop()[2])
        self.open[spec.topic_id, spec.partition] = _Open(spec, log, spec.leader_epoch, spec.settings)
        return OpenResult(Error.NONE, "cut" if lost else "", recovered, lost)

    async def close_partition(self, topic_id: UUID, partition: int) -> None:
        opened = self.open.pop((topic_id, partition))
        name = Path(opened.spec.path).name
        self.events.append(("close", name))
        if name in self.disk.fail_close:
            raise OSError(f"{name} can't be flushed")

    async def delete_partition(self, topic_id: UUID, partition: int) -> None:
        opened = self.open.pop((topic_id, partition), None)
        if opened is None:
            return
        self.events.append(("delete", Path(opened.spec.path).name))
        del self.disk.logs[opened.spec.path]
        shutil.rmtree(opened.spec.path)

    async def publish_topic(self, name: str, topic_id: UUID, partitions: int, rules: BatchRules, internal: bool) -> None:
        self.events.append(("publish", name, partitions))
        self.published[topic_id] = Published(name, partitions, rules, internal)

    async def unpublish_topic(self, topic_id: UUID) -> None:
        self.events.append(("unpublish", self.published[topic_id].name))
        del self.published[topic_id]

    async def set_log_settings(self, topic_id: UUID, partition: int, settings: LogSettings) -> None:
        self.open[topic_id, partition].settings = settings

    async def set_leader_epoch(self, topic_id: UUID, partition: int, epoch: int) -> None:
        self.open[topic_id, partition].epoch = epoch

    async def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> AppendResult:
        log = self.open[topic_id, partition].log
        (parsed,) = iter_batches(batch)
        base = log.end
        log.batches.append((base, base + parsed.last_offset_delta + 1, base.to_bytes(8) + batch[8:]))
        return AppendResult(Error.NONE, base)

    async def write_txn_marker(
        self,
        topic_id: UUID,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
        version: int = 1,
    ) -> AppendResult:
        """Kafka's rules (ProducerAppendInfo), by the batches that are there."""
        if (topic_id, partition) not in self.open:
            return AppendResult(Error.UNKNOWN_TOPIC_OR_PARTITION)
        known = next((p for p in await self.describe_producers(topic_id, partition) if p.producer_id == producer_id), None)
        if known is not None:
            again = version >= 2 and producer_epoch == known.producer_epoch and known.txn_start_offset < 0
            if producer_epoch < known.producer_epoch or (version >= 2 and producer_epoch == known.producer_epoch and not again):
                return AppendResult(Error.INVALID_PRODUCER_EPOCH)
            if coordinator_epoch < known.coordinator_epoch:
                return AppendResult(Error.TRANSACTION_COORDINATOR_FENCED)
        self.events.append(("marker", Path(self.open[topic_id, partition].spec.path).name, producer_id, producer_epoch, commit))
        marker = build_end_marker(
            producer_id=producer_id, producer_epoch=producer_epoch, coordinator_epoch=coordinator_epoch, commit=commit, timestamp_ms=0
        )
        return await self.append(topic_id, partition, marker)

    async def describe_producers(self, topic_id: UUID, partition: int) -> list[ProducerState]:
        found: dict[int, ProducerState] = {}
        for _, _, data in self.open[topic_id, partition].log.batches:
            (batch,) = iter_batches(data)
            known = found.get(batch.producer_id, ProducerState(batch.producer_id, -1, -1, -1, -1, -1))
            if batch.producer_id < 0:
                continue
            sequence = known.last_sequence if batch.producer_epoch == known.producer_epoch else -1
            start, coordinator = known.txn_start_offset, known.coordinator_epoch
            if batch.control:
                start, coordinator = -1, int.from_bytes((batch.records[0].value or b"")[2:6], signed=True)
            else:
                sequence = batch.base_sequence + batch.last_offset_delta if batch.base_sequence >= 0 else -1
                if batch.transactional and start < 0:
                    start = batch.base_offset
            found[batch.producer_id] = ProducerState(
                batch.producer_id, batch.producer_epoch, sequence, batch.max_timestamp, coordinator, start
            )
        return list(found.values())

    async def check_txn(
        self, transactional_id: str, producer_id: int, producer_epoch: int, partitions: Sequence[tuple[UUID, str, int]], *, add: bool
    ) -> list[Error]:
        """What a transactional produce asks of the coordinator first."""
        assert self._on_txn_check is not None
        token = next(self._tokens)
        future: asyncio.Future[Sequence[Error]] = asyncio.get_running_loop().create_future()
        self._checks[token] = future
        self._on_txn_check(TxnCheck(token, transactional_id, producer_id, producer_epoch, add, partitions))
        return list(await asyncio.wait_for(future, 10))

    def txn_checked(self, token: int, errors: Sequence[Error]) -> None:
        self._checks.pop(token).set_result(errors)

    async def read(self, topic_id: UUID, partition: int, offset: int, max_bytes: int, *, to_log_end: bool = False) -> ReadResult:
        log = self.open[topic_id, partition].log
        data = b"".join(batch for _, following, batch in log.batches if following > offset)
        return ReadResult(Error.NONE, data, log.start, log.end, log.end)

    async def delete_records(self, topic_id: UUID, partition: int, offset: int) -> DeleteRecordsResult:
        log = self.open[topic_id, partition].log
        offset = log.end if offset == -1 else offset
        if offset > log.end:
            return DeleteRecordsResult(Error.OFFSET_OUT_OF_RANGE)
        log.start = max(log.start, offset)
        return DeleteRecordsResult(Error.NONE, log.start)

    async def roll(self, topic_id: UUID, partition: int) -> Error:
        self.events.append(("roll", Path(self.open[topic_id, partition].spec.path).name))
        return Error.NONE

    async def fail_partition(self, topic_id: UUID, partition: int, error: int) -> None:
        self.open[topic_id, partition].offline = Error.KAFKA_STORAGE_ERROR

    async def compactable(self, topic_id: UUID, partition: int) -> int | None:
        return 0

    async def swap_segments(self, topic_id: UUID, partition: int, base_offset: int, end: int) -> tuple[Error, str]:
        raise AssertionError("nothing here can be compacted")

    async def find_time(self, topic_id: UUID, partition: int, timestamp: int) -> TimeResult:
        return TimeResult(Error.NONE)

    def positions(self, topic_id: UUID, partition: int) -> Positions | None:
        opened = self.open.get((topic_id, partition))
        if opened is None:
            return None
        log = opened.log
        return Positions(log.start, log.end, log.end, log.end, opened.epoch, opened.offline, sum(len(b[2]) for b in log.batches))

    def stats(self) -> dict[str, Any]:
        return {"shards": [{"requests": 5, "conns": 2}]}
