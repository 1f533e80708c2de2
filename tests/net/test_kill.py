"""A broker killed with -9 in the middle of writes: what was acknowledged is there, where it was said to be, and nothing torn is served."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from fastlog.protocol.records import Codec, Record, build_batch, iter_batches
from tests.support.peer import Peer, create_topic, fetch, produce, produced

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.process import Broker

NOW = int(time.time() * 1000)
PARTITIONS = 4
KILLS = 5


@dataclass
class Writer:
    """Pipelines batches into one partition until the connection breaks; keeps what was acknowledged: value by offset."""

    bootstrap: str
    topic: str
    partition: int
    acks: int
    seed: int
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        rng = random.Random(self.seed)
        waiting: list[list[bytes]] = []
        serial = 0
        try:
            with Peer(self.bootstrap, timeout=10) as peer:
                while True:
                    values = [
                        b"%d/%d/%d:" % (self.partition, self.seed, serial + i) + rng.randbytes(rng.choice((10, 900, 9000)))
                        for i in range(4)
                    ]
                    serial += 4
                    records = [Record(0, NOW, None, value) for value in values]
                    codec = rng.choice((Codec.NONE, Codec.NONE, Codec.LZ4))
                    batch = build_batch(records, timestamp_ms=NOW, codec=codec)
                    peer.ask("Produce", 9, produce(self.topic, batch, partition=self.partition, acks=self.acks))
                    waiting.append(values)
                    if len(waiting) >= 16:
                        error, offset = produced(peer.answer()[1])
                        if error:
                            self.failures.append(f"error {error}")
                        for i, value in enumerate(waiting.pop(0)):
                            self.acknowledged[offset + i] = value
        except (OSError, EOFError):
            return  # killed


def read_all(broker: Broker, topic: str, partition: int) -> dict[int, bytes | None]:
    found: dict[int, bytes | None] = {}
    at = 0
    with Peer(broker.bootstrap) as peer:
        while True:
            message = fetch(topic, offset=at, max_bytes=4 << 20)
            message["topics"][0]["partitions"][0]["partition"] = partition
            data = peer.call("Fetch", 11, message)["responses"][0]["partitions"][0]
            assert data["error_code"] == 0
            before = at
            # iter_batches checks every CRC and that the records decode
            for batch in iter_batches(data["records"] or b""):
                assert batch.base_offset <= at, "a hole in the log"
                for record in batch.records:
                    found[record.offset] = record.value
                at = batch.last_offset + 1
            if at == before:
                assert at == data["high_watermark"]
                return found


@pytest.mark.parametrize(("acks", "arena"), [(-1, "off"), (-1, "/dev/shm"), (1, "off"), (1, "/dev/shm")])
def test_acknowledged_survives(start_broker: Start, engine: str, fresh_name: str, acks: int, arena: str) -> None:
    broker = start_broker(io=engine, args=["--arena", arena, "--set", "log.segment.bytes=4194304"])
    create_topic(broker.bootstrap, fresh_name, partitions=PARTITIONS)
    kept: list[dict[int, bytes]] = [{} for _ in range(PARTITIONS)]
    rng = random.Random(17)
    for kill in range(KILLS):
        writers = [Writer(broker.bootstrap, fresh_name, p, acks, kill) for p in range(PARTITIONS)]
        threads = [threading.Thread(target=writer.run) for writer in writers]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.1, 0.7))
        broker.kill()
        for thread in threads:
            thread.join()
        broker.start()
        for p, writer in enumerate(writers):
            assert not writer.failures
            overlap = kept[p].keys() & writer.acknowledged.keys()
            assert not overlap, "offsets were given twice: something acknowledged had been cut off"
            kept[p] |= writer.acknowledged
            found = read_all(broker, fresh_name, p)
            lost = [offset for offset, value in kept[p].items() if found.get(offset) != value]
            assert not lost, (
                f"kill {kill}: {len(lost)} of {len(kept[p])} acknowledged records of partition {p} are lost, from {min(lost)} on"
            )
    assert all(len(values) > 50 for values in kept)


def test_an_idempotent_producer_across_a_kill(start_broker: Start, engine: str, fresh_name: str) -> None:
    """The duplicate of a batch from before the kill is recognised, and the sequence goes on."""
    broker = start_broker(io=engine)
    create_topic(broker.bootstrap, fresh_name)
    with Peer(broker.bootstrap) as peer:
        ids = peer.call("InitProducerId", 4, {"transactional_id": None, "transaction_timeout_ms": 60_000})
        assert ids["error_code"] == 0

    def batch(sequence: int) -> bytes:
        record = Record(0, NOW, None, b"%d" % sequence)
        return build_batch(
            [record], timestamp_ms=NOW, producer_id=ids["producer_id"], producer_epoch=ids["producer_epoch"], base_sequence=sequence
        )

    for kill in range(3):
        with Peer(broker.bootstrap) as peer:
            for sequence in range(kill * 20, kill * 20 + 20):
                assert produced(peer.call("Produce", 9, produce(fresh_name, batch(sequence), acks=-1))) == (0, sequence)
        broker.kill()
        broker.start()
        with Peer(broker.bootstrap) as peer:
            for sequence in range(kill * 20 + 15, kill * 20 + 20):
                assert produced(peer.call("Produce", 9, produce(fresh_name, batch(sequence), acks=-1))) == (0, sequence)
    assert [value for _, value in sorted(read_all(broker, fresh_name, 0).items())] == [b"%d" % i for i in range(60)]


def test_the_leader_epoch_rises_with_every_unclean_start(start_broker: Start, engine: str, fresh_name: str) -> None:
    broker = start_broker(io=engine)
    create_topic(broker.bootstrap, fresh_name)

    def epoch() -> int:
        with Peer(broker.bootstrap) as peer:
            found: int = peer.call("Metadata", 9, {"topics": [{"name": fresh_name}]})["topics"][0]["partitions"][0]["leader_epoch"]
            return found

    first = epoch()
    broker.restart()
    assert epoch() == first
    broker.kill()
    broker.start()
    assert epoch() == first + 1
