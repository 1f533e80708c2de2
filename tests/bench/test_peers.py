"""The generator for peers with protocols of their own, against a few lines that answer as they do."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from bench.peers import load
from fastlog.loadgen.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def resp(command: bytes) -> bytes:
    return b"$15\r\n1700000000000-0\r\n"


def nats(command: bytes) -> bytes:
    answer = b'{"stream":"s","seq":1}'
    return b"MSG _I.1 1 %d\r\n%s\r\nPING\r\n" % (len(answer), answer)


class Server:
    """Answers each command that a pattern finds, in pieces that don't end where answers do."""

    def __init__(self, pattern: bytes, answer: Callable[[bytes], bytes]) -> None:
        self.pattern, self.answer = re.compile(pattern, re.DOTALL), answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.commands = self.pongs = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(link,), daemon=True).start()

    def talk(self, link: socket.socket) -> None:
        waiting = b""
        with link, contextlib.suppress(OSError):  # the generator may close before its last answers are sent
            while piece := link.recv(65536):
                waiting += piece
                self.pongs += waiting.count(b"PONG\r\n")
                if b"PING\r\n" in waiting:
                    link.sendall(b"PONG\r\n")
                end = 0
                answers = b""
                for found in self.pattern.finditer(waiting):
                    answers += self.answer(found[0])
                    self.commands += 1
                    end = found.end()
                waiting = waiting[end:].replace(b"PING\r\n", b"").replace(b"PONG\r\n", b"")
                half = len(answers) // 2
                for part in (answers[:half], answers[half:]):
                    link.sendall(part)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(pattern: bytes, answer: Callable[[bytes], bytes]) -> Server:
        made.append(Server(pattern, answer))
        return made[-1]

    yield start
    for each in made:
        each.listener.close()


XADD = rb"\*5\r\n\$4\r\nXADD\r\n\$1\r\nt\r\n\$1\r\n\*\r\n\$1\r\nd\r\n\$100\r\n.{100}\r\n"
PUB = rb"PUB t _I\.\d+ 100\r\n.{100}\r\n"


def job(server: Server, **given: object) -> Job:
    where = f"127.0.0.1:{server.listener.getsockname()[1]}"
    return Job(address=where, topic="t", record_bytes=100, **{"records": 1, "seconds": 20, "bytes_max": 100_000, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(("protocol", "pattern", "answer"), [("resp", XADD, resp), ("nats", PUB, nats)], ids=["resp", "nats"])
@pytest.mark.parametrize("records", [1, 7])
def test_a_batch_is_acknowledged_when_all_its_records_are(
    serve: Callable[..., Server], protocol: str, pattern: bytes, answer: Callable[[bytes], bytes], records: int
) -> None:
    server = serve(pattern, answer)
    result = load.run(protocol, job(server, records=records, window=16))
    assert result["sound"], result
    assert result["batches_acked"] * records * 100 >= 100_000
    assert server.commands == result["batches_acked"] * records
    assert result["ack"]["count"] == result["batches_acked"]


def test_by_the_clock(serve: Callable[..., Server]) -> None:
    server = serve(XADD, resp)
    result = load.run("resp", job(server, rate=200.0, window=64, seconds=1, bytes_max=0, connections=2))
    assert result["sound"], result
    assert result["batches_acked"] == pytest.approx(201, abs=2)


@pytest.mark.parametrize(
    ("protocol", "pattern", "answer"),
    [("resp", XADD, b"-OOM command not allowed\r\n"), ("nats", PUB, b'MSG _I.1 1 22\r\n{"error":{"code":503}}\r\n')],
    ids=["resp", "nats"],
)
def test_an_error_is_not_an_acknowledgement(serve: Callable[..., Server], protocol: str, pattern: bytes, answer: bytes) -> None:
    result = load.run(protocol, job(serve(pattern, lambda _: answer)))
    assert not result["sound"]
    assert result["records_failed"] > 0


def end(command: bytes) -> bytes:
    raise ConnectionResetError  # which closes the connection


def test_a_connection_that_ends_is_trouble(serve: Callable[..., Server]) -> None:
    server = serve(XADD, end)
    result = load.run("resp", job(server))
    assert not result["sound"]
    assert result["trouble"]
