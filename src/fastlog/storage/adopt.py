"""Taking over data directories of Apache Kafka: what can be taken, and its files put where they are to be.

Kafka's segments, indexes, producer snapshots and leader epochs are this broker's own formats, so they are taken as they are, once every
batch was seen to be whole. Topics and their settings come from Kafka's metadata log (storage/kraft). A topic is taken as a whole or not at
all. The source is only read; `move` takes the partitions' directories out of it at the very end.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastlog.storage.compaction import CHECKPOINT as CLEAN_ENDS
from fastlog.storage.directory import CLEAN, FORMAT, LOG_STARTS, META, take_lock
from fastlog.storage.files import DamagedFileError, read_checkpoint, replace_file, sync_directory, write_checkpoint
from fastlog.storage.inspect import Pace, Reader, batches, segments
from fastlog.storage.kraft import DIRECTORY as METADATA
from fastlog.storage.kraft import Image, read_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastlog.storage.kraft import Topic

_PARTITION: Final = re.compile(r"(.+)-([0-9]+)")
_KEPT: Final = re.compile(r"[0-9]{20}\.(log|index|timeindex|txnindex|snapshot)|leader-epoch-checkpoint|partition\.metadata")
_HALF: Final = (".cleaned", ".swap")
_OURS: Final = ("__share_group_state",)
"""Topics of Kafka's own that have no use here."""
PARTITION_METADATA: Final = "partition.metadata"


class AdoptError(Exception):
    """Nothing can be taken over; says why, and what to do."""


@dataclass(slots=True)
class Source:
    """A data directory of Kafka's, held while it is looked at."""

    path: Path
    target: Path
    properties: dict[str, str]
    lock_fd: int
    clean: bool
    """Kafka was stopped in order."""
    bytes: int = 0
    """Of the segments that are taken from it."""


@dataclass(slots=True)
class Plan:
    """What is taken over."""

    sources: list[Source]
    image: Image
    topics: list[Topic] = field(default_factory=list)
    places: dict[tuple[str, int], Source] = field(default_factory=dict)
    """Where each of their partitions lies."""
    left: list[str] = field(default_factory=list)
    """What is not taken, a line each."""

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self.sources)

    @property
    def cluster_id(self) -> str:
        return self.sources[0].properties["cluster.id"]

    @property
    def node_id(self) -> int:
        return int(self.sources[0].properties["node.id"])

    def close(self) -> None:
        for source in self.sources:
            os.close(source.lock_fd)


def make_plan(pairs: Sequence[tuple[Path, Path]], metadata: Path | None, pace: Pace | None = None) -> Plan:
    """Looks at (Kafka's data directory, directory to be made) pairs, and reads all of the logs. `metadata`: metadata.log.dir, where that is
    none of them. The caller closes the plan. Blocks. Raises AdoptError, KraftError, DirectoryError, OSError.
    """
    sources: list[Source] = []
    try:
        for path, target in pairs:
            sources.append(_open(path, target))
        first = sources[0].properties
        for source in sources[1:]:
            if any(source.properties[name] != first[name] for name in ("cluster.id", "node.id")):
                raise AdoptError(f"{source.path} and {sources[0].path} belong to different clusters or brokers")
        where = next((place for place in [metadata, *(s.path for s in sources)] if place is not None and (place / METADATA).is_dir()), None)
        if where is None:
            raise AdoptError(f"no {METADATA} is there: give the directory that has it (metadata.log.dir) with --metadata")
        plan = Plan(sources, read_image(where / METADATA))
        _choose(plan, pace or Pace())
    except BaseException:
        for source in sources:
            os.close(source.lock_fd)
        raise
    return plan


def _open(path: Path, target: Path) -> Source:
    try:
        lines = (path / META).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise AdoptError(f"{path} is no data directory of Kafka: it has no {META}") from None
    properties = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    if "fastlog.format" in properties:
        raise AdoptError(f"{path} is a data directory of fastlog already")
    if not {"cluster.id", "node.id"} <= properties.keys():
        raise AdoptError(f"{path / META} has no cluster.id and node.id: it is of a Kafka without KRaft; upgrade that to 4.x first")
    if target.exists() and any(target.iterdir()):
        raise AdoptError(f"{target} is not empty: give a directory that is not there yet")
    return Source(path, target, properties, take_lock(path, wait_s=0), (path / CLEAN).exists())


def _choose(plan: Plan, pace: Pace) -> None:
    """Decides about each topic, and says of everything else that it stays."""
    found: dict[str, Source] = {}
    for source in plan.sources:
        for entry in sorted(source.path.iterdir()):
            if entry.is_dir() and _PARTITION.fullmatch(entry.name) and entry.name != METADATA:
                found[entry.name] = source
    known: set[str] = set()
    for topic in sorted(plan.image.topics.values(), key=lambda topic: topic.name):
        names = {index: f"{topic.name}-{index}" for index in sorted(topic.partitions)}
        known.update(names.values())
        why = _refusal(plan, topic, names, found, pace)
        if why:
            plan.left.append(f"topic {topic.name}: {why}")
            continue
        plan.topics.append(topic)
        for index, name in names.items():
            plan.places[topic.name, index] = found[name]
            found[name].bytes += sum(file.stat().st_size for file in segments(found[name].path / name))
    plan.left += [f"{found[name].path / name}: no topic of the cluster has it" for name in sorted(found.keys() - known)]
    plan.left += [f"{count} {what}: there is no such thing here" for what, count in sorted(plan.image.security.items()) if count > 0]


