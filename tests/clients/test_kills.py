"""Real clients against a broker that is killed with -9 at random moments and started again at once."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.support.peer import create_topic

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.process import Broker

PARTITIONS = 4
ENOUGH_S = 60.0
SETTINGS: dict[str, Any] = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20}


class Sender:
    """Sends numbered records as fast as they are acknowledged, and keeps which were: (partition, offset) by number."""

    def __init__(self, bootstrap: str, topic: str, name: str, *, pause_s: float = 0.002, **settings: Any) -> None:
        self.topic, self.name, self.pause_s = topic, name, pause_s
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2, "message.timeout.ms": 120_000} | SETTINGS | settings)
        self.acknowledged: dict[int, tuple[int, int]] = {}
        self.failed: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                value = b"%s:%d" % (self.name.encode(), number)
                self.producer.produce(self.topic, value, partition=number % PARTITIONS, on_delivery=self._done)
                number += 1
                self.producer.poll(0)
                if number % 50 == 0:
                    time.sleep(self.pause_s)
            except BufferError:
                self.producer.poll(0.02)

    def _done(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(str(error))
        else:
            self.acknowledged[int(message.value().split(b":")[1])] = (message.partition(), message.offset())

    def end(self) -> None:
        self.stop.set()
        self.thread.join()
        assert self.producer.flush(ENOUGH_S) == 0, "not all was acknowledged after the last start"


class Group:
    """A member of a group that commits what it read and keeps what was acknowledged of that."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False} | SETTINGS
        )
        self.consumer.subscribe([topic])
        self.committed: dict[int, int] = {}
        self.backwards: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            if not [m for m in self.consumer.consume(200, 0.1) if m.error() is None]:
                continue
            with contextlib.suppress(KafkaException):
                for place in self.consumer.commit(asynchronous=False) or ():
                    if place.error is None and place.offset >= 0:
                        self.committed[place.partition] = max(place.offset, self.committed.get(place.partition, 0))

    def end(self) -> None:
        self.stop.set()
        self.thread.join()
        self.consumer.close()


def read_all(bootstrap: str, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    """(offset, value) by partition, from start to end."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "checker", "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in range(PARTITIONS)}
    found: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    while any(ends[p] and (not found[p] or found[p][-1][0] + 1 < ends[p]) for p in ends):
        messages = consumer.consume(1000, ENOUGH_S)
        assert messages, "reading does not get to the end"
        for message in messages:
            assert message.error() is None, message.error()
            partition, offset, value = message.partition(), message.offset(), message.value()
            assert partition is not None
            assert offset is not None
            assert value is not None
            found[partition].append((offset, value))
    consumer.close()
    return found


def offsets_of(bootstrap: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    places = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=30)
    consumer.close()
    return {place.partition: place.offset for place in places}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [3, pytest.param(300, marks=pytest.mark.long)])
def test_clients_across_kills(start_broker: Start, engine: str, fresh_name: str, kills: int) -> None:
    """Nothing acknowledged is lost, reordered or torn, nothing of an idempotent producer is twice, no committed offset goes back."""
    broker: Broker = start_broker(io=engine)
    create_topic(broker.bootstrap, fresh_name, partitions=PARTITIONS)
    rng = random.Random(kills)
    pause_s = 0.002 if kills < 10 else 0.02  # every record is kept until the end
    senders = [
        Sender(broker.bootstrap, fresh_name, "idempotent", pause_s=pause_s, **{"enable.idempotence": True}),
        Sender(broker.bootstrap, fresh_name, "plain", pause_s=pause_s, acks="all"),
    ]
    group = Group(broker.bootstrap, fresh_name)
    try:
        for _ in range(kills):
            time.sleep(rng.uniform(0.3, 1.2))
            broker.kill()
            before = dict(group.committed)
            broker.start()
            after = offsets_of(broker.bootstrap, fresh_name)
            back = {p: (offset, after[p]) for p, offset in before.items() if after[p] < offset}
            assert not back, f"committed offsets went back: {back}"
    finally:
        for sender in senders:
            sender.stop.set()
        group.stop.set()
        if not broker.alive():
            broker.start()
    for sender in senders:
        sender.end()
    group.end()
    found = read_all(broker.bootstrap, fresh_name)
    values = {(p, offset): value for p, pairs in found.items() for offset, value in pairs}
    for sender in senders:
        assert not sender.failed, sender.failed[:3]
        assert len(sender.acknowledged) > 100 * kills
        lost = [n for n, place in sender.acknowledged.items() if values.get(place) != b"%s:%d" % (sender.name.encode(), n)]
        assert not lost, f"{len(lost)} of {len(sender.acknowledged)} acknowledged records of {sender.name} are lost: {lost[:5]}"
    for pairs in found.values():
        assert [offset for offset, _ in pairs] == list(range(len(pairs))), "a hole in the log"
        numbers = [int(value.split(b":")[1]) for _, value in pairs if value.startswith(b"idempotent:")]
        twice = [n for n, count in Counter(numbers).items() if count > 1]
        assert not twice, f"duplicates of an idempotent producer: {twice[:5]}"
        assert numbers == sorted(numbers), "an idempotent producer's records are reordered"


def test_a_lost_arena_costs_no_durable_record(start_broker: Start, engine: str, fresh_name: str) -> None:
    """kill -9, and someone cleans /dev/shm: the broker says so, and every record acknowledged with acks=all is there."""
    import json
    from pathlib import Path

    broker: Broker = start_broker(io=engine, args=["--arena", "/dev/shm"])
    create_topic(broker.bootstrap, fresh_name, partitions=PARTITIONS)
    sender = Sender(broker.bootstrap, fresh_name, "durable", acks="all")
    careless = Sender(broker.bootstrap, fresh_name, "careless", acks="1")
    time.sleep(0.7)
    broker.kill()
    for arena in json.loads((broker.data / "fastlog-arenas.json").read_text()):
        Path(arena).unlink()
    broker.start()
    careless.stop.set()
    careless.thread.join()
    sender.end()
    assert " is gone" in broker.log
    assert "acks=1" in broker.log
    found = {value for pairs in read_all(broker.bootstrap, fresh_name).values() for _, value in pairs}
    lost = [n for n in sender.acknowledged if b"durable:%d" % n not in found]
    assert sender.acknowledged
    assert not lost
