"""`fastlog log repair --metadata`: the metadata database made anew from what the data directories say of themselves.

They say whose they are (meta.properties), each partition's topic, id and leader epochs, and which producers wrote. What topics, brokers and
clients were set to is lost with the database, and is said to be.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fastlog.broker.server import CLUSTER_ID_KEY, DIRECTORIES_KEY, METADATA, PRODUCER_IDS_KEY
from fastlog.broker.shards import PRODUCER_ENTRY, PRODUCER_HEAD
from fastlog.metadata.sqlite import open_store
from fastlog.metadata.store import ABSENT
from fastlog.metadata.topics import PREFIX, PartitionRecord, TopicRecord
from fastlog.storage.directory import DirectoryError, read_properties
from fastlog.storage.epochs import load_epochs
from fastlog.storage.files import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PARTITION: Final = re.compile(r"(.+)-([0-9]+)")
_TOPIC_ID: Final = re.compile(r"^topic_id: ([A-Za-z0-9_-]{22})$", re.MULTILINE)
_INTERNAL: Final = {
    "__consumer_offsets": {"cleanup.policy": "compact", "compression.type": "producer"},
    "__transaction_state": {"cleanup.policy": "compact", "compression.type": "uncompressed"},
}
PRODUCER_IDS_SKIPPED: Final = 1_000_000
"""Ids that may have been given out to producers of which no log knows."""
_ASIDE: Final = ".damaged"


@dataclass(slots=True)
class Rebuilt:
    """What the new database is to hold."""

    path: Path
    values: dict[str, bytes]
    topics: dict[str, TopicRecord] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {name: len(record.partitions) for name, record in self.topics.items()}


def find_topics(directories: Sequence[Path]) -> Rebuilt:
    """Reads all data directories of a broker; the first one is to have the database. Blocks. Raises DirectoryError, OSError."""
    properties = [read_properties(path) for path in directories]
    clusters = sorted({found.get("cluster.id", "") for found in properties})
    if len(clusters) != 1 or not clusters[0]:
        raise DirectoryError(f"the directories belong to different clusters ({', '.join(clusters)}), or to none")
    ids = {str(path.resolve()): found["directory.id"] for path, found in zip(directories, properties, strict=True)}
    made = Rebuilt(
        directories[0] / METADATA, {CLUSTER_ID_KEY: clusters[0].encode(), DIRECTORIES_KEY: json.dumps(ids, sort_keys=True).encode()}
    )
    places: dict[str, dict[int, tuple[str, Path]]] = {}
    for path in directories:
        for entry in sorted(path.iterdir()):
            match = _PARTITION.fullmatch(entry.name)
            if match is not None and entry.is_dir() and any(entry.glob("*.log")):
                places.setdefault(match[1], {})[int(match[2])] = ids[str(path.resolve())], entry
    next_producer = 0
    for name, partitions in sorted(places.items()):
        topic_ids = {topic_id for _, entry in partitions.values() if (topic_id := _id_of(entry)) is not None}
        if len(topic_ids) != 1:
            made.said.append(f"topic {name}: its partitions' partition.metadata name {len(topic_ids)} topics: left as it is")
            continue
        records = []
        for index in range(max(partitions) + 1):
            if index not in partitions:
                made.said.append(f"topic {name}: partition {index} is not there: it will be offline")
                records.append(PartitionRecord("", 0))
                continue
            directory_id, entry = partitions[index]
            records.append(PartitionRecord(directory_id, max(_epoch_of(entry, made.said), 0)))
            next_producer = max(next_producer, _next_producer(entry))
        made.topics[name] = TopicRecord(topic_ids.pop(), tuple(records), len(records), dict(_INTERNAL.get(name, {})))
    made.values |= {PREFIX + name: record.encode() for name, record in made.topics.items()}
    made.values[PRODUCER_IDS_KEY] = str(next_producer + PRODUCER_IDS_SKIPPED).encode()
    made.said.append("settings of topics, brokers, groups and clients (quotas) are lost: all have their defaults; set them again")
    return made


def write_metadata(made: Rebuilt, directories: Sequence[Path]) -> None:
    """Puts what is left of the old database aside, and a new one in its place. Blocks. Raises StoreError, DirectoryError, OSError."""
    for path in directories[1:]:
        if (path / METADATA).exists():
            raise DirectoryError(f"a metadata database lies in {path}: give that directory first")
    for ending in ("", "-wal", "-shm"):
        old = made.path.with_name(made.path.name + ending)
        if old.exists():
            old.replace(old.with_name(old.name + _ASIDE))
    asyncio.run(_write(made))


async def _write(made: Rebuilt) -> None:
    store = await open_store(made.path)
    try:
        await store.write(made.values, dict.fromkeys(made.values, ABSENT))
    finally:
        await store.close()


def _id_of(entry: Path) -> UUID | None:
    try:
        match = _TOPIC_ID.search((entry / "partition.metadata").read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return UUID(bytes=base64.urlsafe_b64decode(match[1] + "==")) if match is not None else None


def _epoch_of(entry: Path, said: list[str]) -> int:
    try:
        return load_epochs(str(entry)).latest
    except DamagedFileError as error:
        said.append(f"{error}: repair the logs too")
        return 0


def _next_producer(entry: Path) -> int:
    """One more than the largest producer id in the partition's snapshots."""
    found = -1
    for path in entry.glob("*.snapshot"):
        data = path.read_bytes()[PRODUCER_HEAD:]
        whole = data[: len(data) // PRODUCER_ENTRY.size * PRODUCER_ENTRY.size]
        found = max([found, *(row[0] for row in PRODUCER_ENTRY.iter_unpack(whole))])
    return found + 1
