"""What a Kafka cluster's metadata say, as its controller stored them (KRaft, KIP-500): read from `__cluster_metadata-0`.

The newest snapshot (`<end offset>-<epoch>.checkpoint`, KIP-630) has the state up to its offset, the segments the changes since. Both are
record batches; a record's value is a frame version, the record's kind and its version (unsigned varints), and the message. What a
metadata transaction (KIP-868) that was aborted, or never ended, would have changed does not count.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastlog.protocol.messages import data_versions, decode_data
from fastlog.protocol.records import iter_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from fastlog.protocol.records import Batch

DIRECTORY: Final = "__cluster_metadata-0"
TOPIC, BROKER, CLIENT_METRICS, GROUP = 2, 4, 16, 32
"""Types of resources that settings are of."""
_SNAPSHOT: Final = re.compile(r"([0-9]{20})-([0-9]{10})\.checkpoint")
_SEGMENT: Final = re.compile(r"([0-9]{20})\.log")
_FRAME: Final = 1
_BEGIN, _END, _ABORT = 23, 24, 25
_KINDS: Final = {
    2: "topic_record",
    3: "partition_record",
    4: "config_record",
    5: "partition_change_record",
    9: "remove_topic_record",
    11: "user_scram_credential_record",
    14: "client_quota_record",
    15: "producer_ids_record",
    22: "remove_user_scram_credential_record",
}
_SECURITY: Final = {
    10: "delegation tokens",
    18: "ACLs",
    19: "ACLs",
    26: "delegation tokens",
}
_REMOVALS: Final = frozenset((19, 26))


class KraftError(Exception):
    """The metadata can't be read; says which file and why."""


@dataclass(slots=True)
class Partition:
    replicas: list[int]
    isr: list[int]
    elr: list[int]
    """Out of the ISR, and known to have all of it (KIP-966)."""
    leader_epoch: int

    def has_all(self, broker: int) -> bool:
        """Whether a broker has all records. The last one to stop leaves an ISR without anybody, and is in the ELR then."""
        known = [*self.isr, *self.elr] or self.replicas
        return broker in known


@dataclass(slots=True)
class Topic:
    name: str
    topic_id: UUID
    partitions: dict[int, Partition] = field(default_factory=dict)


