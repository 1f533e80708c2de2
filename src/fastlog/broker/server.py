"""The broker's life: everything is started in the order that makes it safe, and ended in the reverse.

Start: data directories locked · metadata opened · directories stamped · listeners bound, not yet accepting · data plane · directories
marked as in use · partitions opened, epochs raised · what dead processes left in memory given up · coordinator · clients let in.
Stop: no new requests · those in progress end (bounded) · coordinator · partitions closed in order · directories marked as left in order.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastlog.broker import machine
from fastlog.broker.cleaner import Cleaner
from fastlog.broker.configs import ConfigManager
from fastlog.broker.context import Clock, Cluster, Context, Endpoint
from fastlog.broker.disks import Disks
from fastlog.broker.dispatch import Dispatcher
from fastlog.broker.opening import open_topics
from fastlog.broker.options import AUTO, OFF
from fastlog.broker.plane import PlaneConfig, host_and_port
from fastlog.broker.quotas import QuotaManager
from fastlog.broker.retention import Retention
from fastlog.broker.topics import TopicManager
from fastlog.config.durability import SETTINGS, describe_durability
from fastlog.metadata.sqlite import open_store
from fastlog.metadata.store import ABSENT, StoreError
from fastlog.metadata.topics import PREFIX, decode_topic
from fastlog.protocol.errors import Error, KafkaError
from fastlog.storage.directory import DataDirectory, DirectoryError, DiskError, open_directory, random_id
from fastlog.storage.files import remove_file, replace_file
from fastlog.storage.flushes import one_flush_for_many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastlog.broker.opening import Opened
    from fastlog.broker.options import ServeOptions
    from fastlog.broker.plane import DataPlane, ListenAddress, PlaneFacts, Request, TxnCheck
    from fastlog.coordinator.service import GroupService
    from fastlog.coordinator.transactions.service import TransactionService
    from fastlog.metadata.store import MetadataStore
    from fastlog.metrics import Sample
    from fastlog.storage.flushes import Verdict

log = logging.getLogger("fastlog")
METADATA: Final = "fastlog-metadata.db"
ARENAS: Final = "fastlog-arenas.json"
"""In the first data directory: the arenas in use, so that the next process finds them after a kill."""
CLUSTER_ID_KEY: Final = "/cluster/id"
DIRECTORIES_KEY: Final = "/directories"
"""The id of the data directory that was at each path last."""
PRODUCER_IDS_KEY: Final = "/producer-ids/next"
PRODUCER_ID_BLOCK: Final = 1000
PLANE_LIMITS: Final = (
    "connections.max.idle.ms",
    "fastlog.connection.shards",
    "fastlog.partition.shards",
    "fastlog.pinned.timeout.ms",
    "fastlog.recovery.bytes.max",
    "fetch.max.bytes",
    "max.connections",
    "max.incremental.fetch.session.cache.slots",
    "producer.id.expiration.ms",
    "socket.request.max.bytes",
)
"""Settings that the data plane is given at its start."""
BIND_WAIT_S: Final = 5.0
"""How long to wait for an address that nobody answers on: a killed process's sockets go a little later than it does."""


class StartError(Exception):
    """The broker can't be started; the text tells the operator why and what to do."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was decided and found at the start, for the operator."""

    cores: Sequence[int]
    memory: machine.Decision
    arena: str | None
    arena_why: str
    flushes: Verdict
    """Whether many logs share a flush."""
    plane: PlaneFacts
    directories: Sequence[DataDirectory]
    opened: Opened
    durability: str
    """What acknowledgements promise for topics that don't say otherwise."""
    listeners: Sequence[ListenAddress]
    endpoints: dict[str, Endpoint]
    metrics_port: int | None
    seconds: float
    """From the beginning until clients were let in."""


