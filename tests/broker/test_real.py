"""The control plane on the real data plane, over a socket: what only both together can show."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_NAME, decode_response, encode_request
from fastlog.protocol.records import Record, build_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.process import Broker


class Wire:
    """A connection that speaks the newest version of everything unless told otherwise."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.stream = self.socket.makefile("rb")

    def call(self, name: str, version: int | None = None, **message: Any) -> dict[str, Any]:
        api = API_BY_NAME[name]
        version = api.versions[1] if version is None else version
        head = struct.pack(">hhih", api.key, version, 9, -1) + (b"\0" if api.request_header_version(version) == 2 else b"")
        frame = head + encode_request(api.key, version, message)
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", self.stream.read(4))
        answer = self.stream.read(size)
        return decode_response(api.key, version, answer[4 + api.response_header_version(version) :])

    def create(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> dict[str, Any]:
        wanted = {
            "name": name,
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
        }
        return dict(self.call("CreateTopics", topics=[wanted], timeout_ms=5000)["topics"][0])

    def produce(self, name: str, values: list[bytes], *, acks: int = -1, partition: int = 0, timestamp_ms: int | None = None) -> Any:
        import time

        now = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        batch = build_batch([Record(i, now, b"k", value) for i, value in enumerate(values)], timestamp_ms=now)
        data = [{"name": name, "partition_data": [{"index": partition, "records": batch}]}]
        response = self.call("Produce", 9, acks=acks, timeout_ms=5000, topic_data=data)
        return response["responses"][0]["partition_responses"][0]

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def start(start_broker: Callable[..., Broker], engine: str) -> Callable[[], Broker]:
    return lambda: start_broker(io=engine)


def test_the_longest_name_comes_and_goes(start: Callable[[], Broker]) -> None:
    broker = start()
    wire = Wire(broker.bootstrap)
    for name in ("n" * 249, "t"):
        for _ in range(2):
            assert wire.create(name, 3)["error_code"] == 0
            assert wire.produce(name, [b"x"])["error_code"] == 0
            assert sorted(p.name for p in broker.data.glob(f"{name}-*")) == [f"{name}-{i}" for i in range(3)]
            (answer,) = wire.call("DeleteTopics", topics=[{"name": name}], timeout_ms=5000)["responses"]
            assert answer["error_code"] == 0
            assert not list(broker.data.glob(f"{name}-*"))
            assert wire.produce(name, [b"x"])["error_code"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert "ERROR" not in broker.log
    wire.close()


def test_a_kill_raises_the_epoch_and_keeps_what_was_acknowledged(start: Callable[[], Broker]) -> None:
    broker = start()
    wire = Wire(broker.bootstrap)
    assert wire.create("t", 2)["error_code"] == 0
    for number in range(5):
        assert wire.produce("t", [b"%d" % number])["base_offset"] == number
    broker.kill()
    wire.close()
    broker.start()
    wire = Wire(broker.bootstrap)
    asked = [{"topic": "t", "partitions": [{"partition": 0, "leader_epoch": epoch} for epoch in (0, 1, 2)]}]

    def ends() -> list[tuple[int, int]]:
        (topic,) = wire.call("OffsetForLeaderEpoch", replica_id=-1, topics=asked)["topics"]
        return [(p["leader_epoch"], p["end_offset"]) for p in topic["partitions"]]

    assert ends() == [(0, 5), (1, 5), (-1, -1)]
    (topic,) = wire.call("Metadata", topics=[{"name": "t"}])["topics"]
    assert [p["leader_epoch"] for p in topic["partitions"]] == [1, 1]
    assert wire.produce("t", [b"5", b"6"])["base_offset"] == 5
    assert ends() == [(0, 5), (1, 7), (-1, -1)]
    wire.close()
    broker.restart()
    wire = Wire(broker.bootstrap)
    assert ends() == [(0, 5), (1, 7), (-1, -1)], "stopped in order: no new epoch"
    wire.close()


def test_deleted_records_stay_deleted(start: Callable[[], Broker]) -> None:
    broker = start()
    wire = Wire(broker.bootstrap)
    wire.create("t")
    for _ in range(10):
        wire.produce("t", [b"x" * 100])
    wanted = [{"name": "t", "partitions": [{"partition_index": 0, "offset": 7}]}]
    (answer,) = wire.call("DeleteRecords", topics=wanted, timeout_ms=5000)["topics"][0]["partitions"]
    assert (answer["error_code"], answer["low_watermark"]) == (0, 7)

    def earliest() -> int:
        topics = [{"name": "t", "partitions": [{"partition_index": 0, "current_leader_epoch": -1, "timestamp": -2}]}]
        (found,) = wire.call("ListOffsets", 7, replica_id=-1, isolation_level=0, topics=topics)["topics"][0]["partitions"]
        return int(found["offset"])

    assert earliest() == 7
    for kill in (False, True):
        wire.close()
        if kill:
            broker.kill()
        else:
            broker.stop()
        broker.start()
        wire = Wire(broker.bootstrap)
        assert earliest() == 7
    wire.close()


def test_changed_settings_count_at_once_and_after_a_restart(start: Callable[[], Broker]) -> None:
    broker = start()
    wire = Wire(broker.bootstrap)
    wire.create("t", configs={"max.message.bytes": "200"})
    assert wire.produce("t", [b"x" * 500])["error_code"] == Error.MESSAGE_TOO_LARGE
    for value, error in (("2000", 0), ("200", Error.MESSAGE_TOO_LARGE)):
        configs = [{"name": "max.message.bytes", "config_operation": 0, "value": value}]
        resource = {"resource_type": 2, "resource_name": "t", "configs": configs}
        (answer,) = wire.call("IncrementalAlterConfigs", resources=[resource])["responses"]
        assert answer["error_code"] == 0
        assert wire.produce("t", [b"x" * 500])["error_code"] == error
    wire.close()
    broker.restart()
    wire = Wire(broker.bootstrap)
    assert wire.produce("t", [b"x" * 500])["error_code"] == Error.MESSAGE_TOO_LARGE
    wire.close()


def test_many_partitions(start: Callable[[], Broker]) -> None:
    broker = start()
    wire = Wire(broker.bootstrap)
    assert wire.create("many", 300)["error_code"] == 0
    for partition in (0, 150, 299):
        assert wire.produce("many", [b"x"], partition=partition)["error_code"] == 0
    wire.close()
    broker.kill()
    broker.start()
    wire = Wire(broker.bootstrap)
    (topic,) = wire.call("Metadata", topics=[{"name": "many"}])["topics"]
    assert {(p["error_code"], p["leader_epoch"]) for p in topic["partitions"]} == {(0, 1)}
    for partition, offset in ((0, 1), (1, 0), (150, 1), (299, 1)):
        assert wire.produce("many", [b"x"], partition=partition)["base_offset"] == offset
    (answer,) = wire.call("DeleteTopics", topics=[{"name": "many"}], timeout_ms=5000)["responses"]
    assert answer["error_code"] == 0
    assert not list(broker.data.glob("many-*"))
    wire.close()


def test_a_partition_whose_directory_is_gone(start: Callable[[], Broker]) -> None:
    import shutil

    broker = start()
    wire = Wire(broker.bootstrap)
    wire.create("t", 2)
    wire.close()
    broker.stop()
    shutil.rmtree(broker.data / "t-1")
    broker.start()
    wire = Wire(broker.bootstrap)
    (topic,) = wire.call("Metadata", topics=[{"name": "t"}])["topics"]
    assert [p["leader_id"] for p in topic["partitions"]] == [1, -1]
    assert wire.produce("t", [b"x"])["error_code"] == 0
    assert wire.produce("t", [b"x"], partition=1)["error_code"] in (Error.KAFKA_STORAGE_ERROR, Error.UNKNOWN_TOPIC_OR_PARTITION)
    assert "partition t-1 is offline" in broker.log
    wire.close()
