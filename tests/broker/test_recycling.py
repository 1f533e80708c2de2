"""What retention, DeleteRecords and deleted topics remove is used again, as an operator's metrics tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.broker.test_disks import read_to_end
from tests.broker.test_real import Wire
from tests.support.metrics import total
from tests.support.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.process import Broker

BODY = os.urandom(60_000)
SEGMENT = {"segment.bytes": "1048576"}
A_SEGMENT = 17
"""Batches that fit into one."""


@pytest.mark.parametrize("how", ["retention.bytes", "retention.ms", "DeleteRecords", "DeleteTopics"])
def test_removed_segments_are_used_again(
    start_broker: Callable[..., Broker], engine: str, eventually: Callable[..., None], how: str
) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    looks = ["--set", "log.retention.check.interval.ms=100"] if how.startswith("retention") else []
    broker = start_broker(io=engine, args=[*looks, "--metrics", metrics])
    wire = Wire(broker.bootstrap)
    assert wire.create("old", configs=SEGMENT)["error_code"] == 0
    assert wire.create("new", configs=SEGMENT)["error_code"] == 0
    for _ in range(3 * A_SEGMENT + 1):
        assert wire.produce("old", [BODY])["error_code"] == 0
    if how == "DeleteRecords":
        asked = [{"name": "old", "partitions": [{"partition_index": 0, "offset": 3 * A_SEGMENT}]}]
        (answer,) = wire.call("DeleteRecords", topics=asked, timeout_ms=5000)["topics"]
        assert answer["partitions"][0]["error_code"] == 0
    elif how == "DeleteTopics":
        (answer,) = wire.call("DeleteTopics", topics=[{"name": "old"}], timeout_ms=5000)["responses"]
        assert answer["error_code"] == 0
    else:
        entry = {"name": how, "config_operation": 0, "value": "1"}
        resource = {"resource_type": 2, "resource_name": "old", "configs": [entry]}
        wire.call("IncrementalAlterConfigs", resources=[resource], validate_only=False)
    eventually(lambda: total(metrics, "fastlog_store_segments_removed_total") >= 3, 30)
    # not necessarily all three: retention itself has a file open while it looks up how old it is
    assert total(metrics, "fastlog_store_segments_recycled_total") >= 1
    for _ in range(2 * A_SEGMENT + 1):
        assert wire.produce("new", [BODY])["error_code"] == 0
    eventually(lambda: total(metrics, "fastlog_store_segments_reused_total") >= 1, 30)
    assert read_to_end(wire, "new") == 2 * A_SEGMENT + 1
    broker.kill()
    wire.close()
    broker.start()
    wire = Wire(broker.bootstrap)
    assert read_to_end(wire, "new") == 2 * A_SEGMENT + 1
    wire.close()