class Broker:
    """One broker in this process. `start` once, then `stop` once."""

    def __init__(self, options: ServeOptions, plane: DataPlane) -> None:
        self._options = options
        self._plane = plane
        self._undo = AsyncExitStack()
        self._dispatcher: Dispatcher | None = None
        self._topics: TopicManager | None = None
        self._coordinator: GroupService | None = None
        self._transactions: TransactionService | None = None
        self._checks: set[asyncio.Task[None]] = set()
        self._directories: list[DataDirectory] = []
        self._retention: Retention | None = None
        self._cleaner: Cleaner | None = None
        self._disks: Disks | None = None
        self._missing: dict[Path, str] = {}
        self._kept_relics: list[str] = []
        self.context: Context | None = None

    async def start(self) -> Facts:
        """Clients are served when it returns. Raises StartError; then nothing is left behind but what it recovered."""
        try:
            return await self._start()
        except (DirectoryError, StoreError) as error:
            await self._undo.aclose()
            raise StartError(str(error)) from error
        except OSError as error:
            await self._undo.aclose()
            raise StartError(error.strerror or str(error)) from error
        except BaseException:
            await self._undo.aclose()
            raise

    async def _start(self) -> Facts:
        began = time.monotonic()
        options, plane = self._options, self._plane
        directories = await self._open_directories()
        store, cluster_id = await self._open_metadata(directories)
        configs = ConfigManager(store, options.settings, _node_id(options))
        await configs.load()
        node_id = configs.get("node.id")
        await self._leave_out_unmounted(store)
        for directory in directories:
            await asyncio.to_thread(directory.stamp, cluster_id, node_id)
        await _note_directories(store, directories)
        listeners = await self._bind()
        relics = _read_arenas(directories[0].path)
        memory = machine.memory_budget() if options.memory is None else machine.Decision(options.memory, "--memory")
        arena, arena_why = _arena(options.arena, memory.value)
        shared_flush = await asyncio.to_thread(one_flush_for_many, [directory.path for directory in directories])
        config = PlaneConfig(
            cores=list(options.cores) or machine.cores(),
            memory=memory.value,
            io=options.io,
            arena=arena,
            relics=relics,
            lock_fds=[directory.lock_fd for directory in directories],
            one_flush_for_many=shared_flush.allowed,
            limits={name: configs.get(name) for name in PLANE_LIMITS},
            quota_samples=configs.get("quota.window.num"),
            quota_window_ms=configs.get("quota.window.size.seconds") * 1000,
        )
        self._undo.push_async_callback(plane.stop)
        plane_facts = await plane.start(config, self._receive, self._check_transaction)

        async def expire_producers() -> None:
            plane.expire_producers(configs.get("producer.id.expiration.ms"))

        configs.on_change(expire_producers)
        await asyncio.to_thread(_write_arenas, directories[0].path, [*relics, *plane_facts.arenas])
        for directory in directories:
            await asyncio.to_thread(directory.mark_dirty)
        self._topics = topics = TopicManager(plane, store, configs, directories, node_id)
        topics.missing_directories = list(self._missing)
        opened = await open_topics(topics)
        await self._give_up_relics(relics, plane_facts.arenas, opened)
        endpoints = _endpoints(options, listeners)
        cluster = Cluster(cluster_id, node_id, endpoints, configs.get("broker.rack"))
        clock = Clock()
        quotas = QuotaManager(store, plane, configs, clock)
        await quotas.load()
        context = Context(plane, store, topics, configs, quotas, cluster, logging.getLogger("fastlog.request"), clock)
        self._coordinator = context.coordinator = self._make_coordinator(context)
        self._transactions = context.transactions = self._make_transactions(context, self._coordinator)
        await self._coordinator.start()
        await self._transactions.start()
        self.context = context
        self._dispatcher = Dispatcher(context)
        self._retention = Retention(context)
        self._cleaner = Cleaner(context)
        self._disks = Disks(context, self._retention.check_all)
        metrics_port = await self._serve_metrics(*options.metrics) if options.metrics is not None else None
        await plane.accept()
        if topics.epoch_files is not None:
            topics.epoch_files.start()
        self._retention.start()
        await self._cleaner.start()
        self._disks.start()
        return Facts(
            cores=config.cores,
            memory=memory,
            arena=arena,
            arena_why=plane_facts.arena_why or arena_why,
            flushes=shared_flush,
            plane=plane_facts,
            directories=directories,
            opened=opened,
            durability=_durability(configs, topics),
            listeners=listeners,
            endpoints=endpoints,
            metrics_port=metrics_port,
            seconds=time.monotonic() - began,
        )

    def _receive(self, request: Request) -> None:
        assert self._dispatcher is not None  # nothing is received before `accept`
        self._dispatcher.submit(request)

    def _check_transaction(self, check: TxnCheck) -> None:
        task = asyncio.get_running_loop().create_task(self._answer_check(check))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _answer_check(self, check: TxnCheck) -> None:
        errors = [Error.COORDINATOR_NOT_AVAILABLE] * len(check.partitions)
        try:
            partitions = [(topic, index) for _, topic, index in check.partitions]
            assert self._transactions is not None  # nothing is received before `accept`
            errors = await self._transactions.check(
                check.transactional_id, check.producer_id, check.producer_epoch, partitions, add=check.add
            )
        except Exception:
            log.exception("a check of transactional id %r failed", check.transactional_id)
        finally:
            self._plane.txn_checked(check.token, errors)

    async def _open_directories(self) -> list[DataDirectory]:
        paths = [await asyncio.to_thread(path.resolve) for path in self._options.data]
        for path in paths:
            if paths.count(path) > 1:
                raise StartError(f"the data directory {path} is given twice")
            try:
                directory = await asyncio.to_thread(open_directory, path)
            except DiskError as error:
                if path == paths[0]:
                    raise  # the metadata lie there
                log.error("%s; its partitions are offline", error)
                self._missing[path] = str(error)
                continue
            self._undo.callback(directory.close)
            self._directories.append(directory)
        return self._directories

    async def _open_metadata(self, directories: Sequence[DataDirectory]) -> tuple[MetadataStore, str]:
        path = directories[0].path / METADATA
        if not path.exists() or path.stat().st_size == 0:
            for other in directories[1:]:
                if (other.path / METADATA).exists():
                    raise StartError(f"the metadata lie in {other.path}: give it first among the data directories")
            used = next((directory for directory in directories if directory.cluster_id is not None), None)
            if used is not None:
                state = "empty" if path.exists() else "missing"
                raise StartError(
                    f"{used.path} belongs to cluster {used.cluster_id}, but {path} is {state}: restore it from a backup, or see "
                    "`fastlog log repair --metadata`"
                )
        store = await open_store(path)
        self._undo.push_async_callback(store.close)
        entry = await store.get(CLUSTER_ID_KEY)
        if entry is not None:
            return store, entry.value.decode()
        cluster_id = random_id()
        await store.write({CLUSTER_ID_KEY: cluster_id.encode()}, {CLUSTER_ID_KEY: ABSENT})
        return store, cluster_id

    async def _leave_out_unmounted(self, store: MetadataStore) -> None:
        """A new directory where one with partitions was is most likely where a disk should be mounted: nothing is put there."""
        entry = await store.get(DIRECTORIES_KEY)
        known: dict[str, str] = json.loads(entry.value) if entry is not None else {}
        used = {
            p.directory for entry in await store.range(PREFIX) for p in decode_topic(entry.key.removeprefix(PREFIX), entry.value).partitions
        }
        for directory in self._directories[1:]:
            id_ = known.get(str(directory.path), "")
            if directory.cluster_id is None and id_ in used:
                log.error(
                    "%s is empty, but partitions lie in the data directory that was there (id %s): is its disk mounted? They are offline "
                    "until it is back; where it is lost, delete their topics and start again",
                    *(directory.path, id_),
                )
                self._missing[directory.path] = "its disk is not mounted"
        for directory in [directory for directory in self._directories if directory.path in self._missing]:
            self._directories.remove(directory)

    async def _bind(self) -> list[ListenAddress]:
        deadline = time.monotonic() + BIND_WAIT_S
        while True:
            try:
                return await self._plane.bind(self._options.listen)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline or any(map(_answers, self._options.listen)):
                    hint = "stop what listens there, or give another address" if error.errno == errno.EADDRINUSE else "give another address"
                    raise StartError(f"{error.strerror}: {hint} with --listen") from error
            await asyncio.sleep(0.05)

    async def _give_up_relics(self, relics: Sequence[str], arenas: Sequence[str], opened: Opened) -> None:
        """What killed processes left in memory is in the logs now, unless a partition that it may be of could not be opened."""
        if relics and opened.offline:
            log.warning("what a killed process left in %s is kept, as %d partitions are offline", ", ".join(relics), opened.offline)
            self._kept_relics = list(relics)
            return
        await asyncio.to_thread(_write_arenas, self._directories[0].path, arenas, spent=relics)
        await self._plane.drop_relics()
        await asyncio.to_thread(_write_arenas, self._directories[0].path, arenas)

    def _make_coordinator(self, context: Context) -> GroupService:
        from fastlog.coordinator.service import GroupService

        async def reserve_block() -> range:
            try:
                return await reserve_producer_ids(context.store)
            except StoreError as error:
                log.error("no producer ids: %s", error)
                raise KafkaError(Error.COORDINATOR_LOAD_IN_PROGRESS) from error  # clients try again

        configs = context.configs
        service = GroupService(
            context.plane, context.topics, configs.values, context.clock, reserve_block=reserve_block, group_value=configs.group_value
        )
        configs.on_change(service.on_settings_change)
        configs.groups.on_change(service.on_settings_change)
        context.topics.on_delete(service.on_topic_deleted)
        context.topics.on_change(service.on_topic_change)
        return service

    def _make_transactions(self, context: Context, groups: GroupService) -> TransactionService:
        from fastlog.coordinator.transactions.service import TransactionService

        service = TransactionService(
            context.plane, context.topics, context.configs.values, context.clock, producer_ids=groups.producer_ids, offsets=groups
        )
        groups.verify_with(service)
        return service

    async def _serve_metrics(self, host: str, port: int) -> int:
        from fastlog.metrics import MetricsServer

        server = MetricsServer(self._samples)
        try:
            bound = await server.start(host, port)
        except OSError as error:
            raise StartError(f"can't serve metrics on {host_and_port(host, port)}: {error.strerror}") from error
        self._undo.push_async_callback(server.stop)
        return bound

    def _samples(self) -> Iterator[Sample]:
        from fastlog.metrics import Sample, counter_samples, process_samples, shard_samples

        assert self._topics is not None
        assert self._dispatcher is not None
        assert self._coordinator is not None
        assert self._transactions is not None
        stats = self._plane.stats()
        yield from shard_samples(stats)
        yield Sample("fastlog_topics", len(self._topics))
        yield Sample("fastlog_control_requests_total", self._dispatcher.requests, (), counter=True)
        yield Sample("fastlog_control_failures_total", self._dispatcher.failures, (), counter=True)
        yield Sample("fastlog_control_requests_running", self._dispatcher.running)
        groups = self._coordinator.metrics
        stood = sum(shard.get("standing_answers", 0) for shard in stats.get("shards", ()))
        yield from counter_samples("fastlog_group_", replace(groups, heartbeats=groups.heartbeats + stood))
        for name, value in self._coordinator.gauges().items():
            yield Sample(f"fastlog_group_{name}", value)
        yield from counter_samples("fastlog_transaction_", self._transactions.metrics)
        for name, value in self._transactions.gauges().items():
            yield Sample(f"fastlog_transaction_{name}", value)
        if self._cleaner is not None:
            for name, number, counter in self._cleaner.samples():
                yield Sample(f"fastlog_cleaner_{name}", number, (), counter=counter)
        if self._disks is not None:
            for name, path, number in self._disks.samples():
                yield Sample(f"fastlog_disk_{name}", number, (("directory", str(path)),))
        for path in self._missing:
            yield Sample("fastlog_disk_failed", 1, (("directory", str(path)),))
        yield from process_samples()

    async def stop(self) -> None:
        """Ends everything in order, within fastlog.shutdown.timeout.ms and what closing the partitions takes."""
        context, dispatcher = self.context, self._dispatcher
        if context is None or dispatcher is None or self._topics is None or self._coordinator is None or self._transactions is None:
            await self._undo.aclose()
            return
        if self._retention is not None:
            await self._retention.stop()
        if self._cleaner is not None:
            await self._cleaner.stop()
        if self._disks is not None:
            await self._disks.stop()
        timeout_ms = context.configs.get("fastlog.shutdown.timeout.ms")
        drained = asyncio.ensure_future(self._plane.drain(timeout_ms))
        await self._transactions.stop()
        await self._coordinator.stop()  # sends those who wait for their group on their way, so that draining can end
        cut = await drained
        if cut:
            log.warning("%d connections were cut after %d ms: their requests had not ended", cut, timeout_ms)
        await dispatcher.cancel()
        if self._topics.epoch_files is not None:
            await self._topics.epoch_files.stop()
        torn = await self._topics.close()
        for directory in self._directories:
            if directory.failed is not None:
                continue
            if directory.id in torn:
                log.warning("%s is not marked as left in order: the next start looks for the ends of its logs", directory.path)
            else:
                await asyncio.to_thread(directory.mark_clean)
        if self._kept_relics:
            await asyncio.to_thread(_write_arenas, self._directories[0].path, self._kept_relics)
        else:
            await asyncio.to_thread(remove_file, self._directories[0].path / ARENAS)
        await self._undo.aclose()