def _refusal(plan: Plan, topic: Topic, names: dict[int, str], found: dict[str, Source], pace: Pace) -> str:
    """Why a topic is not taken, or nothing."""
    if topic.name in _OURS:
        return "share groups are not served"
    if sorted(names) != list(range(len(names))):
        return f"its partitions are {sorted(names)}"
    missing = [index for index, name in names.items() if name not in found]
    if missing:
        brokers = sorted({broker for index in missing for broker in topic.partitions[index].replicas})
        return f"partitions {missing} are not here; their replicas are on brokers {brokers}"
    behind = [index for index in names if not topic.partitions[index].has_all(plan.node_id)]
    if behind:
        return f"partitions {behind} were not in sync here"
    for index, name in names.items():
        path = found[name].path / name
        why = _wrong_id(path, topic) or _damage(path, pace, clean=found[name].clean)
        if why:
            return f"partition {index}: {why}"
    return ""


def _wrong_id(path: Path, topic: Topic) -> str:
    from base64 import urlsafe_b64encode

    expected = urlsafe_b64encode(topic.topic_id.bytes).rstrip(b"=").decode()
    try:
        text = (path / PARTITION_METADATA).read_text()
    except FileNotFoundError:
        return f"{path / PARTITION_METADATA} is missing"
    return "" if f"topic_id: {expected}" in text else f"{path} is of another topic of that name"


def _damage(path: Path, pace: Pace, *, clean: bool) -> str:
    """What is wrong with the batches of a partition, or nothing. Without a stop in order the last segment's end may be torn."""
    half = sorted(file.name for file in path.iterdir() if file.name.endswith(_HALF))
    if half:
        return f"{half[0]} is of a compaction that did not end: start Kafka once, and stop it"
    files = segments(path)
    for file in files:
        reader = Reader(file, pace)
        try:
            end = 0
            for batch in batches(reader):
                if not batch.crc_ok:
                    break
                end = batch.at + batch.size
        finally:
            reader.close()
        if end < reader.size and (clean or file is not files[-1]):
            return f"{file.name}: no whole record batch of format 2 at byte {end}"
    return ""


def copy_partitions(plan: Plan) -> None:
    """Copies the partitions' files, durably. Blocks. Raises AdoptError when there is no room for them, OSError."""
    wanted: dict[int, int] = {}
    for source in plan.sources:
        place = _nearest(source.target)
        device = place.stat().st_dev
        wanted[device] = wanted.get(device, 0) + source.bytes
        if wanted[device] > (free := free_bytes(place)):
            raise AdoptError(
                f"{place} has {free / 1e9:.1f} GB free, {wanted[device] / 1e9:.1f} GB are to be copied: make room, or use --move"
            )
    for source in plan.sources:
        source.target.mkdir(parents=True, exist_ok=True)
        sync_directory(source.target.parent)
    for (topic, index), source in plan.places.items():
        made = source.target / f"{topic}-{index}"
        made.mkdir()
        for file in sorted((source.path / made.name).iterdir()):
            if _KEPT.fullmatch(file.name):
                shutil.copyfile(file, made / file.name)
                os.utime(made / file.name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
                _sync_file(made / file.name)
        sync_directory(made)
    for source in plan.sources:
        sync_directory(source.target)


def move_partitions(plan: Plan) -> None:
    """Moves the partitions' directories, which must be on the same file system, durably. Blocks. Raises OSError."""
    for (topic, index), source in plan.places.items():
        name = f"{topic}-{index}"
        (source.path / name).rename(source.target / name)
    for source in plan.sources:
        sync_directory(source.target)
        sync_directory(source.path)


def same_file_system(plan: Plan) -> bool:
    """Whether each target can be moved to by renaming."""
    return all(_nearest(source.target).stat().st_dev == source.path.stat().st_dev for source in plan.sources)


def _nearest(path: Path) -> Path:
    """The path, or the one above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Space that this process may use there. Raises OSError."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def finish(plan: Plan, directory_ids: dict[Path, str]) -> None:
    """Makes the targets data directories: checkpoints, and whose they are, durably; from then on they can be served. Raises OSError."""
    for source in plan.sources:
        mine = {key for key, place in plan.places.items() if place is source}
        for name in (LOG_STARTS, CLEAN_ENDS):
            try:
                rows = read_checkpoint(source.path / name, 3)
            except DamagedFileError as error:
                plan.left.append(f"{error}; it is left out")
                continue
            write_checkpoint(source.target / name, (row for row in rows if (row[0], int(row[1])) in mine))
        if source.clean:
            replace_file(source.target / CLEAN, (source.path / CLEAN).read_bytes())
        properties = {
            "cluster.id": plan.cluster_id,
            "directory.id": directory_ids[source.target],
            "fastlog.format": str(FORMAT),
            "node.id": str(plan.node_id),
            "version": "1",
        }
        replace_file(source.target / META, "".join(f"{name}={value}\n" for name, value in properties.items()).encode())


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
