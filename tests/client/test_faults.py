"""Networks and brokers that fail: cut connections, silence, answers that are none."""

import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fastlog.client import (
    Admin,
    ClientError,
    ClientTimeoutError,
    Consumer,
    Producer,
    ProtocolError,
    Record,
    TopicPartition,
    UnreachableError,
)
from tests.client.proxy import Proxy
from tests.client.test_producer import read
from tests.support.process import free_port

PRODUCE, FETCH, INIT_PRODUCER_ID = 0, 1, 22


@pytest.fixture
def proxy(bootstrap: str) -> Iterator[Proxy]:
    with Proxy(bootstrap) as made:
        yield made


def test_a_lost_acknowledgement_doubles_nothing(proxy: Proxy, bootstrap: str, topic: str) -> None:
    settings = {"batch_size": 2048, "linger_ms": 0, "retry_backoff_ms": 10}
    with Producer(bootstrap_servers=proxy.bootstrap, **settings) as producer:
        sent = []
        for i in range(2000):
            if i % 500 == 250:
                proxy.cut_after = (PRODUCE, 1)
            sent.append(producer.send(topic, b"%d" % i, partition=1))
            if i % 50 == 0:
                producer.flush(60)
        where = [d.result(60).offset for d in sent]
        assert producer.metrics()["batch_retries"] > 0
    assert proxy.cuts >= 3
    # a duplicate is acknowledged without its offset
    assert [w for w in where if w >= 0] == sorted(w for w in where if w >= 0)
    assert [int(r.value) for r in read(bootstrap, topic, 2000)] == list(range(2000))


def test_cuts_while_many_are_in_flight(proxy: Proxy, bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=proxy.bootstrap, batch_size=4096, linger_ms=0, retry_backoff_ms=10) as producer:
        sent = []
        for i in range(30):
            sent.append(producer.send_batch(topic, [b"%d %d" % (i, k) for k in range(500)], partitions=i % 3))
            if i % 7 == 3:
                proxy.cut()
        for one in sent:
            one.result(60)
    records = read(bootstrap, topic, 15_000)
    for p in range(3):
        mine = [r.value for r in records if r.partition == p]
        assert mine == [b"%d %d" % (i, k) for i in range(30) if i % 3 == p for k in range(500)]


def test_a_producer_keeps_its_id(proxy: Proxy, topic: str) -> None:
    """A second id would begin the numbers anew, and what is sent again could not be told from what is new."""
    proxy.delay_s = 0.1
    with Producer(bootstrap_servers=proxy.bootstrap, linger_ms=0) as producer:
        sent = []
        for i in range(6):
            sent.append(producer.send(topic, b"x", partition=i % 3))
            time.sleep(0.05)
        for one in sent:
            one.result(60)
        producer.send(topic, b"x").result(60)
    assert proxy.requests[INIT_PRODUCER_ID] == 1


def test_a_consumer_reads_on_through_cuts(proxy: Proxy, bootstrap: str, topic: str) -> None:
    with Producer(bootstrap_servers=bootstrap) as producer:
        producer.send_batch(topic, [b"%d" % i for i in range(20_000)], partitions=0).result(30)
    with Consumer(bootstrap_servers=proxy.bootstrap, max_partition_fetch_bytes=4096, retry_backoff_ms=10) as consumer:
        consumer.assign({(topic, 0): 0})
        seen: list[int] = []
        deadline = time.monotonic() + 60
        while len(seen) < 20_000 and time.monotonic() < deadline:
            seen += [int(r.value) for r in consumer.poll(1000, 0.5)]
            if len(seen) // 1000 % 5 == 2:
                proxy.cut()
    assert seen == list(range(20_000))


def test_silence_is_a_timeout(proxy: Proxy, topic: str) -> None:
    with Producer(bootstrap_servers=proxy.bootstrap, delivery_timeout_ms=1500, request_timeout_ms=500, linger_ms=0) as producer:
        producer.send(topic, b"x").result(30)
        proxy.silent = True
        assert isinstance(producer.send(topic, b"y").exception(30), ClientTimeoutError)
        proxy.silent = False
        proxy.cut()
        producer.send(topic, b"z").result(30)


