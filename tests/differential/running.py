"""Starts the two brokers with the same settings."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from bench.brokers import Kafka
from tests.support.process import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.differential.target import Target

# Records of sequences are of the past, and nothing may be deleted for its age while they run.
# A Kafka answers with "unknown topic" while it creates one by itself; fastlog says that it is there.
# What a group's members are told must not hang on how fast they came.
SETTINGS = {
    "auto.create.topics.enable": "false",
    "group.consumer.assignment.interval.ms": "0",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.ms": "-1",
    "log.segment.delete.delay.ms": "1000",
    "num.partitions": "2",
}
SETTLE_S = 0.2  # of Kafka: its coordinators hear of a topic after its controller has answered
THEIRS = {
    "group.consumer.assignor.offload.enable": "false",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "5",
}
OURS = {"fastlog.group.consumer.settling.heartbeat.interval.ms": "5000"}  # a difference that docs/groups.md tells of
ARGS = [word for key, value in (SETTINGS | OURS).items() for word in ("--set", f"{key}={value}")]


@contextlib.contextmanager
def kafka_for(directory: Path) -> Iterator[str]:
    """HOST:PORT of an Apache Kafka from the jars. Raises bench.brokers.StartError."""
    broker = Kafka(directory, 0, [*(f"{key}={value}" for key, value in (SETTINGS | THEIRS).items())])
    broker.start()
    try:
        yield broker.address
    finally:
        broker.stop()


@contextlib.contextmanager
def fastlog_for(directory: Path, io: str | None = None) -> Iterator[str]:
    """HOST:PORT of a fastlog. Raises BrokerFailedError."""
    broker = Broker(directory / "fastlog", io=io, args=ARGS)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


def warm(target: Target) -> None:
    """Waits until the broker's coordinator answers for every group."""
    target.begin()
    for _ in range(30):
        group = f"warm-{uuid.uuid4().hex}"
        asked = {"key": group, "key_type": 0, "coordinator_keys": [group]}
        target.run({"api": "FindCoordinator", "version": 4, "message": asked})
        target.run({"api": "OffsetFetch", "version": 8, "message": {"groups": [{"group_id": group, "topics": None}]}})
        target.run({"api": "FindCoordinator", "version": 4, "message": asked | {"key_type": 1}})
        target.run({"api": "DescribeTransactions", "version": 0, "message": {"transactional_ids": [group]}})
    time.sleep(0.1)
    target.close()
