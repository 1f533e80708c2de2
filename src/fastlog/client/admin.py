"""Looks at and changes topics, settings, offsets, groups, records and transactions. Blocking calls; every one has a time."""

import struct
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from fastlog.client import checks, config
from fastlog.client.admin_transactions import Fenced, PartitionProducer, Transaction, TransactionalId, TransactionCalls
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientTimeoutError, UnknownGroupError, UnknownTopicError
from fastlog.client.records import TopicPartition
from fastlog.protocol.messages import Message, decode_data

Partition = tuple[str, int]
TOPIC, BROKER = 2, 4  # resource types
SET, DELETE = 0, 1  # operations on settings
EARLIEST, LATEST = -2, -1
SOURCES = {
    1: "dynamic topic",
    2: "dynamic broker",
    3: "dynamic default broker",
    4: "static broker",
    5: "default",
    6: "dynamic broker logger",
    7: "client metrics",
    8: "group",
}


class Node(NamedTuple):
    """A broker."""

    id: int
    host: str
    port: int


class ClusterInfo(NamedTuple):
    """What `Admin.cluster` tells."""

    id: str
    controller: int  # broker id; -1: none
    brokers: list[Node]


class PartitionInfo(NamedTuple):
    """A partition of a topic. `replicas` and `in_sync`: ids of brokers. `error`: why it is not served now, None where it is."""

    number: int
    leader: int  # broker id; -1: offline
    replicas: list[int]
    in_sync: list[int]
    error: str | None


class Topic(NamedTuple):
    """A topic. `internal`: the brokers' own, such as __consumer_offsets."""

    name: str
    internal: bool
    partitions: list[PartitionInfo]


class Setting(NamedTuple):
    """A setting of a topic or broker, as it applies now."""

    name: str
    value: str | None  # None: sensitive
    source: str  # dynamic topic, dynamic broker, static broker, default, ...
    read_only: bool


class Member(NamedTuple):
    """A member of a group. `instance_id`: of a static member. `partitions`: what it has."""

    id: str
    client_id: str
    host: str
    instance_id: str | None
    partitions: list[TopicPartition]


class Group(NamedTuple):
    """A consumer group. `state`: Empty, Stable, ...; `coordinator`: a broker's id."""

    name: str
    kind: str  # the protocol that it uses: "classic" or "consumer" (KIP-848)
    state: str
    protocol: str  # assignor, "" when there are no members
    coordinator: int
    members: list[Member]


