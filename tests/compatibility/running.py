"""Starts the two brokers with the same settings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from bench.brokers import Kafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Nothing may change by itself between two runs, and what a Kafka of one node has to be told is told to both.
SETTINGS: Final = {
    "auto.create.topics.enable": "true",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.check.interval.ms": "300000",
    "log.segment.delete.delay.ms": "1000",
    "offsets.topic.num.partitions": "5",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
}
SETTLE_S: Final = 0.3  # of Kafka: how long its parts take until all know what one of them has answered
ARGS: Final = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@contextlib.contextmanager
def kafka_for(directory: Path) -> Iterator[tuple[str, Path]]:
    """HOST:PORT of an Apache Kafka from the jars, and its data directory. Raises bench.brokers.StartError."""
    broker = Kafka(directory, 0, [f"{key}={value}" for key, value in SETTINGS.items()])
    directory.mkdir()
    broker.start()
    try:
        yield broker.address, broker.directory
    finally:
        broker.stop()
