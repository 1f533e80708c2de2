"""`fastlog log adopt`: the metadata of a Kafka cluster become the broker's own, beside the logs that storage/adopt puts in place.

The broker's metadata are written before its directories are stamped as such: what a crash leaves half done is no data directory.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fastlog.broker import configs, quotas, scram
from fastlog.broker.server import CLUSTER_ID_KEY, DIRECTORIES_KEY, METADATA, PRODUCER_IDS_KEY
from fastlog.config.broker import BROKER_KEYS
from fastlog.config.client_metrics import CLIENT_METRICS_KEYS
from fastlog.config.group import GROUP_KEYS
from fastlog.config.keys import ConfigError, Mode
from fastlog.config.topic import TOPIC_KEYS
from fastlog.metadata.sqlite import open_store
from fastlog.metadata.store import ABSENT
from fastlog.metadata.topics import PREFIX, PartitionRecord, TopicRecord
from fastlog.storage import adopt, kraft
from fastlog.storage.directory import random_id
from fastlog.storage.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fastlog.config.keys import Key
    from fastlog.storage.adopt import Plan
    from fastlog.storage.kraft import Topic


def carry_out(plan: Plan, *, move: bool) -> None:
    """Does what the plan says. Blocks. Raises AdoptError, StoreError, OSError; but for what was moved already, the source is as it was."""
    ids = {source.target: source.properties.get("directory.id") or random_id() for source in plan.sources}
    if not move:
        adopt.copy_partitions(plan)
    for source in plan.sources:
        source.target.mkdir(parents=True, exist_ok=True)
        sync_directory(source.target.parent)
    asyncio.run(_write(plan.sources[0].target / METADATA, dict(entries(plan, ids))))
    adopt.finish(plan, ids)
    if move:
        adopt.move_partitions(plan)


async def _write(path: Path, values: dict[str, bytes]) -> None:
    store = await open_store(path)
    try:
        await store.write(values, dict.fromkeys(values, ABSENT))
    finally:
        await store.close()


def entries(plan: Plan, ids: Mapping[Path, str]) -> Iterator[tuple[str, bytes]]:
    """What the metadata store is to hold. Settings that mean nothing here are named in `plan.left`."""
    image = plan.image
    yield CLUSTER_ID_KEY, plan.cluster_id.encode()
    yield DIRECTORIES_KEY, _json({str(path.resolve()): id_ for path, id_ in ids.items()})
    yield PRODUCER_IDS_KEY, str(image.next_producer_id).encode()
    for topic in plan.topics:
        yield PREFIX + topic.name, _topic(plan, topic, ids).encode()
    for kind, prefix, keys in (
        (kraft.BROKER, configs.PREFIX, {name: key for name, key in BROKER_KEYS.items() if key.mode is not Mode.READ_ONLY}),
        (kraft.GROUP, configs.GROUP_PREFIX, GROUP_KEYS),
        (kraft.CLIENT_METRICS, configs.CLIENT_METRICS_PREFIX, CLIENT_METRICS_KEYS),
    ):
        for name in sorted(name for found, name in image.configs if found == kind):
            if kind == kraft.BROKER and name not in ("", str(plan.node_id)):
                continue  # of another broker
            own = _settings(plan, kind, name, keys)
            if own:
                yield prefix + name, _json(own)
    for entity, values in sorted(image.quotas.items(), key=lambda item: json.dumps(item[0])):
        if values:
            yield quotas.PREFIX + json.dumps(entity, separators=(",", ":")), _json(values)
    for user, kept in sorted(image.users.items()):
        own = {scram.MECHANISMS[number]: _credential(record) for number, record in kept.items() if number in scram.MECHANISMS}
        if own:
            yield configs.USER_PREFIX + user, _json(own)


def _credential(record: Mapping[str, Any]) -> str:
    return scram.credential(**{name: record[name] for name in ("salt", "stored_key", "server_key", "iterations")})


def _topic(plan: Plan, topic: Topic, ids: Mapping[Path, str]) -> TopicRecord:
    partitions = tuple(
        PartitionRecord(ids[plan.places[topic.name, index].target], max(topic.partitions[index].leader_epoch, 0))
        for index in sorted(topic.partitions)
    )
    return TopicRecord(topic.topic_id, partitions, len(partitions), _settings(plan, kraft.TOPIC, topic.name, TOPIC_KEYS))


def _settings(plan: Plan, kind: int, name: str, keys: Mapping[str, Key]) -> dict[str, str]:
    """Those of something's settings that are taken."""
    taken: dict[str, str] = {}
    for setting, text in sorted(plan.image.configs.get((kind, name), {}).items()):
        try:
            keys[setting].parse(text)
        except (KeyError, ConfigError) as error:
            why = "it can't be set here" if isinstance(error, KeyError) else str(error)
            what = {kraft.TOPIC: f"topic {name}", kraft.GROUP: f"group {name}", kraft.CLIENT_METRICS: f"client metrics {name}"}
            plan.left.append(f"{what.get(kind, 'the broker')}: setting {setting}={text}: {why}")
        else:
            taken[setting] = text
    return taken


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
