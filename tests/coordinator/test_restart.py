"""What was committed is there after a kill, and Apache Kafka's own tool reads it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.errors import Error
from tests.coordinator.test_wire import Wire, stable

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
def test_kafka_reads_what_is_written(start_broker: Callable[..., Broker], kafka_classpath: str, tmp_path: Path) -> None:
    broker = start_broker(args=QUICK)
    with Wire(broker.bootstrap) as wire:
        make_topic(wire, "orders")
        member = stable(wire, "app")
        wire.commit("app", "orders", 42, member_id=member, generation_id_or_member_epoch=1, metadata="über")
        wire.leave("app", (member, None))
    broker.stop()
    files = [str(path) for path in (tmp_path / "data").glob("__consumer_offsets-*/*.log") if path.stat().st_size]
    tool = "org.apache.kafka.tools.DumpLogSegments"
    command = ["java", "-cp", kafka_classpath, tool, "--offsets-decoder", "--deep-iteration", "--files", ",".join(files)]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "isvalid: false" not in dumped
    records = [(json.loads(key), json.loads(value)) for key, value in re.findall(r"key: (\{.*\}) payload: (\{.*\})", dumped)]
    assert [(key["type"], value["version"]) for key, value in records] == [("2", "3"), ("1", "4"), ("2", "3")]
    formed, committed, emptied = (value["data"] for _, value in records)
    assert formed["generation"] == 1
    assert formed["members"][0]["memberId"] == member
    assert formed["members"][0]["subscription"] == {"topics": ["t"], "userData": None}
    assert (committed["offset"], committed["metadata"]) == (42, "über")
    assert (emptied["generation"], emptied["protocolType"], emptied["protocol"], emptied["members"]) == (2, "consumer", None, [])