def test_a_slow_broker_is_waited_for(proxy: Proxy, topic: str) -> None:
    proxy.delay_s = 0.2
    with Producer(bootstrap_servers=proxy.bootstrap) as producer:
        producer.send_batch(topic, [b"x"] * 1000, partitions=0).result(60)
    with Consumer(bootstrap_servers=proxy.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        seen: list[Record] = []
        deadline = time.monotonic() + 60
        while len(seen) < 1000 and time.monotonic() < deadline:
            seen += consumer.poll(1000, 0.5)
    assert [r.offset for r in seen] == list(range(1000))


def test_answers_that_were_spoilt(proxy: Proxy, bootstrap: str, topic: str) -> None:
    """Bits that are not what the broker sent: never wrong records, nothing lost or stored twice, and it goes on when that is over."""
    chance = random.Random(7)
    values = [b"%d" % i for i in range(3000)]

    def spoil(key: int, answer: bytes) -> bytes:
        if key not in (PRODUCE, FETCH) or chance.random() < 0.7:
            return answer
        if chance.random() < 0.2:
            return answer[: chance.randrange(4, len(answer) + 1)]
        # an error code would be believed: of Produce it comes behind the topic's name, a length and the partition
        code = answer.find(topic.encode()) + len(topic) + 5 if key == PRODUCE else -9
        spoilt = bytearray(answer)
        for at in (chance.randrange(4, len(spoilt)) for _ in range(chance.randint(1, 3))):
            if not code <= at < code + 2:
                spoilt[at] ^= 1 << chance.randrange(8)
        return bytes(spoilt)

    with Producer(bootstrap_servers=proxy.bootstrap, batch_size=2048, linger_ms=0, retry_backoff_ms=5) as producer:
        producer.send(topic, values[0], partition=0).result(60)
        proxy.spoil = lambda key, answer: spoil(key, answer) if key == PRODUCE else answer
        for one in [producer.send(topic, value, partition=0) for value in values[1:]]:
            one.result(60)
        proxy.spoil = None
    stored = [r.value for r in read_all(bootstrap, topic)]
    assert stored == values
    with Consumer(bootstrap_servers=proxy.bootstrap, retry_backoff_ms=5, max_partition_fetch_bytes=4096) as consumer:
        consumer.assign({(topic, 0): 0})
        proxy.spoil = spoil
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                assert {r.value for r in consumer.poll(500, 0.1)} <= set(values)
            except ClientError:
                consumer.seek((topic, 0), 0)
        proxy.spoil = None
        consumer.seek((topic, 0), 0)
        seen: list[bytes | None] = []
        deadline = time.monotonic() + 60
        while len(seen) < len(stored) and time.monotonic() < deadline:
            seen += [r.value for r in consumer.poll(500, 0.2)]
    assert seen == stored


def read_all(bootstrap: str, topic: str) -> list[Record]:
    """What is in partition 0."""
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        end = consumer.end_offsets([(topic, 0)])[TopicPartition(topic, 0)]
        consumer.assign({(topic, 0): 0})
        made: list[Record] = []
        deadline = time.monotonic() + 60
        while len(made) < end and time.monotonic() < deadline:
            made += consumer.poll(1000, 0.2)
    return made


def test_what_goes_on_failing_is_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    with Consumer(bootstrap_servers=f"127.0.0.1:{free_port()}", retry_backoff_ms=1) as consumer:
        consumer.assign({("any", 0): 0})
        begun = time.monotonic()
        while not caplog.records and time.monotonic() < begun + 45:
            consumer.poll(1, 0.05)
        for _ in range(20):
            consumer.poll(1, 0.05)
    lines = [r for r in caplog.records if "no broker answers" in r.getMessage()]
    assert 1 <= len(lines) <= 3 + (time.monotonic() - begun) / 5
    assert vars(lines[0])["kafka"]["code"] == "UNREACHABLE"


EXITS = """
import logging, sys, threading
logging.basicConfig(format="%(levelname)s %(kafka)s", level=logging.ERROR)
from fastlog.client import ClientError, Consumer, Producer
producer = Producer(bootstrap_servers=sys.argv[1], linger_ms=0, delivery_timeout_ms=1500, request_timeout_ms=500, max_block_ms=500)
producer.send(sys.argv[2], b"there").result(30)
consumer = Consumer(bootstrap_servers=sys.argv[1], group_id=sys.argv[2], request_timeout_ms=500)
consumer.subscribe([sys.argv[2]])
consumer.poll(1, 0.5)
print("silence, please", flush=True)
sys.stdin.readline()
for _ in range(3):
    producer.send(sys.argv[2], b"lost")
threading.Thread(target=consumer.poll, args=(1, 60), daemon=True).start()
"""


@pytest.mark.one_engine
def test_nothing_hangs_or_is_silent_at_exit(proxy: Proxy, topic: str) -> None:
    """A program ends without closing anything, and its broker does not answer any more."""
    command = [sys.executable, "-c", EXITS, proxy.bootstrap, topic]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "silence, please\n"
        proxy.silent = True
        _, said = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, said
    assert "ERROR {'client_id'" in said
    assert "'records': 3}" in said


INTERRUPTED = """
import os, signal, sys, threading
from fastlog.client import Consumer, Producer
there, nobody, topic = sys.argv[1:]
producer = Producer(bootstrap_servers=there, linger_ms=60_000, buffer_memory=65536, batch_size=1024)
waiting = producer.send(topic, b"x")
consumer = Consumer(bootstrap_servers=there)
consumer.assign({(topic, 0): 0})
lost = Producer(bootstrap_servers=nobody)
calls = [waiting.result, lambda: consumer.poll(1, 120), lambda: list(consumer), lambda: lost.send(topic, b"x")]
print("silence, please", flush=True)
sys.stdin.readline()
calls += [producer.flush, lambda: producer.send_batch(topic, [bytes(1000)] * 1000), lambda: producer.close(120)]
for call in calls:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        call()
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
producer.close(0)
lost.close(0)
consumer.close()
"""


@pytest.mark.one_engine
def test_whatever_waits_can_be_interrupted(proxy: Proxy, topic: str) -> None:
    """By Ctrl-C; the broker has fallen silent."""
    command = [sys.executable, "-c", INTERRUPTED, proxy.bootstrap, f"127.0.0.1:{free_port()}", topic]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "silence, please\n"
        proxy.silent = True
        said, errors = process.communicate("go\n", timeout=90)
    assert process.returncode == 0, errors
    assert said.splitlines() == ["interrupted"] * 7, errors


class Liar:
    """Accepts, and answers every request with the same bytes; with none, it closes, with None it says nothing."""

    def __init__(self, answer: bytes | None, frames: bool) -> None:
        self.answer, self.frames = answer, frames
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.bootstrap = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while asked := client.recv(65536):
                if self.answer is None:
                    continue
                if not self.answer:
                    return
                client.sendall(asked[8:12].join([struct.pack(">i", 4 + len(self.answer)), self.answer]) if self.frames else self.answer)


def test_a_listener_that_speaks_tls_is_told() -> None:
    liar = Liar(bytes.fromhex("15030300020246"), frames=False)  # a fatal alert: protocol_version
    try:
        with pytest.raises(ProtocolError, match=f"{liar.bootstrap} speaks TLS, this client plain TCP:"):
            Admin(liar.bootstrap, timeout_s=5)
    finally:
        liar.listener.close()


@pytest.mark.parametrize(
    ("answer", "frames"),
    [
        (None, False),
        (b"", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"\xff" * 64, True),
        (b"\0\0\0\0" * 30, True),
    ],
)
def test_what_is_no_broker_is_told(answer: bytes | None, frames: bool) -> None:
    liar = Liar(answer, frames)
    begun = time.monotonic()
    try:
        with pytest.raises(ClientError) as told:
            Admin(liar.bootstrap, timeout_s=1)
        assert isinstance(told.value, (ProtocolError, ClientTimeoutError, UnreachableError))
        assert liar.bootstrap in str(told.value)
        with Producer(bootstrap_servers=liar.bootstrap, max_block_ms=300, request_timeout_ms=500) as producer, pytest.raises(ClientError):
            producer.send("any", b"x")
        with Consumer(bootstrap_servers=liar.bootstrap, request_timeout_ms=500, group_id="g") as consumer:
            consumer.assign([("any", 0)])
            with pytest.raises(ClientError):
                consumer.poll(1, 5)
        assert time.monotonic() - begun < 60
    finally:
        liar.listener.close()