@dataclass(slots=True)
class Image:
    """The state of a cluster."""

    topics: dict[UUID, Topic] = field(default_factory=dict)
    configs: dict[tuple[int, str], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Settings by type and name of what they are of."""
    quotas: dict[tuple[tuple[str, str | None], ...], dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    users: dict[str, dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    """What is kept of passwords, by user and mechanism of SCRAM: the record."""
    next_producer_id: int = 0
    security: Counter[str] = field(default_factory=Counter)
    """How many there are of what is about authentication and authorization."""

    def apply(self, kind: int, version: int, body: bytes) -> None:
        """One record. A kind that does not matter here is passed over. Raises DecodeError."""
        if kind in _SECURITY:
            self.security[_SECURITY[kind]] += -1 if kind in _REMOVALS else 1
        if kind not in _KINDS:
            return
        name = _KINDS[kind]
        message = decode_data(name, min(version, data_versions(name)[1]), body)
        getattr(self, f"_{name}")(message)

    def _topic_record(self, m: dict[str, Any]) -> None:
        self.topics[m["topic_id"]] = Topic(m["name"], m["topic_id"])

    def _partition_record(self, m: dict[str, Any]) -> None:
        topic = self.topics.get(m["topic_id"])
        if topic is not None:
            topic.partitions[m["partition_id"]] = Partition(
                list(m["replicas"]), list(m["isr"]), list(m.get("eligible_leader_replicas") or ()), m["leader_epoch"]
            )

    def _partition_change_record(self, m: dict[str, Any]) -> None:
        topic = self.topics.get(m["topic_id"])
        partition = topic.partitions.get(m["partition_id"]) if topic is not None else None
        if partition is None:
            return
        if m["isr"] is not None:
            partition.isr = list(m["isr"])
        if m.get("eligible_leader_replicas") is not None:
            partition.elr = list(m["eligible_leader_replicas"])
        if m["replicas"] is not None:
            partition.replicas = list(m["replicas"])
        if m["leader"] != -2:  # another leader, or the same one anew
            partition.leader_epoch += 1

    def _remove_topic_record(self, m: dict[str, Any]) -> None:
        topic = self.topics.pop(m["topic_id"], None)
        if topic is not None:
            self.configs.pop((TOPIC, topic.name), None)

    def _config_record(self, m: dict[str, Any]) -> None:
        settings = self.configs[m["resource_type"], m["resource_name"]]
        if m["value"] is None:
            settings.pop(m["name"], None)
        else:
            settings[m["name"]] = m["value"]

    def _client_quota_record(self, m: dict[str, Any]) -> None:
        quotas = self.quotas[tuple(sorted((part["entity_type"], part["entity_name"]) for part in m["entity"]))]
        if m["remove"]:
            quotas.pop(m["key"], None)
        else:
            quotas[m["key"]] = m["value"]

    def _user_scram_credential_record(self, m: dict[str, Any]) -> None:
        self.users[m["name"]][m["mechanism"]] = m

    def _remove_user_scram_credential_record(self, m: dict[str, Any]) -> None:
        self.users[m["name"]].pop(m["mechanism"], None)

    def _producer_ids_record(self, m: dict[str, Any]) -> None:
        self.next_producer_id = max(self.next_producer_id, m["next_producer_id"])


def read_image(directory: Path) -> Image:
    """What `__cluster_metadata-0` says. Blocks. Raises KraftError, OSError."""
    snapshots = sorted((match[1], match[2], path) for path in directory.iterdir() if (match := _SNAPSHOT.fullmatch(path.name)))
    segments = sorted((int(match[1]), path) for path in directory.iterdir() if (match := _SEGMENT.fullmatch(path.name)))
    if not segments:
        raise KraftError(f"{directory} has no segments: these are not the metadata of a Kafka cluster in KRaft mode")
    if not snapshots and segments[0][0]:
        raise KraftError(f"{directory} begins at offset {segments[0][0]}, and has no snapshot of what was before")
    start = int(snapshots[-1][0]) if snapshots else 0
    image = Image()
    held: list[tuple[int, int, bytes]] | None = None
    at = start
    for path, since in [(path, 0) for _, _, path in snapshots[-1:]] + [(path, start) for _, path in segments]:
        try:
            for batch in iter_batches(path.read_bytes()):
                if path.suffix == ".log":
                    if batch.base_offset > at:
                        raise ValueError(f"what is stored goes on at offset {batch.base_offset}, after {at}")
                    at = max(at, batch.last_offset + 1)
                for kind, version, body in _records(batch, since):
                    if kind == _BEGIN:
                        held = []
                    elif kind in (_END, _ABORT):
                        for record in held or () if kind == _END else ():
                            image.apply(*record)
                        held = None
                    elif held is not None:
                        held.append((kind, version, body))
                    else:
                        image.apply(kind, version, body)
        except ValueError as error:
            raise KraftError(f"{path}: {error}") from error
    return image


def _records(batch: Batch, start: int) -> Iterator[tuple[int, int, bytes]]:
    """Kind, version and message of each record from an offset on. Raises ValueError."""
    for record in batch.records if not batch.control else ():
        if record.offset < start or not record.value:
            continue
        frame, at = _varint(record.value, 0)
        if frame != _FRAME:
            raise ValueError(f"the record at offset {record.offset} has frame version {frame}")
        kind, at = _varint(record.value, at)
        version, at = _varint(record.value, at)
        yield kind, version, record.value[at:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint and where it ends. Raises ValueError."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a record of the metadata begins with no varint")
