"""What was committed is there after a kill, and Apache Kafka's own tool reads it."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.errors import Error
from tests.coordinator.test_wire import Wire, stable
from tests.support.java import dump_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.process import Broker

QUICK = ["--set", "group.initial.rebalance.delay.ms=0", "--set", "offsets.topic.num.partitions=4"]


def make_topic(wire: Wire, name: str) -> None:
    topic = {"name": name, "num_partitions": 1, "replication_factor": 1}
    assert wire.ask("CreateTopics", 7, {"topics": [topic], "timeout_ms": 10_000})["topics"][0]["error_code"] == Error.NONE


def test_groups_survive_a_kill(start_broker: Callable[..., Broker], eventually: Callable[..., None]) -> None:
    broker = start_broker(args=QUICK)
    offsets = {f"group-{number}": number for number in range(50)}
    with Wire(broker.bootstrap) as wire:
        make_topic(wire, "orders")
        member = stable(wire, "members")
        assert wire.commit("members", "orders", 7, member_id=member, generation_id_or_member_epoch=1) is Error.NONE
        for group, offset in offsets.items():
            assert wire.commit(group, "orders", offset) is Error.NONE
    broker.kill()
    broker.start()
    with Wire(broker.bootstrap) as wire:
        eventually(lambda: wire.ask("ListGroups", 5, {})["error_code"] == Error.NONE, 10)
        assert {group["group_id"] for group in wire.ask("ListGroups", 5, {})["groups"]} == {*offsets, "members"}
        for group, offset in offsets.items():
            assert wire.fetch(group, "orders") == offset
        assert wire.state("members") == "Stable"
        assert wire.heartbeat("members", member, 1) is Error.NONE
        assert wire.sync("members", member, 1)["assignment"] == b"mine"
        assert wire.fetch("members", "orders") == 7


@pytest.mark.java
def test_kafka_reads_records_of_consumer_groups(start_broker: Callable[..., Broker], kafka_classpath: str, tmp_path: Path) -> None:
    broker = start_broker(args=QUICK)
    with Wire(broker.bootstrap) as wire:
        make_topic(wire, "orders")
        request = {
            "group_id": "app",
            "member_id": "m",
            "member_epoch": 0,
            "rebalance_timeout_ms": 60_000,
            "subscribed_topic_names": ["orders"],
            "subscribed_topic_regex": "ord.*",
            "topic_partitions": [],
        }
        assert wire.ask("ConsumerGroupHeartbeat", 1, request)["error_code"] == Error.NONE
        deadline = time.monotonic() + 30
        while wire.ask("ConsumerGroupDescribe", 1, {"group_ids": ["app"]})["groups"][0]["group_epoch"] < 3:
            assert time.monotonic() < deadline, "the regular expression was not matched against the topics"
    broker.kill()
    broker.start()
    with Wire(broker.bootstrap) as wire:
        deadline = time.monotonic() + 30
        while (answer := wire.ask("ConsumerGroupHeartbeat", 1, {"group_id": "app", "member_id": "m", "member_epoch": 2}))["error_code"]:
            assert answer["error_code"] == Error.COORDINATOR_LOAD_IN_PROGRESS
            assert time.monotonic() < deadline
        assert wire.ask("ConsumerGroupHeartbeat", 1, {"group_id": "app", "member_id": "m", "member_epoch": -1})["error_code"] == Error.NONE
    broker.stop()
    files = [path for path in (tmp_path / "data").glob("__consumer_offsets-*/*.log") if path.stat().st_size]
    dumped = dump_segments(kafka_classpath, files, "--offsets-decoder")
    records = [(json.loads(key), json.loads(value)) for key, value in re.findall(r"key: (\{.*\}) payload: (\{.*\})", dumped)]
    data = {key["type"]: value["data"] for key, value in records}
    assert set(data) == {"3", "5", "6", "7", "8", "16"}
    assert data["5"]["subscribedTopicNames"] == ["orders"]
    assert data["5"]["classicMemberMetadata"] is None
    assert data["16"]["topics"] == ["orders"]
    assert data["8"]["assignedPartitions"][0]["partitions"] == data["7"]["topicPartitions"][0]["partitions"]


@pytest.mark.java
def test_kafka_reads_what_is_written(start_broker: Callable[..., Broker], kafka_classpath: str, tmp_path: Path) -> None:
    broker = start_broker(args=QUICK)
    with Wire(broker.bootstrap) as wire:
        make_topic(wire, "orders")
        member = stable(wire, "app")
        wire.commit("app", "orders", 42, member_id=member, generation_id_or_member_epoch=1, metadata="über")
        wire.leave("app", (member, None))
    broker.stop()
    files = [path for path in (tmp_path / "data").glob("__consumer_offsets-*/*.log") if path.stat().st_size]
    dumped = dump_segments(kafka_classpath, files, "--offsets-decoder")
    assert "isvalid: false" not in dumped
    records = [(json.loads(key), json.loads(value)) for key, value in re.findall(r"key: (\{.*\}) payload: (\{.*\})", dumped)]
    assert [(key["type"], value["version"]) for key, value in records] == [("2", "3"), ("1", "4"), ("2", "3")]
    formed, committed, emptied = (value["data"] for _, value in records)
    assert formed["generation"] == 1
    assert formed["members"][0]["memberId"] == member
    assert formed["members"][0]["subscription"] == {"topics": ["t"], "userData": None}
    assert (committed["offset"], committed["metadata"]) == (42, "über")
    assert (emptied["generation"], emptied["protocolType"], emptied["protocol"], emptied["members"]) == (2, "consumer", None, [])
