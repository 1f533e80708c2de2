"""`fastlog log adopt`: what a real Kafka wrote is read back through the broker, byte for byte, and goes on being used."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import confluent_kafka.admin
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from tests.support.kafka import Kafka
from tests.support.process import Broker, fastlog_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Eventually = Callable[[Callable[[], bool], float], None]

pytestmark = [pytest.mark.java, pytest.mark.one_engine]

ADMIN: Any = confluent_kafka.admin  # its names are not declared as exported
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS = 60
Read = dict[int, list[tuple[int, int, bytes | None, bytes | None, Any]]]


@pytest.fixture
def kafka(kafka_classpath: str, tmp_path: Path) -> Iterator[Kafka]:
    node = Kafka(kafka_classpath, tmp_path / "kafka", {"log.cleaner.backoff.ms": "50", "log.cleaner.dedupe.buffer.size": "16777216"})
    node.start()
    yield node
    node.stop(kill=True)


def adopt(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    command = [*fastlog_command(), "log", "adopt", "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"said": done.stderr}
    return found


def read_topic(bootstrap: str, topic: str, partitions: int, isolation: str = "read_committed") -> Read:
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": isolation, "enable.partition.eof": True}
    consumer = Consumer(settings | {"enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found: Read = {p: [] for p in range(partitions)}
    ended: set[int] = set()
    while len(ended) < partitions:
        message = consumer.poll(60)
        assert message is not None, f"{topic}: nothing comes any more"
        error = message.error()
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(partition)
        else:
            found[partition].append((offset, message.timestamp()[1], message.key(), message.value(), message.headers()))
    consumer.close()
    return found


def make_topics(node: Kafka) -> dict[str, int]:
    """Their numbers of partitions by name."""
    admin = ADMIN.AdminClient({"bootstrap.servers": node.bootstrap})
    topics = {f"codec-{codec}": 2 for codec in CODECS} | {"exactly-once": 2, "compacted": 1, "going-on": 1, "gone": 1}
    configs = {
        "compacted": {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"},
        "codec-none": {"retention.ms": "123456789"},
    }
    made = admin.create_topics([ADMIN.NewTopic(name, count, 1, config=configs.get(name, {})) for name, count in topics.items()])
    for future in made.values():
        future.result(60)
    admin.delete_topics(["gone"])["gone"].result(60)
    broker = ADMIN.ConfigResource(
        ADMIN.ConfigResource.Type.BROKER,
        "1",
        incremental_configs=[ADMIN.ConfigEntry("log.retention.ms", "987654321", incremental_operation=ADMIN.AlterConfigOpType.SET)],
    )
    for future in admin.incremental_alter_configs([broker]).values():
        future.result(60)
    del topics["gone"]
    return topics


def write(producer: Producer, topic: str, values: list[bytes], *, keys: int = 7, partitions: int = 1) -> None:
    for i, value in enumerate(values):
        headers: list[tuple[str, str | bytes | None]] = [("n", str(i).encode())] if i % 3 == 0 else []
        producer.produce(topic, value, b"key %d" % (i % keys) if i % 4 else None, partition=i % partitions, headers=headers)
        producer.poll(0)
    assert producer.flush(60) == 0


def fill(node: Kafka, eventually: Eventually) -> None:
    at = {"bootstrap.servers": node.bootstrap}
    for codec in CODECS:
        producer = Producer(at | {"compression.type": codec, "enable.idempotence": codec != "gzip", "linger.ms": 5})
        write(producer, f"codec-{codec}", [b"%d " % i * 300 + bytes(range(256)) for i in range(RECORDS)], partitions=2)
    keyed = Producer(at)
    for i in range(2600):
        keyed.produce("compacted", b"%d" % i + bytes(1000), b"key %d" % (i % 70))
        keyed.poll(0)
    assert keyed.flush(60) == 0
    consumer = Consumer(at | {"group.id": "billing", "enable.auto.commit": False})
    wanted = [TopicPartition("codec-none", p, 11 * (p + 1), metadata="m") for p in range(2)]

    def committed() -> bool:
        try:
            consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException:  # the coordinator is not found yet
            return False
        return [(place.offset, place.metadata) for place in consumer.committed(wanted, timeout=60)] == [(11, "m"), (22, "m")]

    eventually(committed, 60)
    consumer.close()
    eventually(lambda: is_clean(node.data, "compacted"), 60)


def is_clean(data: Path, topic: str) -> bool:
    """Whether all but the active segment is compacted, so that nobody goes on with it."""
    file, active = data / "cleaner-offset-checkpoint", max((data / f"{topic}-0").glob("*.log")).stem
    return file.exists() and f"{topic} 0 {int(active)}" in file.read_text().splitlines()


def transact(producer: Producer, values: list[bytes], *, commit: bool) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce("exactly-once", value, partition=0)
        producer.produce("exactly-once", value, partition=1)
    producer.flush(60)
    producer.commit_transaction(60) if commit else producer.abort_transaction(60)


def topic_ids(data: Path) -> dict[str, str]:
    """As Kafka's partition.metadata has them."""
    return {path.parent.name: path.read_text() for path in data.glob("*/partition.metadata") if is_taken(path.parent.name)}


def is_taken(directory: str) -> bool:
    """Neither Kafka's metadata nor a deleted topic's."""
    return not directory.startswith("__cluster_metadata") and not directory.endswith("-delete")


@pytest.fixture
def served(kafka: Kafka, tmp_path: Path) -> Iterator[Broker]:
    """What is adopted, at the address that Kafka had."""
    broker = Broker(tmp_path / "data", port=kafka.port, args=["--set", "node.id=1"])
    yield broker
    broker.stop()


