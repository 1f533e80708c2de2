"""Networks and brokers that fail: cut connections, silence, answers that are none."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from fastlog.client import Admin, ClientError, ClientTimeoutError, Consumer, Producer, ProtocolError
from tests.client.proxy import Proxy
from tests.client.test_producer import read

PRODUCE, FETCH = 0, 1


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
        producer.send_batch(topic, [b"x"] * 1000).result(60)


class Liar:
    """Accepts, and answers every request with the same bytes; with none, it closes."""

    def __init__(self, answer: bytes, frames: bool) -> None:
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
                if not self.answer:
                    return
                client.sendall(asked[8:12].join([struct.pack(">i", 4 + len(self.answer)), self.answer]) if self.frames else self.answer)


@pytest.mark.parametrize(
    ("answer", "frames"), [(b"", False), (b"HTTP/1.1 400 Bad Request\r\n\r\n", False), (b"\xff" * 64, True), (b"\0\0\0\0" * 30, True)]
)
def test_what_is_no_broker_is_told(answer: bytes, frames: bool) -> None:
    liar = Liar(answer, frames)
    try:
        with pytest.raises((ProtocolError, ClientError)):
            Admin(liar.bootstrap, timeout_s=5)
        with Producer(bootstrap_servers=liar.bootstrap, max_block_ms=300, request_timeout_ms=500) as producer, pytest.raises(ClientError):
            producer.send("any", b"x")
        with Consumer(bootstrap_servers=liar.bootstrap, request_timeout_ms=500, group_id="g") as consumer:
            consumer.assign([("any", 0)])
            with pytest.raises(ClientError):
                consumer.poll(1, 5)
    finally:
        liar.listener.close()
