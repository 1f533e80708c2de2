"""Kafka's console tools, as its bin/*.sh scripts run them."""

import json
import re
import time
from pathlib import Path

import confluent_kafka
import pytest

from tests.support.java import java

pytestmark = [pytest.mark.java, pytest.mark.one_engine]

PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
TOPICS = "org.apache.kafka.tools.TopicCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
CONFIGS = "kafka.admin.ConfigCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
API_VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"


def test_console_producer_and_consumer(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    lines = [f"key{i % 5}\tvalue {i}" for i in range(500)]
    at = ("--bootstrap-server", bootstrap, "--topic", fresh_name)
    java(kafka_classpath, PRODUCER, *at, "--reader-property", "parse.key=true", given=("\n".join(lines) + "\n").encode())
    shown = ("--formatter-property", "print.key=true", "--from-beginning", "--max-messages", "500", "--timeout-ms", "30000")
    read = java(kafka_classpath, CONSUMER, *at, *shown).splitlines()
    for key in range(5):
        mine = f"key{key}\t"
        assert [r for r in read if r.startswith(mine)] == [line for line in lines if line.startswith(mine)]


def test_topics_configs_and_offsets(bootstrap: str, kafka_classpath: str, fresh_name: str, tmp_path: Path) -> None:
    at = ("--bootstrap-server", bootstrap)
    java(kafka_classpath, TOPICS, *at, "--create", "--topic", fresh_name, "--partitions", "3", "--config", "retention.ms=3600000")
    assert fresh_name in java(kafka_classpath, TOPICS, *at, "--list").split()
    java(kafka_classpath, TOPICS, *at, "--alter", "--topic", fresh_name, "--partitions", "4")
    described = java(kafka_classpath, TOPICS, *at, "--describe", "--topic", fresh_name)
    assert re.search(r"PartitionCount:\s*4\b", described)
    assert "retention.ms=3600000" in described

    entity = ("--entity-type", "topics", "--entity-name", fresh_name)
    java(kafka_classpath, CONFIGS, *at, *entity, "--alter", "--add-config", "retention.ms=7200000,compression.type=producer")
    described = java(kafka_classpath, CONFIGS, *at, *entity, "--describe")
    assert "retention.ms=7200000" in described
    java(kafka_classpath, CONFIGS, *at, *entity, "--alter", "--delete-config", "retention.ms")
    assert "retention.ms=7200000" not in java(kafka_classpath, CONFIGS, *at, *entity, "--describe")

    java(kafka_classpath, PRODUCER, *at, "--topic", fresh_name, given=b"".join(b"%d\n" % i for i in range(100)))
    listed = java(kafka_classpath, OFFSETS, *at, "--topic", fresh_name).splitlines()
    ends = {int(line.split(":")[1]): int(line.split(":")[2]) for line in listed}
    assert sorted(ends) == [0, 1, 2, 3]
    assert sum(ends.values()) == 100

    fullest = max(ends, key=lambda p: ends[p])
    asked = {"version": 1, "partitions": [{"topic": fresh_name, "partition": fullest, "offset": 10}]}
    (tmp_path / "delete.json").write_text(json.dumps(asked))
    java(kafka_classpath, DELETE_RECORDS, *at, "--offset-json-file", tmp_path / "delete.json")
    first = java(kafka_classpath, OFFSETS, *at, "--topic-partitions", f"{fresh_name}:{fullest}", "--time", "earliest")
    assert first.strip() == f"{fresh_name}:{fullest}:10"

    java(kafka_classpath, TOPICS, *at, "--delete", "--topic", fresh_name)
    assert fresh_name not in java(kafka_classpath, TOPICS, *at, "--list").split()


def test_groups(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    java(kafka_classpath, PRODUCER, *at, "--topic", fresh_name, given=b"".join(b"%d\n" % i for i in range(60)))
    options = ("--group", fresh_name, "--from-beginning", "--max-messages", "60", "--timeout-ms", "30000")
    read = java(kafka_classpath, CONSUMER, *at, "--topic", fresh_name, *options).split()
    assert sorted(map(int, read)) == list(range(60))
    assert fresh_name in java(kafka_classpath, GROUPS, *at, "--list").split()
    described = java(kafka_classpath, GROUPS, *at, "--describe", "--group", fresh_name)
    rows = [line.split() for line in described.splitlines() if line.startswith(fresh_name)]
    assert sum(int(row[3]) for row in rows) == 60
    assert {row[5] for row in rows} == {"0"}
    java(kafka_classpath, GROUPS, *at, "--group", fresh_name, "--topic", fresh_name, "--reset-offsets", "--to-earliest", "--execute")
    from_committed = ("--group", fresh_name, "--max-messages", "60", "--timeout-ms", "30000")
    again = java(kafka_classpath, CONSUMER, *at, "--topic", fresh_name, *from_committed)
    assert sorted(map(int, again.split())) == list(range(60))
    java(kafka_classpath, GROUPS, *at, "--delete", "--group", fresh_name)
    assert fresh_name not in java(kafka_classpath, GROUPS, *at, "--list").split()


def test_consumer_groups(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    """The same of a group of the new protocol (KIP-848), while it has a member and after."""
    at = ("--bootstrap-server", bootstrap)
    group = ("--describe", "--group", fresh_name)
    java(kafka_classpath, TOPICS, *at, "--create", "--topic", fresh_name, "--partitions", "3")
    settings = {"bootstrap.servers": bootstrap, "group.id": fresh_name, "group.protocol": "consumer", "auto.offset.reset": "earliest"}
    member = confluent_kafka.Consumer(settings)
    member.subscribe([fresh_name])
    deadline = time.monotonic() + 45
    while len(member.assignment()) != 3:
        assert time.monotonic() < deadline
        member.poll(0.1)
    member.commit(offsets=[confluent_kafka.TopicPartition(fresh_name, 1, 0)], asynchronous=False)
    (listed,) = [
        line.split() for line in java(kafka_classpath, GROUPS, *at, "--list", "--state").splitlines() if line.startswith(fresh_name)
    ]
    assert listed[-1] == "Stable"
    types = java(kafka_classpath, GROUPS, *at, "--list", "--type", "consumer")
    assert re.search(rf"^{fresh_name}\s+Consumer\b", types, re.MULTILINE)
    (stated,) = [line.split() for line in java(kafka_classpath, GROUPS, *at, *group, "--state").splitlines() if line.startswith(fresh_name)]
    assert stated[-3:] == ["uniform", "Stable", "1"]
    (who,) = [line.split() for line in java(kafka_classpath, GROUPS, *at, *group, "--members").splitlines() if line.startswith(fresh_name)]
    assert who[1] == member.memberid()
    rows = [line.split() for line in java(kafka_classpath, GROUPS, *at, *group, "--offsets").splitlines() if line.startswith(fresh_name)]
    assert {(int(row[2]), row[3]) for row in rows} == {(0, "-"), (1, "0"), (2, "-")}
    assert {row[6] for row in rows} == {member.memberid()}
    member.close()
    java(kafka_classpath, GROUPS, *at, "--group", fresh_name, "--topic", fresh_name, "--reset-offsets", "--to-offset", "0", "--execute")
    java(kafka_classpath, GROUPS, *at, "--delete", "--group", fresh_name)
    assert fresh_name not in java(kafka_classpath, GROUPS, *at, "--list").split()


def test_api_versions(bootstrap: str, kafka_classpath: str) -> None:
    """The tool names each API that the broker serves in a range that it can use."""
    said = java(kafka_classpath, API_VERSIONS, "--bootstrap-server", bootstrap)
    for name in ("Produce(0): 0 to 13", "Fetch(1): 4 to ", "Metadata(3): 0 to 13", "ApiVersions(18): 0 to "):
        assert name in said


LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
FEATURES = "org.apache.kafka.tools.FeatureCommand"
QUORUM = "org.apache.kafka.tools.MetadataQuorumCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"


def test_quotas(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    at = ("--bootstrap-server", bootstrap, "--entity-type", "clients", "--entity-name", fresh_name)
    java(kafka_classpath, CONFIGS, *at, "--alter", "--add-config", "producer_byte_rate=1024,request_percentage=12.5")
    shown = java(kafka_classpath, CONFIGS, *at, "--describe")
    assert f"Quota configs for client-id '{fresh_name}' are " in shown
    assert {"producer_byte_rate=1024.0", "request_percentage=12.5"} <= set(re.split(r"[, \n]+", shown))
    java(kafka_classpath, CONFIGS, *at, "--alter", "--delete-config", "producer_byte_rate,request_percentage")
    assert "producer_byte_rate" not in java(kafka_classpath, CONFIGS, *at, "--describe")


def test_log_dirs_and_reassignments(bootstrap: str, kafka_classpath: str, fresh_name: str, tmp_path: Path) -> None:
    at = ("--bootstrap-server", bootstrap)
    java(kafka_classpath, TOPICS, *at, "--create", "--topic", fresh_name, "--partitions", "2")
    described = json.loads(java(kafka_classpath, LOG_DIRS, *at, "--describe", "--topic-list", fresh_name).splitlines()[-1])
    (broker,) = described["brokers"]
    assert {p["partition"] for d in broker["logDirs"] for p in d["partitions"]} == {f"{fresh_name}-0", f"{fresh_name}-1"}
    assert {d["error"] for d in broker["logDirs"]} == {None}
    wanted = {"version": 1, "partitions": [{"topic": fresh_name, "partition": p, "replicas": [broker["broker"]]} for p in (0, 1)]}
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(wanted))
    said = java(kafka_classpath, REASSIGN, *at, "--execute", "--reassignment-json-file", plan)
    assert f"Successfully started partition reassignments for {fresh_name}-0,{fresh_name}-1" in said
    said = java(kafka_classpath, REASSIGN, *at, "--verify", "--reassignment-json-file", plan)
    assert f"Reassignment of partition {fresh_name}-1 is completed." in said


@pytest.mark.long
def test_a_cluster_of_one(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    assert re.search(r"metadata.version\s.*FinalizedVersionLevel: 4.3-IV0", java(kafka_classpath, FEATURES, *at, "describe"))
    assert "metadata.version was upgraded to 30" in java(kafka_classpath, FEATURES, *at, "upgrade", "--feature", "metadata.version=30")
    status = java(kafka_classpath, QUORUM, *at, "describe", "--status")
    assert re.search(r"LeaderId:\s+1\n", status)
    assert re.search(r'CurrentVoters:\s+\[\{"id": 1, "endpoints"', status)
    java(kafka_classpath, ELECTION, *at, "--election-type", "preferred", "--all-topic-partitions")
    for kind, name, setting in (
        ("brokers", "1", "log.retention.ms=100000000"),
        ("groups", fresh_name, "consumer.session.timeout.ms=50000"),
        ("client-metrics", fresh_name, "interval.ms=10000"),
    ):
        entity = (*at, "--entity-type", kind, "--entity-name", name)
        java(kafka_classpath, CONFIGS, *entity, "--alter", "--add-config", setting)
        assert setting in java(kafka_classpath, CONFIGS, *entity, "--describe")
        java(kafka_classpath, CONFIGS, *entity, "--alter", "--delete-config", setting.partition("=")[0])
        assert setting not in java(kafka_classpath, CONFIGS, *entity, "--describe")
    loggers = (*at, "--entity-type", "broker-loggers", "--entity-name", "1")
    assert re.search(r"root=\w+ sensitive=false", java(kafka_classpath, CONFIGS, *loggers, "--describe"))
