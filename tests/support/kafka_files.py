"""Data directories as Apache Kafka leaves them, made by hand: what it takes to try each state in which one may be found."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from fastlog.protocol.messages import data_versions, encode_data
from fastlog.protocol.records import Record, build_batch

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "topic_record": 2,
    "partition_record": 3,
    "config_record": 4,
    "partition_change_record": 5,
    "remove_topic_record": 9,
    "user_scram_credential_record": 11,
    "client_quota_record": 14,
    "producer_ids_record": 15,
    "remove_user_scram_credential_record": 22,
}
BEGIN, END, ABORT = b"\x01\x17\x00\x00", b"\x01\x18\x00\x00", b"\x01\x19\x00\x00"
"""Of a transaction of the controller's: frame, kind, version, no tagged fields."""
FIELDS: dict[str, dict[str, Any]] = {
    "partition_record": {"removing_replicas": [], "adding_replicas": [], "directories": [], "leader": 1, "leader_epoch": 0},
    "producer_ids_record": {"broker_id": 1},
    "client_quota_record": {"remove": False},
}


def record(kind: str, /, **fields: Any) -> bytes:
    """One record's value, of a kind that is read."""
    version = data_versions(kind)[1]
    return bytes((1, KINDS[kind], version)) + encode_data(kind, version, FIELDS.get(kind, {}) | fields)


def stored(values: list[bytes], base_offset: int = 0) -> bytes:
    """A batch of them."""
    return build_batch([Record(i, -1, None, value) for i, value in enumerate(values)], timestamp_ms=1, base_offset=base_offset)


def log_of(values: list[bytes], base_offset: int = 0) -> bytes:
    """A segment with a batch for each value."""
    batches = [
        build_batch([Record(0, -1, b"k", value)], timestamp_ms=1000 + i, base_offset=base_offset + i, leader_epoch=0)
        for i, value in enumerate(values)
    ]
    return b"".join(batches)


@dataclass
class KafkaFiles:
    """A node's directories, the metadata in the first; `write` when all is said."""

    paths: list[Path]
    cluster: str = "MkU3OEVBNTcwNTJENDM2Qg"
    node: int = 1
    metadata: list[bytes] = field(default_factory=list)

    def topic(
        self, name: str, partitions: list[dict[int, bytes]], *, replicas: list[int] | None = None, isr: list[int] | None = None
    ) -> UUID:
        """With partitions that have these segments (by base offset), dealt to the directories in turn."""
        id_ = uuid4()
        replicas = [self.node] if replicas is None else replicas
        self.metadata.append(record("topic_record", name=name, topic_id=id_))
        for index, segments in enumerate(partitions):
            known = {"topic_id": id_, "partition_id": index, "replicas": replicas, "isr": replicas if isr is None else isr}
            self.metadata.append(record("partition_record", **known))
            path = self.paths[index % len(self.paths)] / f"{name}-{index}"
            path.mkdir(parents=True)
            for base, segment in segments.items():
                (path / f"{base:020}.log").write_bytes(segment)
            text = urlsafe_b64encode(id_.bytes).rstrip(b"=").decode()
            (path / "partition.metadata").write_text(f"version: 0\ntopic_id: {text}\n")
            (path / "leader-epoch-checkpoint").write_text("0\n1\n0 0\n")
        return id_

    def write(self, *, clean: bool = True) -> None:
        for path in self.paths:
            path.mkdir(parents=True, exist_ok=True)
            directory_id = urlsafe_b64encode(uuid4().bytes).decode()[:22]
            said = f"cluster.id={self.cluster}\ndirectory.id={directory_id}\nnode.id={self.node}\nversion=1\n"
            (path / "meta.properties").write_text(f"#\n#Tue Nov 24 10:00:00 UTC 2026\n{said}")
            if clean:
                (path / ".kafka_cleanshutdown").write_text(json.dumps({"version": 0, "brokerEpoch": 7}))
        made = self.paths[0] / "__cluster_metadata-0"
        made.mkdir()
        (made / f"{0:020}.log").write_bytes(stored(self.metadata or [record("producer_ids_record", next_producer_id=0)]))