def test_a_kafka_becomes_a_fastlog(kafka: Kafka, served: Broker, eventually: Eventually) -> None:
    """Clients that are at work meanwhile go on: an idempotent producer in its sequences, a transaction that is open, a group's offsets."""
    at = {"bootstrap.servers": kafka.bootstrap}
    topics = make_topics(kafka)
    fill(kafka, eventually)
    idempotent = Producer(at | {"enable.idempotence": True, "reconnect.backoff.ms": 300})
    write(idempotent, "going-on", [b"%d" % i for i in range(20)])
    mover = Producer(at | {"transactional.id": "mover", "transaction.timeout.ms": 600_000, "reconnect.backoff.ms": 300})
    mover.init_transactions(60)
    for i in range(4):
        transact(mover, [b"%d" % i], commit=i % 2 == 0)
    before = {name: read_topic(kafka.bootstrap, name, count) for name, count in topics.items()}
    dirty = read_topic(kafka.bootstrap, "exactly-once", 2, "read_uncommitted")
    assert len(before["compacted"][0]) < 2600
    mover.begin_transaction()
    mover.produce("exactly-once", b"begun before", partition=0)
    mover.flush(60)
    data = served.data
    assert "is locked by another process: stop it" in adopt(kafka.data, "--data", data, status=1)["said"]
    kafka.stop()
    stored = {path.relative_to(kafka.data): path.read_bytes() for path in kafka.data.glob("*/*.log") if is_taken(path.parent.name)}

    told = adopt(kafka.data, "--data", data, "--dry-run")
    assert not data.exists()
    assert adopt(kafka.data, "--data", data) == told
    assert told["topics"] == topics | {"__consumer_offsets": 4, "__transaction_state": 4}
    assert told["left"] == []
    assert "not empty" in adopt(kafka.data, "--data", data, status=1)["said"]

    served.start()
    mover.produce("exactly-once", b"ended after", partition=0)
    mover.commit_transaction(60)
    transact(mover, [b"another"], commit=True)
    write(idempotent, "going-on", [b"%d" % i for i in range(20, 40)])
    for name, count in topics.items():
        after = read_topic(served.bootstrap, name, count)
        assert {p: after[p][: len(before[name][p])] for p in after} == before[name], name
        if name not in {"exactly-once", "going-on"}:
            assert after == before[name]
    values = [record[3] for record in read_topic(served.bootstrap, "exactly-once", 2)[0]]
    assert values == [b"0", b"2", b"begun before", b"ended after", b"another"]
    assert read_topic(served.bootstrap, "exactly-once", 2, "read_uncommitted")[1][: len(dirty[1])] == dirty[1]
    assert [record[3] for record in read_topic(served.bootstrap, "going-on", 1)[0]] == [b"%d" % i for i in range(40)]
    consumer = Consumer(at | {"group.id": "billing"})
    offsets = consumer.committed([TopicPartition("codec-none", p) for p in range(2)], timeout=60)
    assert [(place.offset, place.metadata) for place in offsets] == [(11, "m"), (22, "m")]
    consumer.close()
    admin = ADMIN.AdminClient(at)
    kinds = ADMIN.ConfigResource.Type
    for kind, name, setting, value in (
        (kinds.TOPIC, "codec-none", "retention.ms", "123456789"),
        (kinds.BROKER, "1", "log.retention.ms", "987654321"),
    ):
        resource = ADMIN.ConfigResource(kind, name)
        assert admin.describe_configs([resource])[resource].result(60)[setting].value == value
    assert admin.list_topics(timeout=60).cluster_id == told["cluster"]
    later = Producer(at | {"transactional.id": "mover"})  # in its next epoch
    later.init_transactions(60)
    transact(later, [b"later"], commit=True)
    with pytest.raises(KafkaException):  # which fences the one before
        transact(mover, [b"too late"], commit=True)

    served.stop()
    for path, content in stored.items():
        assert (data / path).read_bytes()[: len(content)] == content, path
    assert topic_ids(data) == topic_ids(kafka.data)
    checked = subprocess.run([*fastlog_command(), "log", "check", str(data)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.long
def test_one_that_was_killed_is_moved(kafka: Kafka, served: Broker, eventually: Eventually) -> None:
    """Nothing is copied, and the ends of the logs are searched for; what is damaged, or is not all here, stays."""
    topics = make_topics(kafka)
    fill(kafka, eventually)
    before = {name: read_topic(kafka.bootstrap, name, count) for name, count in topics.items()}
    kafka.stop(kill=True)
    log = kafka.data / "codec-zstd-1/00000000000000000000.log"
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    (kafka.data / "codec-zstd-1/00000000000000000001.log").write_bytes(b"")
    inode = (kafka.data / "codec-none-0/00000000000000000000.log").stat().st_ino

    told = adopt(kafka.data, "--data", served.data, "--move", status=1)
    assert [line for line in told["left"] if line.startswith("topic ")] == [
        "topic codec-zstd: partition 1: 00000000000000000000.log: no whole record batch of format 2 at byte 0"
    ]
    assert (served.data / "codec-none-0/00000000000000000000.log").stat().st_ino == inode
    assert (kafka.data / "codec-zstd-0").is_dir()
    served.start()
    for name, count in topics.items():
        if name != "codec-zstd":
            assert read_topic(served.bootstrap, name, count) == before[name], name
    read = Consumer({"bootstrap.servers": served.bootstrap, "group.id": "billing"})
    assert read.committed([TopicPartition("codec-none", 1)], timeout=60)[0].offset == 22
    with pytest.raises(KafkaException):
        read.get_watermark_offsets(TopicPartition("codec-zstd", 0), timeout=20)
    read.close()
