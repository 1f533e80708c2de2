"""What is found in Kafka's data directories: its metadata, and which topics can be taken over. What a real Kafka wrote: tests/clients."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from fastlog.broker import adoption
from fastlog.broker.server import PRODUCER_IDS_KEY
from fastlog.metadata.sqlite import open_store
from fastlog.metadata.topics import PREFIX, decode_topic
from fastlog.storage.adopt import AdoptError, Plan, make_plan
from fastlog.storage.directory import DirectoryError, take_lock
from fastlog.storage.kraft import BROKER, TOPIC, KraftError, read_image
from tests.support.kafka_files import ABORT, BEGIN, END, KafkaFiles, log_of, record, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG = log_of([b"value %d" % i for i in range(10)])


def planned(*paths: Path, target: Path, metadata: Path | None = None) -> Plan:
    """Closed already: what was decided is left."""
    plan = make_plan([(path, target / path.name) for path in paths], metadata)
    plan.close()
    return plan


@pytest.fixture
def kafka(tmp_path: Path) -> KafkaFiles:
    return KafkaFiles([tmp_path / "kafka"])


# ---- metadata ----


def test_metadata_are_the_newest_snapshot_and_what_came_after(tmp_path: Path) -> None:
    kept, gone, late, half = (uuid4() for _ in range(4))
    quota = {"entity": [{"entity_type": "user", "entity_name": None}], "key": "producer_byte_rate"}
    secret = {"salt": b"s", "stored_key": b"k", "server_key": b"v", "iterations": 4096}

    def partition(topic: object) -> bytes:
        return record("partition_record", topic_id=topic, partition_id=0, replicas=[1, 2], isr=[1, 2], leader_epoch=4)

    before = [
        record("topic_record", name="kept", topic_id=kept),
        partition(kept),
        record("topic_record", name="gone", topic_id=gone),
        partition(gone),
        record("config_record", resource_type=TOPIC, resource_name="kept", name="retention.ms", value="5"),
        record("config_record", resource_type=TOPIC, resource_name="kept", name="segment.ms", value="6"),
        record("config_record", resource_type=TOPIC, resource_name="gone", name="segment.ms", value="7"),
        record("producer_ids_record", next_producer_id=3000),
        record("client_quota_record", **quota, value=17.5),
        record("user_scram_credential_record", name="ann", mechanism=1, **secret),
        record("user_scram_credential_record", name="ann", mechanism=2, **secret),
        b"\x01\x12\x00and then an ACL of which only the kind matters",
    ]
    after = [
        record("partition_change_record", topic_id=kept, partition_id=0, isr=[1]),
        record("partition_change_record", topic_id=kept, partition_id=0, leader=1),
        record("remove_topic_record", topic_id=gone),
        record("config_record", resource_type=TOPIC, resource_name="kept", name="segment.ms", value=None),
        record("config_record", resource_type=BROKER, resource_name="1", name="log.retention.ms", value="8"),
        record("producer_ids_record", next_producer_id=4000),
        record("client_quota_record", **quota, value=0.0, remove=True),
        record("remove_user_scram_credential_record", name="ann", mechanism=1),
        BEGIN,
        record("topic_record", name="late", topic_id=late),
        END,
        BEGIN,
        record("topic_record", name="half", topic_id=half),
        ABORT,
        BEGIN,
        record("topic_record", name="half", topic_id=half),
    ]
    (tmp_path / "00000000000000000010-0000000001.checkpoint").write_bytes(stored(before))
    (tmp_path / "00000000000000000004-0000000001.checkpoint").write_bytes(b"older, and not looked at")
    (tmp_path / f"{8:020}.log").write_bytes(stored([b"not looked at", b"neither"], 8) + stored(after, 10))
    image = read_image(tmp_path)
    assert {topic.name for topic in image.topics.values()} == {"kept", "late"}
    found = image.topics[kept].partitions[0]
    assert (found.replicas, found.isr, found.leader_epoch) == ([1, 2], [1], 5)
    assert image.configs[TOPIC, "kept"] == {"retention.ms": "5"}
    assert image.configs[BROKER, "1"] == {"log.retention.ms": "8"}
    assert (TOPIC, "gone") not in image.configs
    assert image.next_producer_id == 4000
    assert not any(image.quotas.values())
    assert image.users == {"ann": {2: {"name": "ann", "mechanism": 2} | secret}}
    assert image.security == {"ACLs": 1}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no segments"),
        ({f"{5:020}.log": stored([b""], 5)}, "no snapshot of what was before"),
        ({f"{0:020}.log": stored([b""]), f"{2:020}.log": stored([b""], 2)}, "goes on at offset 2, after 1"),
        ({f"{0:020}.log": b"\0" * 100}, "no record batch at byte 0"),
        ({f"{0:020}.log": stored([b"\x02\x02\x00"])}, "frame version 2"),
        ({f"{0:020}.log": stored([b"\x01\xff\xff"])}, "no varint"),
        ({f"{0:020}.log": stored([record("topic_record", name="t", topic_id=uuid4())[:-9]])}, "topic_record"),
    ],
)
def test_metadata_that_cannot_be_read_are_named(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(KraftError, match=why):
        read_image(tmp_path)


# ---- what can be adopted at all ----


def _zookeeper(kafka: KafkaFiles) -> None:
    (kafka.paths[0] / "meta.properties").write_text("version=0\nbroker.id=1\ncluster.id=x\n")


def _ours(kafka: KafkaFiles) -> None:
    (kafka.paths[0] / "meta.properties").write_text("fastlog.format=1\ncluster.id=x\nnode.id=1\n")


def _no_metadata(kafka: KafkaFiles) -> None:
    (kafka.paths[0] / "__cluster_metadata-0").rename(kafka.paths[0] / "elsewhere")


def _target(kafka: KafkaFiles) -> None:
    made = kafka.paths[0].parent / "data/kafka"
    made.mkdir(parents=True)
    (made / "something").touch()


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (lambda kafka: (kafka.paths[0] / "meta.properties").unlink(), "is no data directory of Kafka"),
        (_zookeeper, "without KRaft"),
        (_ours, "of fastlog already"),
        (_no_metadata, "--metadata"),
        (_target, "is not empty"),
    ],
)
def test_directories_that_are_refused(kafka: KafkaFiles, tmp_path: Path, state: Callable[[KafkaFiles], None], why: str) -> None:
    kafka.topic("t", [{0: LOG}])
    kafka.write()
    state(kafka)
    with pytest.raises(AdoptError, match=why):
        planned(*kafka.paths, target=tmp_path / "data")
    os.close(take_lock(kafka.paths[0]))  # it was given back


def test_one_that_is_in_use_is_refused(kafka: KafkaFiles, tmp_path: Path) -> None:
    kafka.write()
    fd = take_lock(kafka.paths[0])
    with pytest.raises(DirectoryError, match=f"locked by process {os.getpid()}"):
        planned(*kafka.paths, target=tmp_path / "data")
    os.close(fd)


def test_directories_of_two_nodes_are_refused(tmp_path: Path) -> None:
    one, two = (KafkaFiles([tmp_path / name], node=node) for name, node in (("one", 1), ("two", 2)))
    one.write()
    two.write()
    with pytest.raises(AdoptError, match="different clusters or brokers"):
        planned(*one.paths, *two.paths, target=tmp_path / "data")


def test_metadata_may_lie_elsewhere(kafka: KafkaFiles, tmp_path: Path) -> None:
    kafka.topic("t", [{0: LOG}])
    kafka.write()
    (tmp_path / "apart").mkdir()
    (kafka.paths[0] / "__cluster_metadata-0").rename(tmp_path / "apart/__cluster_metadata-0")
    plan = planned(*kafka.paths, target=tmp_path / "data", metadata=tmp_path / "apart")
    assert [topic.name for topic in plan.topics] == ["t"]


# ---- which topics ----


def _flipped(path: Path) -> None:
    data = bytearray((path / f"{0:020}.log").read_bytes())
    data[200] ^= 1
    (path / f"{0:020}.log").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_flipped, "partition 0: 00000000000000000000.log: no whole record batch of format 2 at byte "),
        (lambda path: (path / f"{0:020}.log").write_bytes(LOG + b"\0" * 50), "no whole record batch of format 2 at byte "),
        (lambda path: (path / f"{0:020}.log").write_bytes(LOG[:16] + b"\x01" + LOG[17:]), "no whole record batch of format 2 at byte 0"),
        (lambda path: (path / f"{0:020}.log.swap").touch(), "of a compaction that did not end: start Kafka once, and stop it"),
        (lambda path: (path / "partition.metadata").unlink(), "partition.metadata is missing"),
        (lambda path: (path / "partition.metadata").write_text("version: 0\ntopic_id: AAAA\n"), "is of another topic of that name"),
        (lambda path: path.rename(path.with_name("moved")), r"partitions \[0\] are not here; their replicas are on brokers \[1\]"),
    ],
)
def test_topics_that_are_left(kafka: KafkaFiles, tmp_path: Path, damage: Callable[[Path], object], why: str) -> None:
    kafka.topic("t", [{0: LOG}, {0: LOG}])
    kafka.topic("other", [{0: LOG}])
    kafka.write()
    damage(kafka.paths[0] / "t-0")
    plan = planned(*kafka.paths, target=tmp_path / "data")
    assert [topic.name for topic in plan.topics] == ["other"]
    (left,) = [line for line in plan.left if line.startswith("topic t: ")]
    assert re.search(why, left), left


def test_what_has_no_place_here_is_named(kafka: KafkaFiles, tmp_path: Path) -> None:
    kafka.topic("behind", [{0: LOG}], replicas=[1, 2], isr=[2])
    kafka.topic("__share_group_state", [{0: LOG}])
    kafka.metadata += [
        b"\x01\x12\x00an ACL",
        record("config_record", resource_type=TOPIC, resource_name="t", name="min.insync.replicas", value="1"),
        record("config_record", resource_type=TOPIC, resource_name="t", name="no.such.setting", value="1"),
        record("config_record", resource_type=TOPIC, resource_name="t", name="retention.ms", value="ages"),
        record("user_scram_credential_record", name="ann", mechanism=1, salt=b"s", stored_key=b"k", server_key=b"v", iterations=4096),
    ]
    kafka.topic("t", [{0: LOG}])
    kafka.write()
    (kafka.paths[0] / "stray-3").mkdir()
    plan = planned(*kafka.paths, target=tmp_path / "data")
    values = dict(adoption.entries(plan, {tmp_path / "data/kafka": "x"}))
    assert decode_topic("t", values[PREFIX + "t"]).configs == {"min.insync.replicas": "1"}
    assert json.loads(values["/config/user/ann"]) == {"SCRAM-SHA-256": "salt=cw==,stored_key=aw==,server_key=dg==,iterations=4096"}
    assert [line.replace(str(tmp_path), "") for line in plan.left] == [
        "topic __share_group_state: share groups are not served",
        "topic behind: partitions [0] were not in sync here",
        "/kafka/stray-3: no topic of the cluster has it",
        "1 ACLs: there is no such thing here",
        "topic t: setting no.such.setting=1: it can't be set here",
        plan.left[-1],
    ]
    assert "topic t: setting retention.ms=ages: " in plan.left[-1]


def test_the_end_of_a_log_may_be_torn_when_kafka_was_killed(kafka: KafkaFiles, tmp_path: Path) -> None:
    more = log_of([b"value"] * 5, 10)
    kafka.topic("torn", [{0: LOG, 10: more[:-20]}])
    kafka.topic("damaged", [{0: LOG[:-20], 10: more}])
    kafka.write(clean=False)
    plan = planned(*kafka.paths, target=tmp_path / "data")
    assert [topic.name for topic in plan.topics] == ["torn"]
    assert "topic damaged: partition 0: 00000000000000000000.log: no whole record batch" in plan.left[0]


def test_a_copy_needs_room(kafka: KafkaFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka.topic("t", [{0: LOG}])
    kafka.write()
    plan = planned(*kafka.paths, target=tmp_path / "data")
    monkeypatch.setattr("fastlog.storage.adopt.free_bytes", lambda _: len(LOG) - 1)
    with pytest.raises(AdoptError, match=r"has 0\.0 GB free, 0\.0 GB are to be copied: make room, or use --move"):
        adoption.carry_out(plan, move=False)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("move", [False, True])
def test_several_directories_become_as_many(tmp_path: Path, *, move: bool) -> None:
    kafka = KafkaFiles([tmp_path / "one", tmp_path / "two"])
    id_ = kafka.topic("t", [{0: LOG}, {0: LOG}, {0: LOG}])
    kafka.metadata.append(record("producer_ids_record", next_producer_id=2000))
    kafka.write()
    (tmp_path / "two/log-start-offset-checkpoint").write_text("0\n2\nt 1 4\ngone 0 9\n")
    (tmp_path / "two/cleaner-offset-checkpoint").write_text("0\n1\nt 1 5\n")
    plan = planned(*kafka.paths, target=tmp_path / "data")
    adoption.carry_out(plan, move=move)
    data = tmp_path / "data"
    assert sorted(path.name for path in data.glob("*/t-*")) == ["t-0", "t-1", "t-2"]
    assert {path.read_bytes() for path in data.glob("*/t-*/*.log")} == {LOG}
    assert (tmp_path / "one/t-0").exists() is not move
    assert (data / "two/log-start-offset-checkpoint").read_text() == "0\n1\nt 1 4\n"
    assert (data / "two/cleaner-offset-checkpoint").read_text() == "0\n1\nt 1 5\n"

    async def stored_values() -> dict[str, bytes]:
        store = await open_store(data / "one/fastlog-metadata.db")
        try:
            return {entry.key: entry.value for entry in await store.range("")}
        finally:
            await store.close()

    values = asyncio.run(stored_values())
    topic = decode_topic("t", values[PREFIX + "t"])
    assert topic.topic_id == id_
    ids = {path.name: dict(line.split("=") for line in (path / "meta.properties").read_text().splitlines()) for path in data.iterdir()}
    assert [p.directory for p in topic.partitions] == [ids[name]["directory.id"] for name in ("one", "two", "one")]
    assert values[PRODUCER_IDS_KEY] == b"2000"
