"""`fastlog log repair`, as an operator runs it."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.client import Admin, Consumer, Producer, TopicPartition
from tests.support.process import BrokerFailedError, fastlog_command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.process import Broker

pytestmark = pytest.mark.one_engine


def repair(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    command = [*fastlog_command(), "log", "repair", "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"said": done.stderr}
    return found


def filled(broker: Broker, records: int = 20) -> None:
    with Admin(bootstrap_servers=broker.bootstrap) as admin:
        admin.create_topic("orders", partitions=2)
    with Producer(bootstrap_servers=broker.bootstrap, linger_ms=0) as producer:
        for i in range(records):
            producer.send("orders", b"%d" % i, partition=i % 2).result(30)
    with Consumer(bootstrap_servers=broker.bootstrap, group_id="g", auto_offset_reset="earliest") as consumer:
        consumer.assign([("orders", 0), ("orders", 1)])
        consumer.commit({("orders", 0): 3})


def values(broker: Broker, count: int) -> set[bytes | None]:
    """Those of so many records."""
    found: set[bytes | None] = set()
    with Consumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([("orders", 0), ("orders", 1)])
        deadline = time.monotonic() + 60
        while len(found) < count and time.monotonic() < deadline:
            found.update(value for batch in consumer.poll_batches(timeout=1) for value in batch.value_list())
    return found


def test_damage_is_named_repaired_and_over(start_broker: Start, engine: str) -> None:
    broker = start_broker(io=engine)
    filled(broker)
    assert "locked by process" in repair(broker.data, status=1)["said"]
    broker.stop()
    assert repair(broker.data)["repairs"] == []
    log = broker.data / "orders-1/00000000000000000000.log"
    data = bytearray(log.read_bytes())
    data[65] ^= 1
    log.write_bytes(data)
    told = repair(broker.data, status=1)
    assert told["repairs"][0]["file"] == str(log)
    assert told["repairs"][0]["lost_offsets"] == 1
    assert log.read_bytes() == data
    assert repair(broker.data, "--write")["repairs"] == told["repairs"]
    assert repair(broker.data)["repairs"] == []
    broker.start()
    assert values(broker, 19) == {b"%d" % i for i in range(20) if i != 1}


@pytest.mark.parametrize("state", ["empty", "damaged", "missing"])
def test_lost_metadata_are_made_anew(start_broker: Start, engine: str, state: str) -> None:
    broker = start_broker(io=engine)
    filled(broker)
    broker.stop()
    database = broker.data / "fastlog-metadata.db"
    if state == "missing":
        database.unlink()
    else:
        database.write_bytes(b"" if state == "empty" else database.read_bytes()[:5000])
    with pytest.raises(BrokerFailedError, match="fastlog log repair --metadata"):
        broker.start()
    assert repair(broker.data, "--metadata")["topics"] == {"__consumer_offsets": 50, "orders": 2}
    repair(broker.data, "--metadata", "--write")
    assert (database.with_name(database.name + ".damaged")).exists() == (state != "missing")
    broker.start()
    assert values(broker, 20) == {b"%d" % i for i in range(20)}
    with Consumer(bootstrap_servers=broker.bootstrap, group_id="g") as consumer:
        assert consumer.committed([("orders", 0)])[TopicPartition("orders", 0)] == 3
    with Producer(bootstrap_servers=broker.bootstrap) as producer:
        assert producer.send("orders", b"more", partition=0).result(30).offset == 10
