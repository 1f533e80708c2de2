"""Admin, producer and consumer over confluent-kafka (librdkafka): the one module of fastlog that knows that library.

Blocking calls; every one has a timeout. Offsets are record offsets, timestamps milliseconds since the epoch (UTC), -1 where there is none.
Errors are `fastlog.client.ClientError` and its subclasses; importing this module without the library raises `ClientMissingError`.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from fastlog.client import ClientError, ClientMissingError, UnknownGroupError, UnknownTopicError, UnreachableError
from fastlog.protocol.errors import Error

try:
    import confluent_kafka as ck
    import confluent_kafka.admin
except ImportError as missing:
    raise ClientMissingError from missing

# The library's admin module names its types without exporting them by its own typing, and is partly untyped.
ck_admin: Any = confluent_kafka.admin
TIMEOUT_S = 15.0
Partition = tuple[str, int]  # topic, number
Headers = list[tuple[str, bytes | None]]
# Kafka's default for group members over the classic protocol; a killed member is noticed after this.
SESSION_TIMEOUT_MS = 45_000

# librdkafka's own log lines repeat what the errors raised here say.
_quiet = logging.getLogger("fastlog.client.librdkafka")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


@dataclass(frozen=True, slots=True)
class Node:
    id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Cluster:
    id: str
    controller: int  # broker id; -1: none
    brokers: list[Node]


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    number: int
    leader: int  # broker id; -1: offline
    replicas: list[int]
    in_sync: list[int]
    error: str | None


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    internal: bool
    partitions: list[PartitionInfo]


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: str | None  # None: sensitive
    source: str  # dynamic topic, dynamic broker, static broker, default, ...
    read_only: bool


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    client_id: str
    host: str
    instance_id: str | None
    partitions: list[Partition]


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    kind: str  # the protocol that it uses: "classic" or "consumer" (KIP-848)
    state: str
    protocol: str  # assignor, "" when there are no members
    coordinator: int
    members: list[Member]


@dataclass(frozen=True, slots=True)
class Record:
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: str  # create, append or none
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)


def check_reachable(bootstrap: str, timeout_s: float = 3.0) -> None:
    """Connects to the addresses in turn; librdkafka would go on trying, and say only that a time ran out.

    Raises UnreachableError, or ClientError for what is not an address.
    """
    why = "no address given"
    for address in bootstrap.split(","):
        host, colon, port = address.strip().rpartition(":")
        if not colon or not port.isdigit():
            raise ClientError("INVALID_ADDRESS", f"{address!r} is not HOST:PORT")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
        else:
            return
    raise UnreachableError(bootstrap, why)


def _failed(error: ck.KafkaError, what: str, bootstrap: str = "") -> ClientError:
    """Our exception for an error of librdkafka."""
    if error.code() in (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._RESOLVE):
        return UnreachableError(bootstrap, error.str())
    if error.code() in (ck.KafkaError._TIMED_OUT, ck.KafkaError._MSG_TIMED_OUT, ck.KafkaError._TIMED_OUT_QUEUE):
        return ClientError("TIMED_OUT", f"{what}: no answer in time ({error.str()})")
    try:
        code = Error(error.code()).name
    except ValueError:
        code = error.name()  # librdkafka's own
    return ClientError(code, f"{what}: {error.str()}")


def _config(bootstrap: str, extra: Mapping[str, str | int | bool], given: Mapping[str, str]) -> dict[str, Any]:
    return {"bootstrap.servers": bootstrap, "client.id": f"fastlog-{os.getpid()}", "logger": _quiet, **extra, **given}


class Admin:
    """Looks at and changes topics, settings, offsets and groups. `bootstrap`: HOST:PORT[,HOST:PORT]. Raises UnreachableError at once."""

    def __init__(self, bootstrap: str, *, timeout_s: float = TIMEOUT_S, config: Mapping[str, str] | None = None) -> None:
        check_reachable(bootstrap)
        self.bootstrap = bootstrap
        self.timeout_s = timeout_s
        self._admin = ck_admin.AdminClient(_config(bootstrap, {}, config or {}))

    def _wait(self, future: Future[Any], what: str) -> Any:
        try:
            return future.result(self.timeout_s + 5)
        except ck.KafkaException as error:
            raise _failed(error.args[0], what, self.bootstrap) from error
        except TimeoutError as error:
            raise ClientError("TIMED_OUT", f"{what}: no answer in {self.timeout_s:.0f} s") from error
        except (TypeError, ValueError) as error:
            raise ClientError("INVALID_REQUEST", f"{what}: {error}") from error

    # --- cluster and topics

    def cluster(self) -> Cluster:
        found = self._wait(self._admin.describe_cluster(request_timeout=self.timeout_s), "describe the cluster")
        nodes = sorted((Node(n.id, n.host, n.port) for n in found.nodes), key=lambda n: n.id)
        return Cluster(found.cluster_id or "", found.controller.id if found.controller else -1, nodes)

    def topics(self) -> list[Topic]:
        """All topics, by name, internal ones too."""
        try:
            metadata = self._admin.list_topics(timeout=self.timeout_s)
        except ck.KafkaException as error:
            raise _failed(error.args[0], "list topics", self.bootstrap) from error
        made = []
        for name, topic in sorted(metadata.topics.items()):
            partitions = [
                PartitionInfo(p.id, p.leader, list(p.replicas), list(p.isrs), p.error.str() if p.error else None)
                for p in sorted(topic.partitions.values(), key=lambda p: p.id)
            ]
            made.append(Topic(name, name.startswith("__"), partitions))
        return made

    def topic(self, name: str) -> Topic:
        """One topic. Raises UnknownTopicError. Asks for all: a request that names one creates it where that is allowed."""
        every = {t.name: t for t in self.topics()}
        if name not in every:
            raise UnknownTopicError(name, every)
        return every[name]

    def create_topic(self, name: str, partitions: int = -1, settings: Mapping[str, str] | None = None, *, replicas: int = -1) -> None:
        """`partitions` and `replicas` -1: the broker's default (KIP-464)."""
        new = ck_admin.NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(settings or {}))
        futures = self._admin.create_topics([new], operation_timeout=self.timeout_s, request_timeout=self.timeout_s)
        self._wait(futures[name], f"create topic {name!r}")

    def delete_topic(self, name: str) -> None:
        futures = self._admin.delete_topics([name], operation_timeout=self.timeout_s, request_timeout=self.timeout_s)
        self._wait(futures[name], f"delete topic {name!r}")

    def set_partitions(self, name: str, total: int) -> None:
        new = ck_admin.NewPartitions(name, total)
        futures = self._admin.create_partitions([new], operation_timeout=self.timeout_s, request_timeout=self.timeout_s)
        self._wait(futures[name], f"add partitions to topic {name!r}")

    def topic_settings(self, name: str) -> list[Setting]:
        resource = ck_admin.ConfigResource(ck_admin.ResourceType.TOPIC, name)
        futures = self._admin.describe_configs([resource], request_timeout=self.timeout_s)
        found = self._wait(futures[resource], f"describe the settings of topic {name!r}")
        sources = {s.value: s.name.lower().removesuffix("_config").replace("_", " ") for s in ck_admin.ConfigSource}
        return sorted(
            (Setting(e.name, e.value, sources.get(int(e.source), "unknown"), e.is_read_only) for e in found.values()), key=lambda s: s.name
        )

    def alter_topic_settings(self, name: str, put: Mapping[str, str], drop: Iterable[str] = ()) -> None:
        """Sets some settings, returns others to their default, leaves the rest alone."""
        operation = ck_admin.AlterConfigOpType
        entries = [ck_admin.ConfigEntry(k, v, incremental_operation=operation.SET) for k, v in put.items()]
        entries += [ck_admin.ConfigEntry(k, None, incremental_operation=operation.DELETE) for k in drop]
        resource = ck_admin.ConfigResource(ck_admin.ResourceType.TOPIC, name, incremental_configs=entries)
        futures = self._admin.incremental_alter_configs([resource], request_timeout=self.timeout_s)
        self._wait(futures[resource], f"alter the settings of topic {name!r}")

    # --- offsets

    def _offsets(self, partitions: Iterable[Partition], spec: Any, what: str) -> dict[Partition, int]:
        asked = {ck.TopicPartition(topic, number): spec for topic, number in partitions}
        if not asked:
            return {}
        futures = self._admin.list_offsets(asked, request_timeout=self.timeout_s)
        return {(p.topic, p.partition): self._wait(f, f"{what} of {p.topic} [{p.partition}]").offset for p, f in futures.items()}

    def start_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._offsets(partitions, ck_admin.OffsetSpec.earliest(), "find the start")

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset after the last record that a consumer can see."""
        return self._offsets(partitions, ck_admin.OffsetSpec.latest(), "find the end")

    def time_offsets(self, partitions: Iterable[Partition], timestamp: int) -> dict[Partition, int]:
        """The first record at or after a time; the end where there is none."""
        asked = list(partitions)
        found = self._offsets(asked, ck_admin.OffsetSpec.for_timestamp(timestamp), "find the time")
        after = self.end_offsets([p for p, offset in found.items() if offset < 0])
        return {p: after[p] if offset < 0 else offset for p, offset in found.items()}

    def counts(self, topics: Iterable[Topic]) -> dict[str, int]:
        """Offsets between start and end, summed by topic: records stored, where nothing was compacted away."""
        partitions = [(t.name, p.number) for t in topics for p in t.partitions if p.leader >= 0]
        starts, ends = self.start_offsets(partitions), self.end_offsets(partitions)
        sums: dict[str, int] = {}
        for partition in partitions:
            sums[partition[0]] = sums.get(partition[0], 0) + ends[partition] - starts[partition]
        return sums

    # --- groups

    def group_states(self) -> dict[str, str]:
        """All groups and their state (Empty, Stable, ...)."""
        return {name: state for name, _, state in self.groups()}

    def groups(self) -> list[tuple[str, str, str]]:
        """All groups: name, kind ("classic" or "consumer") and state."""
        found = self._wait(self._admin.list_consumer_groups(request_timeout=self.timeout_s), "list groups")
        if found.errors:
            raise _failed(found.errors[0].args[0], "list groups", self.bootstrap)
        return [(g.group_id, g.type.name.lower(), _state(g.state)) for g in sorted(found.valid, key=lambda g: g.group_id)]

    def group(self, name: str) -> Group:
        """Raises UnknownGroupError."""
        existing = self.group_states()
        if name not in existing:
            raise UnknownGroupError(name, existing)
        futures = self._admin.describe_consumer_groups([name], request_timeout=self.timeout_s)
        found = self._wait(futures[name], f"describe group {name!r}")
        members = [
            Member(m.member_id, m.client_id, m.host, m.group_instance_id, [(p.topic, p.partition) for p in m.assignment.topic_partitions])
            for m in found.members
        ]
        coordinator = found.coordinator.id if found.coordinator else -1
        return Group(name, found.type.name.lower(), _state(found.state), found.partition_assignor or "", coordinator, members)

    def group_offsets(self, name: str) -> dict[Partition, int]:
        """What the group has committed; partitions without a commit are left out."""
        asked = [ck.ConsumerGroupTopicPartitions(name)]
        futures = self._admin.list_consumer_group_offsets(asked, request_timeout=self.timeout_s)
        found = self._wait(futures[name], f"read the offsets of group {name!r}")
        return {(p.topic, p.partition): p.offset for p in sorted(found.topic_partitions) if p.offset >= 0}

    def set_group_offsets(self, name: str, offsets: Mapping[Partition, int]) -> None:
        """The group must have no members."""
        parts = [ck.TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
        futures = self._admin.alter_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(name, parts)], request_timeout=self.timeout_s)
        found = self._wait(futures[name], f"set the offsets of group {name!r}")
        for part in found.topic_partitions:
            if part.error:
                raise _failed(part.error, f"set the offset of group {name!r} in {part.topic} [{part.partition}]", self.bootstrap)

    def delete_group(self, name: str) -> None:
        self._wait(self._admin.delete_consumer_groups([name], request_timeout=self.timeout_s)[name], f"delete group {name!r}")


def _state(state: Any) -> str:
    """Kafka's spelling of a group's state: PreparingRebalance, not PREPARING_REBALANCING."""
    names = {"PREPARING_REBALANCING": "PreparingRebalance", "COMPLETING_REBALANCING": "CompletingRebalance"}
    return names.get(state.name, str(state.name).title())


class Producer:
    """Sends records; what was delivered is counted, the first failure kept and raised by `flush`.

    Defaults are the client's own but for idempotence, on unless `acks` asks for less than all, as in Kafka's Java client.
    """

    def __init__(self, bootstrap: str, *, acks: str = "all", config: Mapping[str, str] | None = None) -> None:
        check_reachable(bootstrap)
        self.bootstrap = bootstrap
        idempotent = acks in ("all", "-1")
        self._producer = ck.Producer(_config(bootstrap, {"acks": acks, "enable.idempotence": idempotent}, config or {}))
        self.delivered = 0
        self.delivered_bytes = 0  # keys and values
        self.on_delivered: Callable[[str, int, int], None] | None = None  # topic, partition, offset
        self.failure: ClientError | None = None

    def _done(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            self.failure = self.failure or _failed(error, f"produce to {message.topic()!r}", self.bootstrap)
            return
        self.delivered += 1
        self.delivered_bytes += len(message) + len(message.key() or b"")
        if self.on_delivered:
            self.on_delivered(message.topic() or "", message.partition() or 0, message.offset() or 0)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        headers: Headers | None = None,
        partition: int = -1,
        timestamp: int = 0,
    ) -> None:
        """Queues one record; waits while the queue is full. `timestamp` 0: now. Raises an earlier record's failure."""
        while True:
            if self.failure:
                raise self.failure
            try:
                self._producer.produce(
                    topic, value, key, partition=partition, on_delivery=self._done, timestamp=timestamp, headers=list(headers or []) or None
                )
            except BufferError:
                self._producer.poll(0.1)
            except ck.KafkaException as error:
                raise _failed(error.args[0], f"produce to {topic!r}", self.bootstrap) from error
            else:
                self._producer.poll(0)
                return

    def flush(self, timeout_s: float = 60.0) -> None:
        """Waits until every record is acknowledged. Raises the first failure, or TIMED_OUT."""
        deadline = time.monotonic() + timeout_s
        while len(self._producer) and not self.failure and time.monotonic() < deadline:
            self._producer.flush(0.2)
        if self.failure:
            raise self.failure
        if len(self._producer):
            raise ClientError("TIMED_OUT", f"{len(self._producer)} records not acknowledged in {timeout_s:.0f} s")


