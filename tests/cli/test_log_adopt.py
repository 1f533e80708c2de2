"""`fastlog log adopt`, as an operator runs it; on what a real Kafka wrote: tests/clients/test_adopt.py."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from fastlog.client import Admin, Consumer, Producer
from tests.support.kafka_files import KafkaFiles, log_of
from tests.support.process import fastlog_command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

pytestmark = pytest.mark.one_engine


def adopt(*arguments: str | Path) -> tuple[int, str]:
    """Exit status, and all that was said."""
    command = [*fastlog_command(), "log", "adopt", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False)
    return done.returncode, done.stdout


def test_what_an_operator_sees(tmp_path: Path) -> None:
    kafka = KafkaFiles([tmp_path / "kafka"])
    kafka.topic("orders", [{0: log_of([b"a", b"b"])}])
    kafka.topic("__share_group_state", [{0: b""}])
    kafka.write()
    assert adopt(tmp_path / "kafka", tmp_path / "kafka", "--data", tmp_path / "data")[0] == 2
    status, said = adopt(tmp_path / "nowhere", "--data", tmp_path / "data")
    assert (status, "is no data directory of Kafka" in said) == (1, True)
    status, said = adopt(tmp_path / "kafka", "--data", tmp_path / "data", "--dry-run")
    assert status == 1
    assert "left: topic __share_group_state: share groups are not served\n" in said
    assert "1 topics, 1 partitions, " in said
    assert " would be taken over; 1 things are left" in said
    assert not (tmp_path / "data").exists()
    status, said = adopt(tmp_path / "kafka", "--data", tmp_path / "data")
    assert status == 1
    assert f"fastlog serve --data {tmp_path}/data --set node.id=1\n" in said
    assert "is not empty" in adopt(tmp_path / "kafka", "--data", tmp_path / "data")[1]


def test_the_first_start_finds_the_end_of_what_was_not_left_in_order(start_broker: Start, engine: str, tmp_path: Path) -> None:
    """Kafka was killed by a power cut: the last segment's end is torn, and its indexes are as long as Kafka makes them, and empty."""
    kafka = KafkaFiles([tmp_path / "kafka"])
    whole = [b"%d" % i for i in range(30)]
    kafka.topic("orders", [{0: log_of(whole) + log_of([b"torn"], 30)[:-3] + bytes(500)}])
    for index in ("index", "timeindex"):
        (tmp_path / f"kafka/orders-0/{0:020}.{index}").write_bytes(bytes(10 << 20))
    kafka.write(clean=False)
    status, said = adopt(tmp_path / "kafka", "--data", tmp_path / "data")
    assert status == 0
    assert "the ends of its logs are searched for at the first start" in said
    broker = start_broker("data", io=engine)
    assert "partition orders-0: " in broker.log
    with Admin(bootstrap_servers=broker.bootstrap) as admin:
        assert admin.end_offsets([("orders", 0)]) == {("orders", 0): 30}
    with Producer(bootstrap_servers=broker.bootstrap) as producer:
        assert producer.send("orders", b"more", partition=0).result(30).offset == 30
    values: list[bytes | None] = []
    with Consumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([("orders", 0)])
        while len(values) < 31:
            batches = consumer.poll_batches(timeout=30)
            assert batches
            values += [value for batch in batches for value in batch.value_list()]
    assert values == [*whole, b"more"]