class Admin:
    """Connects at once: UnreachableError when no broker is there. `bootstrap_servers`: HOST:PORT[,HOST:PORT], or all settings in a mapping,
    as of the others. `timeout_s`: of each call, instead of request_timeout_ms."""

    def __init__(
        self, bootstrap_servers: str | Mapping[str, Any] = "127.0.0.1:9092", *, timeout_s: float | None = None, **settings: Any
    ) -> None:
        set_ = config.of_admin(bootstrap_servers, settings)
        self.timeout_s = timeout_s = set_["request_timeout_ms"] / 1000 if timeout_s is None else timeout_s
        self._cluster = Cluster(set_["bootstrap_servers"], client_id=set_["client_id"], timeout_s=timeout_s)
        self._transactions = TransactionCalls(self._cluster, timeout_s)
        self._cluster.connection(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections; every other call raises ClosedError then."""
        self._cluster.close()

    # --- cluster and topics

    def cluster(self) -> ClusterInfo:
        """The cluster's id, its controller and its brokers."""
        self._cluster.metadata([])
        nodes = [Node(node, host, port) for node, (host, port) in sorted(self._cluster.nodes.items())]
        return ClusterInfo(self._cluster.cluster_id, self._cluster.controller, nodes)

    def topics(self) -> list[Topic]:
        """All topics, by name, internal ones too."""
        made = []
        for name, meta in sorted(self._cluster.metadata(None).items()):
            parts = [
                PartitionInfo(
                    p["partition_index"],
                    p["leader_id"],
                    list(p["replica_nodes"]),
                    list(p["isr_nodes"]),
                    str(error_for(p["error_code"], f"{name} [{p['partition_index']}]")) if p["error_code"] else None,
                )
                for p in sorted(meta.raw["partitions"], key=lambda p: int(p["partition_index"]))
            ]
            made.append(Topic(name, meta.internal, parts))
        return made

    def topic(self, name: str) -> Topic:
        """One topic. Raises UnknownTopicError. Asks for all, so that near names can be told."""
        every = {t.name: t for t in self.topics()}
        if checks.checked_topic(name) not in every:
            raise UnknownTopicError(name, every)
        return every[name]

    def _at_controller(self, name: str, message: Message) -> Message:
        """Asks the controller: in KRaft any broker passes it on; before, only the controller itself takes it."""
        if self._cluster.controller < 0:
            self._cluster.metadata([])
        return self._cluster.call(name, message, node=self._cluster.controller, timeout_s=self.timeout_s + 5)

    @property
    def _timeout_ms(self) -> int:
        return int(self.timeout_s * 1000)

    def create_topic(self, name: str, partitions: int = -1, settings: Mapping[str, str] | None = None, *, replicas: int = -1) -> None:
        """`partitions` and `replicas` -1: the broker's default (KIP-464). Raises TopicAlreadyExistsError, InvalidConfigError and such."""
        configs = [{"name": key, "value": value} for key, value in checks.checked_settings({} if settings is None else settings).items()]
        topic: Message = {"name": checks.checked_topic(name), "configs": configs}
        topic["num_partitions"] = checks.checked_default(partitions, "partitions")
        topic["replication_factor"] = checks.checked_default(replicas, "replicas")
        said = self._at_controller("CreateTopics", {"topics": [topic], "timeout_ms": self._timeout_ms})
        _check(said["topics"], f"create topic {name!r}")

    def delete_topic(self, name: str) -> None:
        """With all its records. UnknownTopicOrPartitionError where there is no such topic."""
        said = self._at_controller("DeleteTopics", {"topic_names": [checks.checked_topic(name)], "timeout_ms": self._timeout_ms})
        _check(said["responses"], f"delete topic {name!r}")

    def set_partitions(self, name: str, total: int) -> None:
        """Adds partitions until there are `total`."""
        wanted = {"name": checks.checked_topic(name), "count": checks.checked_count(total, "total"), "assignments": None}
        said = self._at_controller("CreatePartitions", {"topics": [wanted], "timeout_ms": self._timeout_ms, "validate_only": False})
        _check(said["results"], f"add partitions to topic {name!r}")

    def topic_settings(self, name: str) -> list[Setting]:
        """All that apply to a topic, by name. UnknownTopicOrPartitionError where there is no such topic."""
        return self._settings(TOPIC, checks.checked_topic(name), f"topic {name!r}")

    def broker_settings(self, broker: int) -> list[Setting]:
        """All of a broker, by name; `broker`: its id."""
        return self._settings(BROKER, str(checks.checked_id(broker)), f"broker {broker}", broker)

    def _settings(self, kind: int, name: str, what: str, node: int = -1) -> list[Setting]:
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
        said = self._cluster.call("DescribeConfigs", {"resources": [resource]}, node=node)
        _check(said["results"], f"describe the settings of {what}")
        found = said["results"][0]["configs"]
        made = [Setting(c["name"], c["value"], SOURCES.get(c["config_source"], "unknown"), c["read_only"]) for c in found]
        return sorted(made, key=lambda s: s.name)

    def alter_topic_settings(self, name: str, put: Mapping[str, str], drop: Iterable[str] = ()) -> None:
        """Sets some settings, returns others to their default, leaves the rest alone."""
        configs = [{"name": key, "config_operation": SET, "value": value} for key, value in checks.checked_settings(put).items()]
        configs += [{"name": key, "config_operation": DELETE, "value": None} for key in checks.checked_names(drop, "setting")]
        resource = {"resource_type": TOPIC, "resource_name": checks.checked_topic(name), "configs": configs}
        said = self._at_controller("IncrementalAlterConfigs", {"resources": [resource]})
        _check(said["responses"], f"alter the settings of topic {name!r}")

    # --- offsets and records

    def _offsets(self, wanted: Mapping[Partition, int], what: str) -> dict[Partition, int]:
        if not wanted:
            return {}
        entries = {p: {"partition_index": p[1], "timestamp": when} for p, when in wanted.items()}
        found = self._cluster.call_by_leader(
            "ListOffsets", entries, {"replica_id": -1, "isolation_level": 0}, f"{what} of", timeout_s=self.timeout_s
        )
        return {p: found[p]["offset"] for p in wanted}

    def start_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset of the first record that is still there. UnknownTopicOrPartitionError where there is no such partition."""
        return self._offsets(dict.fromkeys(checks.checked(partitions), EARLIEST), "find the start")

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset after the last record that a consumer can see."""
        return self._offsets(dict.fromkeys(checks.checked(partitions), LATEST), "find the end")

    def time_offsets(self, partitions: Iterable[Partition], timestamp: int) -> dict[Partition, int]:
        """The first record at or after a time (milliseconds); the end where there is none."""
        found = self._offsets(dict.fromkeys(checks.checked(partitions), checks.checked_time(timestamp)), "find the time")
        after = self.end_offsets([p for p, offset in found.items() if offset < 0])
        return {p: after[p] if offset < 0 else offset for p, offset in found.items()}

    def counts(self, topics: Iterable[Topic]) -> dict[str, int]:
        """Offsets between start and end, summed by topic: records stored, where nothing was compacted away."""
        given = list(topics) if isinstance(topics, Iterable) else [topics]
        if not all(isinstance(t, Topic) for t in given):
            raise TypeError("topics: expected what `topics` returned")
        partitions = [(t.name, p.number) for t in given for p in t.partitions if p.leader >= 0]
        starts, ends = self.start_offsets(partitions), self.end_offsets(partitions)
        sums: dict[str, int] = {}
        for partition in partitions:
            sums[partition[0]] = sums.get(partition[0], 0) + ends[partition] - starts[partition]
        return sums

    def delete_records(self, before: Mapping[Partition, int]) -> dict[Partition, int]:
        """Deletes what lies before these offsets (-1: all); the new starts."""
        wanted = {p: offset if offset == -1 else checks.checked_offset(offset) for p, offset in checks.checked_places(before).items()}
        entries = {p: {"partition_index": p[1], "offset": offset} for p, offset in wanted.items()}
        found = self._cluster.call_by_leader(
            "DeleteRecords", entries, {"timeout_ms": self._timeout_ms}, "delete records of", timeout_s=self.timeout_s
        )
        return {p: found[p]["low_watermark"] for p in wanted}

    # --- groups

    def group_states(self) -> dict[str, str]:
        """All groups, by name, and their state (Empty, Stable, ...)."""
        return {name: state for name, _, state in self.groups()}

    def groups(self) -> list[tuple[str, str, str]]:
        """All consumer groups: name, kind ("classic" or "consumer") and state."""
        self._cluster.metadata([])
        made: list[tuple[str, str, str]] = []
        for node in list(self._cluster.nodes):
            said = self._cluster.call("ListGroups", {}, node=node)
            if said["error_code"]:
                raise error_for(said["error_code"], "list groups")
            found = [g for g in said["groups"] if g["protocol_type"] in ("consumer", "")]
            made += [(g["group_id"], g["group_type"].lower() or "classic", g["group_state"]) for g in found]
        return sorted(made)

    def _at_coordinator(self, group: str, name: str, message: Message) -> tuple[Message, int]:
        node = self._cluster.coordinator(checks.checked_name(group, "group"))
        return self._cluster.call(name, message, node=node, timeout_s=self.timeout_s), node

    def group(self, name: str) -> Group:
        """Raises UnknownGroupError."""
        existing = {group: kind for group, kind, _ in self.groups()}
        if checks.checked_name(name, "group") not in existing:
            raise UnknownGroupError(name, existing)
        if existing[name] == "consumer":
            return self._new_group(name)
        said, node = self._at_coordinator(name, "DescribeGroups", {"groups": [name]})
        found = said["groups"][0]
        if found["error_code"]:
            raise error_for(found["error_code"], f"describe group {name!r}", found["error_message"])
        members = [
            Member(m["member_id"], m["client_id"], m["client_host"], m["group_instance_id"], _assigned(m["member_assignment"]))
            for m in found["members"]
        ]
        return Group(name, "classic", found["group_state"], found["protocol_data"], node, members)

    def _new_group(self, name: str) -> Group:
        """A group of the new protocol (KIP-848)."""
        said, node = self._at_coordinator(name, "ConsumerGroupDescribe", {"group_ids": [name]})
        found = said["groups"][0]
        if found["error_code"]:
            raise error_for(found["error_code"], f"describe group {name!r}", found["error_message"])
        members = [
            Member(
                m["member_id"],
                m["client_id"],
                m["client_host"],
                m["instance_id"],
                [TopicPartition(t["topic_name"], n) for t in m["assignment"]["topic_partitions"] for n in t["partitions"]],
            )
            for m in found["members"]
        ]
        return Group(name, "consumer", found["group_state"], found["assignor_name"], node, members)

    def group_offsets(self, name: str) -> dict[Partition, int]:
        """What the group has committed; partitions without a commit are left out."""
        said, _ = self._at_coordinator(name, "OffsetFetch", {"group_id": name, "topics": None})
        if said["error_code"]:
            raise error_for(said["error_code"], f"read the offsets of group {name!r}")
        found = {(t["name"], p["partition_index"]): p["committed_offset"] for t in said["topics"] for p in t["partitions"]}
        return {p: offset for p, offset in sorted(found.items()) if offset >= 0}

    def set_group_offsets(self, name: str, offsets: Mapping[Partition, int]) -> None:
        """The group must have no members: UnknownMemberIdError otherwise."""
        topics: dict[str, list[Message]] = {}
        for (topic, number), offset in checks.checked_places(offsets).items():
            checks.checked_offset(offset)
            topics.setdefault(topic, []).append({"partition_index": number, "committed_offset": offset, "committed_metadata": ""})
        wanted = [{"name": topic, "partitions": parts} for topic, parts in topics.items()]
        said, _ = self._at_coordinator(name, "OffsetCommit", {"group_id": name, "member_id": "", "topics": wanted})
        for topic_said in said["topics"]:
            for part in topic_said["partitions"]:
                if part["error_code"]:
                    what = f"set the offset of group {name!r} in {topic_said['name']} [{part['partition_index']}]"
                    raise error_for(part["error_code"], what)

    def delete_group(self, name: str) -> None:
        """With its offsets. NonEmptyGroupError where it has members, GroupIdNotFoundError where there is none."""
        said, _ = self._at_coordinator(name, "DeleteGroups", {"groups_names": [name]})
        _check(said["results"], f"delete group {name!r}")

    def delete_group_offsets(self, name: str, partitions: Iterable[Partition]) -> None:
        """GroupSubscribedToTopicError where members read the topic."""
        topics: dict[str, list[Message]] = {}
        for topic, number in checks.checked(partitions):
            topics.setdefault(topic, []).append({"partition_index": number})
        wanted = [{"name": topic, "partitions": parts} for topic, parts in topics.items()]
        said, _ = self._at_coordinator(name, "OffsetDelete", {"group_id": name, "topics": wanted})
        if said["error_code"]:
            raise error_for(said["error_code"], f"delete offsets of group {name!r}")
        for topic_said in said["topics"]:
            _check(topic_said["partitions"], f"delete offsets of group {name!r} in {topic_said['name']}")

    # --- transactions

    def transactions(
        self, states: Iterable[str] = (), producer_ids: Iterable[int] = (), duration_ms: int | None = None
    ) -> list[TransactionalId]:
        """All transactional ids, by name; or those in one of `states` ("Ongoing", ...), of one of `producer_ids`, whose transaction began
        more than `duration_ms` milliseconds ago (KIP-664, KIP-994). UnsupportedVersionError where a broker is older than Kafka 3.0, or than
        3.8 with `duration_ms`."""
        return self._transactions.listed(states, producer_ids, duration_ms)

    def transaction(self, transactional_id: str) -> Transaction:
        """A transactional id and its transaction, the open or the last one (KIP-664). TransactionalIdNotFoundError where nobody used it."""
        return self._transactions.described(transactional_id)

    def producers(self, topic: str, partition: int) -> list[PartitionProducer]:
        """The idempotent and transactional producers that a partition's leader knows, by id (KIP-664). UnknownTopicOrPartitionError where
        there is no such partition."""
        return self._transactions.producers(topic, partition)

    def abort_transaction(
        self, topic: str, partition: int, producer_id: int, producer_epoch: int, coordinator_epoch: int | None = None
    ) -> None:
        """Ends a hanging transaction in one partition (KIP-664): one of which `producers` shows a `start_offset` while no coordinator has
        it Ongoing (`transactions`). What names it, `producers` tells. Of a transaction that does not hang, the records in this partition
        are lost even if it is committed. InvalidProducerEpochError where the partition knows a later epoch of the producer,
        TransactionCoordinatorFencedError where it knows a later one of the coordinator, UnknownTopicOrPartitionError."""
        self._transactions.abort(topic, partition, producer_id, producer_epoch, coordinator_epoch)

    def fence_producers(self, transactional_ids: Iterable[str]) -> dict[str, Fenced]:
        """Shuts out the producers that have these transactional ids, one id after the other, and aborts their open transactions; an id that
        nobody used is there then. ClientTimeoutError where a transaction that is being ended is not over in time."""
        return self._transactions.fence(transactional_ids)


def _check(results: list[Message], what: str) -> None:
    """Raises the first error among the entries of an answer; an answer without any is none."""
    if not results:
        raise ClientTimeoutError(f"{what}: the broker's answer is empty")
    for entry in results:
        if entry["error_code"]:
            raise error_for(entry["error_code"], what, entry.get("error_message"))


def _assigned(data: bytes) -> list[TopicPartition]:
    """A member's partitions, from what its group's leader wrote; none where that can't be read."""
    try:
        (version,) = struct.unpack_from(">h", data)
        found = decode_data("consumer_protocol_assignment", max(0, min(version, 3)), data[2:])
    except (struct.error, ValueError):
        return []
    return [TopicPartition(t["topic"], n) for t in found["assigned_partitions"] for n in t["partitions"]]