async def _note_directories(store: MetadataStore, directories: Sequence[DataDirectory]) -> None:
    """Which data directory lies where, so that a start without a disk is told from one with a new disk. Raises StoreError."""
    entry = await store.get(DIRECTORIES_KEY)
    before = json.loads(entry.value) if entry is not None else {}
    now = before | {str(directory.path): directory.id for directory in directories}
    if now != before:
        body = json.dumps(now, sort_keys=True).encode()
        await store.write({DIRECTORIES_KEY: body}, {DIRECTORIES_KEY: entry.revision if entry is not None else ABSENT})


async def reserve_producer_ids(store: MetadataStore) -> range:
    """The next block of producer ids, durably given out. Raises StoreError."""
    entry = await store.get(PRODUCER_IDS_KEY)
    first = int(entry.value) if entry is not None else 0
    block = range(first, first + PRODUCER_ID_BLOCK)
    await store.write({PRODUCER_IDS_KEY: str(block.stop).encode()}, {PRODUCER_IDS_KEY: entry.revision if entry is not None else ABSENT})
    return block


def _durability(configs: ConfigManager, topics: TopicManager) -> str:
    """The promise of the broker's settings, and how many topics make another one."""

    def promise(own: Mapping[str, str]) -> str:
        return describe_durability({name: configs.layers.topic_text(name, own) for name in SETTINGS})

    usual = promise({})
    others = sum(promise(topic.configs) != usual for topic in topics.all() if any(name in topic.configs for name in SETTINGS))
    return usual + (f" (not {others} topics: see fastlog topic describe)" if others else "")


