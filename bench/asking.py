"""A load of whole requests made beforehand: many connections, each asks as soon as it was answered (`closed_loop`) or by the clock.

Nothing is decoded while it runs: every answer of a connection has to be, byte for byte, the one that was found good before.
In Python, on the load's core: about 8 us a request, so what is compared is the brokers' CPU, or rates well below 100,000 a second.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlog.loadgen import wire
from fastlog.protocol.messages import API_BY_KEY, API_BY_NAME, decode_response, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.brokers import Broker

Message = dict[str, Any]
CLIENT = b"bench"
RETRIED = {14, 15, 16}  # a coordinator that loads, or is not there yet
START_SECONDS = 60.0


def frame(api: str, version: int, message: Message) -> bytes:
    """A whole request with its length."""
    key = API_BY_NAME[api].key
    tags = b"\0" if API_BY_KEY[key].request_header_version(version) == 2 else b""
    body = struct.pack(">hhih", key, version, 7, len(CLIENT)) + CLIENT + tags + encode_request(key, version, message)
    return struct.pack(">i", len(body)) + body


def decoded(api: str, version: int, answer: bytes) -> Message:
    """An answer without its length."""
    key = API_BY_NAME[api].key
    return decode_response(key, version, answer[5 if API_BY_KEY[key].response_header_version(version) else 4 :])


class Asker:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0

    def exactly(self, n: int) -> bytes:
        made = bytearray()
        while len(made) < n:
            piece = self.socket.recv(n - len(made))
            if not piece:
                raise ConnectionResetError("the broker closed the connection")
            made += piece
        return bytes(made)

    def take(self) -> bytes:
        """The next answer."""
        return self.exactly(int.from_bytes(self.exactly(4)))

    def ask(self, api: str, version: int, message: Message) -> Message:
        self.socket.sendall(frame(api, version, message))
        return decoded(api, version, self.take())

    def insist(
        self, api: str, version: int, message: Message, error: Callable[[Message], int] = lambda answer: answer["error_code"]
    ) -> Message:
        """Asks again while the coordinator is not ready. Raises BrokerError."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            answer = self.ask(api, version, message)
            code = error(answer)
            if not code:
                return answer
            if code not in RETRIED or time.monotonic() > deadline:
                raise wire.BrokerError(api, code)
            time.sleep(0.02)


@contextmanager
def askers(broker: Broker, count: int) -> Iterator[list[Asker]]:
    made: list[Asker] = []
    try:
        made += (Asker(broker.port) for _ in range(count))
        yield made
    finally:
        for asker in made:
            asker.socket.close()


@dataclass
class Asked:
    """What came of a load. Latencies in seconds."""

    requests: int
    seconds: float
    wrong: int
    latencies: list[float]

    def figures(self, cpu: float) -> dict[str, Any]:
        """`cpu`: seconds that the broker used meanwhile."""
        ordered = sorted(self.latencies) or [0.0]
        return {
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "requests_per_s": round(self.requests / self.seconds, 1),
            "cpu_us_per_request": round(cpu / max(self.requests, 1) * 1e6, 2),
            "p50_us": round(ordered[len(ordered) // 2] * 1e6, 1),
            "p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6, 1),
            "wrong": self.wrong,
            "sound": not self.wrong and self.requests > 0,
        }


def ask_all(asking: Sequence[Asker], frames: Sequence[bytes], expected: Sequence[bytes], seconds: float, rate: float = 0) -> Asked:
    """Each asker its frame over and over; one request of each is under way. `expected`: answers without length.
    `rate`: requests a second over all, in turn, due by the clock; 0: as soon as answered."""
    poll = select.epoll()
    by_fd: dict[int, int] = {}
    for index, asker in enumerate(asking):
        asker.socket.setblocking(False)
        by_fd[asker.socket.fileno()] = index
        poll.register(asker.socket.fileno(), select.EPOLLIN)
    partial: list[bytes] = [b""] * len(asking)
    busy = [False] * len(asking)
    latencies: list[float] = []
    requests = wrong = turn = 0
    began = time.perf_counter()
    end = began + seconds
    if not rate:
        for index, asker in enumerate(asking):
            asker.sent = time.perf_counter()
            busy[index] = True
            asker.socket.send(frames[index])
    while True:
        now = time.perf_counter()
        if now >= end and (rate or not any(busy)):
            break
        if rate:
            while began + turn / rate <= now:
                index = turn % len(asking)
                if not busy[index]:  # one that is late is asked the next time round
                    busy[index] = True
                    asking[index].sent = began + turn / rate
                    asking[index].socket.send(frames[index])
                turn += 1
        for fd, _ in poll.poll(0.0005 if rate else 1):
            index = by_fd[fd]
            asker = asking[index]
            data = asker.socket.recv(1 << 20)
            if not data:
                raise ConnectionResetError("the broker closed the connection")
            data = partial[index] + data
            if len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4]):
                partial[index] = data
                continue
            partial[index] = b""
            latencies.append(time.perf_counter() - asker.sent)
            requests += 1
            wrong += data[4:] != expected[index]
            busy[index] = False
            if not rate and time.perf_counter() < end:
                busy[index] = True
                asker.sent = time.perf_counter()
                asker.socket.send(frames[index])
    took = time.perf_counter() - began
    poll.close()
    for asker in asking:
        asker.socket.setblocking(True)
    return Asked(requests, took, wrong, latencies)


def drive(asking: Sequence[Asker], steps: Sequence[Callable[[bytes | None], bytes]], seconds: float) -> float:
    """Conversations: each asker sends what its step makes of the last answer (None: the first), until time is up. Seconds taken."""
    poll = select.epoll()
    by_fd = {asker.socket.fileno(): (asker, step) for asker, step in zip(asking, steps, strict=True)}
    began = time.perf_counter()
    for fd, (asker, step) in by_fd.items():
        poll.register(fd, select.EPOLLIN)
        asker.socket.sendall(step(None))
    waiting = len(asking)
    while waiting:
        for fd, _ in poll.poll(1):
            asker, step = by_fd[fd]
            request = step(asker.take())
            if time.perf_counter() - began < seconds:
                asker.socket.sendall(request)
            else:
                waiting -= 1
                poll.unregister(fd)
    poll.close()
    return time.perf_counter() - began