class Consumer:
    """Reads records, from partitions given (`assign`) or as a member of a group (`subscribe`). Offsets are committed by `commit` only.

    `session_timeout_ms`: a member that dies is noticed after this. Use as a context manager, so that a member leaves its group at once.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str | None = None,
        start: str = "earliest",
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        config: Mapping[str, str] | None = None,
    ) -> None:
        check_reachable(bootstrap)
        self.bootstrap = bootstrap
        self.grouped = group is not None
        settings: dict[str, str | int | bool] = {
            "group.id": group or f"fastlog-{os.getpid()}",  # librdkafka wants a name; without commits the broker never hears of it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": start,
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": min(3000, session_timeout_ms // 3),
            "enable.auto.offset.store": True,
            "fetch.wait.max.ms": 250,
        }
        self._consumer = ck.Consumer(_config(bootstrap, settings, config or {}))
        self.assigned: dict[Partition, bool] = {}  # partition -> read to its end at least once since it was assigned
        self.on_assign: Callable[[list[Partition]], None] | None = None
        # Called while the partitions are still this member's, so that it can commit, and not at all when they are lost already.
        self.on_revoke: Callable[[list[Partition]], None] | None = None
        self._joined = False  # partitions were shared out to this member, perhaps none

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Reads these partitions from these offsets."""
        self.assigned = dict.fromkeys(offsets, False)
        self._joined = True
        self._consumer.assign([ck.TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()])

    def subscribe(self, topics: Sequence[str]) -> None:
        """Becomes a member of the group; partitions come and go with the other members."""

        def gained(_: ck.Consumer, parts: list[ck.TopicPartition]) -> None:
            self.assigned.update({(p.topic, p.partition): False for p in parts})
            self._joined = True
            if self.on_assign:
                self.on_assign([(p.topic, p.partition) for p in parts])

        def lost(_: ck.Consumer, parts: list[ck.TopicPartition]) -> None:
            for part in parts:
                self.assigned.pop((part.topic, part.partition), None)

        def revoked(consumer: ck.Consumer, parts: list[ck.TopicPartition]) -> None:
            if self.on_revoke:
                self.on_revoke([(p.topic, p.partition) for p in parts])
            lost(consumer, parts)

        self._consumer.subscribe(list(topics), on_assign=gained, on_revoke=revoked, on_lost=lost)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stops reading these; they count as read to their end."""
        parts = [ck.TopicPartition(topic, number) for topic, number in partitions]
        self._consumer.pause(parts)
        self.assigned.update({(p.topic, p.partition): True for p in parts})

    @property
    def at_end(self) -> bool:
        """Whether every partition assigned was read to its end; a member that got none is there at once."""
        return self._joined and all(self.assigned.values())

    def poll(self, most: int = 500, timeout_s: float = 0.5) -> list[Record]:
        """The next records, up to `most`; fewer or none when the time is over."""
        try:
            messages = self._consumer.consume(most, timeout_s)
        except ck.KafkaException as error:
            raise _failed(error.args[0], "consume", self.bootstrap) from error
        records = []
        for message in messages:
            partition = (message.topic() or "", message.partition() or 0)
            event = message.error()
            if event is None:
                records.append(_record(partition, message))
            elif event.code() == ck.KafkaError._PARTITION_EOF:
                if partition in self.assigned:
                    self.assigned[partition] = True
            elif not event.retriable() and event.code() != ck.KafkaError._ALL_BROKERS_DOWN:
                raise _failed(event, "consume", self.bootstrap)
        return records

    def commit(self, offsets: Mapping[Partition, int] | None = None) -> None:
        """Commits the group's position (the offset to read next), or what was returned by `poll` so far."""
        try:
            if offsets is None:
                self._consumer.commit(asynchronous=False)
            else:
                parts = [ck.TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
                self._consumer.commit(offsets=parts, asynchronous=False)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError._NO_OFFSET:  # nothing new to commit
                raise _failed(error.args[0], "commit", self.bootstrap) from error


def _record(partition: Partition, message: ck.Message) -> Record:
    kind, timestamp = message.timestamp()
    names = {ck.TIMESTAMP_CREATE_TIME: "create", ck.TIMESTAMP_LOG_APPEND_TIME: "append"}
    headers = [(str(k), v.encode() if isinstance(v, str) else v) for k, v in list(message.headers() or [])]
    offset = message.offset()
    return Record(*partition, -1 if offset is None else offset, timestamp, names.get(kind, "none"), message.key(), message.value(), headers)