def _arena(wanted: str, memory: int) -> tuple[str | None, str]:
    """The directory for append arenas, or None; and why. Raises StartError."""
    if wanted == OFF:
        return None, "switched off"
    if wanted == AUTO:
        return machine.arena_directory(memory)
    if not Path(wanted).is_dir() or not machine.is_tmpfs(Path(wanted).resolve()):
        raise StartError(f"--arena {wanted}: not a directory on a tmpfs")
    return wanted, "--arena"


def _node_id(options: ServeOptions) -> int:
    return int(options.settings.get("node.id", options.settings.get("broker.id", "1")))


def _endpoints(options: ServeOptions, listeners: Sequence[ListenAddress]) -> dict[str, Endpoint]:
    """What clients of each listener are told. Port 0 in --advertise: the listener's own."""
    endpoints: dict[str, Endpoint] = {}
    everywhere = options.advertise.get("")
    tcp = next((address for address in listeners if address.path is None), None)
    for listener in listeners:
        own = listener if listener.path is None else tcp
        told = options.advertise.get(listener.name, everywhere)
        if told is not None:
            endpoints[listener.name] = Endpoint(told.host, told.port or (own.port if own is not None else 0))
        elif own is not None:
            endpoints[listener.name] = Endpoint(_reachable(own.host or ""), own.port)
        else:
            endpoints[listener.name] = Endpoint(f"unix:{listener.path}", 0)
    return endpoints


