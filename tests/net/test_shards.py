"""Several shards on few cores: every connection away from its partitions' owner, so that each request crosses."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.records import Record, build_batch, iter_batches
from tests.net.test_fetch import named, session
from tests.support.metrics import total
from tests.support.peer import Peer, create_topic, fetch, produce, produced
from tests.support.process import free_port

if TYPE_CHECKING:
    from fastlog.protocol.messages import Message
    from tests.conftest import Start
    from tests.support.process import Broker

NOW = int(time.time() * 1000)
PARTITIONS = 8
# partitions on shards 0 and 1, connections on 2 and 3
AWAY = ["--cores", "0,1,0,1", "--set", "fastlog.partition.shards=3", "--set", "fastlog.connection.shards=12"]


@pytest.fixture
def apart(start_broker: Start, engine: str) -> Broker:
    metrics = f"127.0.0.1:{free_port()}"
    broker = start_broker(io=engine, args=[*AWAY, "--metrics", metrics])
    broker.env["METRICS"] = metrics
    return broker


@pytest.mark.parametrize(("first", "max_bytes", "full"), [(900, 800, 1), (900, 1350, 3), (100, 800, 4)], ids=["alone", "some room", "all"])
def test_a_first_batch_longer_than_its_share_takes_the_room_of_others(
    apart: Broker, fresh_name: str, first: int, max_bytes: int, full: int
) -> None:
    """Its length is known after the others were asked for; FetchRequestTest of Kafka looks at it too."""
    create_topic(apart.bootstrap, fresh_name, partitions=4)
    sizes = [first, 100, 100, 100]
    with Peer(apart.bootstrap) as peer:
        for partition, size in enumerate(sizes):
            batch = build_batch([Record(0, NOW, None, bytes(size))], timestamp_ms=NOW)
            assert produced(peer.call("Produce", 9, produce(fresh_name, batch, partition=partition, acks=-1))) == (0, 0)
        message = fetch(fresh_name, partitions=4, max_bytes=190) | {"max_bytes": max_bytes}
        parts = named(peer.call("Fetch", 12, message))
        lengths = [len(parts[partition]["records"] or b"") for partition in range(4)]
        assert lengths[0] > first
        assert sum(1 for length in lengths if length) == full
        assert lengths[full:] == [0] * (4 - full)
        assert sum(lengths) <= max_bytes or full == 1
        assert peer.call("Fetch", 12, message) == peer.call("Fetch", 12, message)


def test_every_request_crosses_and_nothing_is_copied(apart: Broker, fresh_name: str) -> None:
    create_topic(apart.bootstrap, fresh_name, partitions=PARTITIONS)
    values = {p: [b"%d:%d:" % (p, i) + bytes(5000) for i in range(60)] for p in range(PARTITIONS)}
    read: dict[int, list[bytes | None]] = {p: [] for p in range(PARTITIONS)}

    def write(p: int) -> None:
        with Peer(apart.bootstrap) as peer:
            for value in values[p]:
                peer.ask(
                    "Produce", 9, produce(fresh_name, build_batch([Record(0, NOW, None, value)], timestamp_ms=NOW), partition=p, acks=-1)
                )
            assert [produced(peer.answer()[1]) for _ in values[p]] == [(0, i) for i in range(len(values[p]))]

    def follow(p: int) -> None:
        with Peer(apart.bootstrap) as peer:
            deadline = time.monotonic() + 30
            while len(read[p]) < len(values[p]) and time.monotonic() < deadline:
                message = fetch(fresh_name, wait_ms=500)
                message["topics"][0]["partitions"] = [{"partition": p, "fetch_offset": len(read[p]), "partition_max_bytes": 1 << 20}]
                data = peer.call("Fetch", 11, message)["responses"][0]["partitions"][0]
                read[p] += [r.value for b in iter_batches(data["records"] or b"") for r in b.records if r.offset >= len(read[p])]

    threads = [threading.Thread(target=call, args=(p,)) for p in range(PARTITIONS) for call in (write, follow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == values
    metrics = apart.env["METRICS"]
    appends = PARTITIONS * 60
    assert total(metrics, "fastlog_cross_appends_total") >= appends
    assert total(metrics, "fastlog_cross_reads_total") > 0
    assert total(metrics, "fastlog_copied_out_total") == 0


def test_data_stays_when_the_shards_change(start_broker: Start, engine: str, fresh_name: str) -> None:
    """A partition belongs to no shard on disk."""
    broker = start_broker(io=engine, args=["--cores", "0,1,0"])
    create_topic(broker.bootstrap, fresh_name, partitions=PARTITIONS)
    batch = build_batch([Record(0, NOW, None, b"kept")], timestamp_ms=NOW)
    with Peer(broker.bootstrap) as peer:
        for p in range(PARTITIONS):
            assert produced(peer.call("Produce", 9, produce(fresh_name, batch, partition=p))) == (0, 0)
    for cores in ("0", "0,1,0,1,0"):
        broker.kill()
        broker.args = ["--cores", cores]
        broker.start()
        with Peer(broker.bootstrap) as peer:
            for p in range(PARTITIONS):
                message = fetch(fresh_name)
                message["topics"][0]["partitions"][0]["partition"] = p
                data = peer.call("Fetch", 11, message)["responses"][0]["partitions"][0]
                assert [r.value for b in iter_batches(data["records"]) for r in b.records] == [b"kept"]


def test_a_session_of_partitions_on_several_shards(apart: Broker, fresh_name: str) -> None:
    """An incremental session (KIP-227) sees what is new wherever its partitions are, and is woken from there."""
    create_topic(apart.bootstrap, fresh_name, partitions=PARTITIONS)
    ends = dict.fromkeys(range(PARTITIONS), 0)

    def send(writer: Peer, *partitions: int) -> None:
        for p in partitions:
            batch = build_batch([Record(0, NOW, None, b"%d:%d" % (p, ends[p]))], timestamp_ms=NOW)
            assert produced(writer.call("Produce", 9, produce(fresh_name, batch, partition=p))) == (0, ends[p])
            ends[p] += 1

    def values(response: Message) -> dict[int, list[bytes | None]]:
        assert response["error_code"] == 0
        return {p: [r.value for b in iter_batches(data["records"] or b"") for r in b.records] for p, data in named(response).items()}

    with Peer(apart.bootstrap) as reader, Peer(apart.bootstrap) as writer:
        first = reader.call("Fetch", 11, session(fresh_name, 0, 0, ends))
        assert values(first) == {p: [] for p in ends}
        sid = first["session_id"]
        assert sid > 0
        assert values(reader.call("Fetch", 11, session(fresh_name, sid, 1, {}))) == {}
        send(writer, *ends)
        assert values(reader.call("Fetch", 11, session(fresh_name, sid, 2, {}))) == {p: [b"%d:0" % p] for p in ends}
        epoch = 3
        for p in range(PARTITIONS):  # each in turn wakes a poll, be its owner the one shard or the other
            moved = ends.copy() if epoch == 3 else {(p - 1): ends[p - 1]}
            reader.ask("Fetch", 11, session(fresh_name, sid, epoch, moved) | {"max_wait_ms": 30_000})
            send(writer, p)
            assert values(reader.answer()[1]) == {p: [b"%d:1" % p]}
            epoch += 1
        left = {0, 1, PARTITIONS - 1}
        gone = [p for p in ends if p not in left]
        assert values(reader.call("Fetch", 11, session(fresh_name, sid, epoch, {PARTITIONS - 1: 2}, gone))) == {}
        send(writer, *ends)
        assert values(reader.call("Fetch", 11, session(fresh_name, sid, epoch + 1, {}))) == {p: [b"%d:2" % p] for p in left}