def _reachable(host: str) -> str:
    """A name for clients: that of this machine where the broker listens on all of its addresses."""
    return socket.gethostname() if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def _answers(address: ListenAddress) -> bool:
    """Whether somebody listens there now."""
    family = socket.AF_UNIX if address.path is not None else socket.AF_INET6 if ":" in (address.host or "") else socket.AF_INET
    target: Any = address.path if address.path is not None else (address.host or "localhost", address.port)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(target)
        except OSError:
            return False
        return True


def _read_arenas(directory: Path) -> list[str]:
    try:
        found = json.loads((directory / ARENAS).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        log.warning("%s is damaged (%s): what a killed process left in memory can't be found", directory / ARENAS, error)
        return []
    left = []
    for entry in found:
        if isinstance(entry, dict):  # all of it is in the logs: a crash came between that and its removal
            Path(entry["spent"]).unlink(missing_ok=True)
            continue
        path = str(entry)
        if os.path.lexists(path):
            left.append(path)
            continue
        log.warning(
            "%s is gone (a restart of the machine or its container, a logout, or someone cleaned up): records acknowledged with acks=1"
            " that were only there are lost; acks=all records are on the disk",
            path,
        )
    return left


def _write_arenas(directory: Path, arenas: Sequence[str], spent: Sequence[str] = ()) -> None:
    """`spent`: those whose records are all in the logs, and that are about to be removed. Raises OSError."""
    replace_file(directory / ARENAS, json.dumps([*arenas, *({"spent": path} for path in spent)]).encode())
