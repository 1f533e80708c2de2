"""A TCP proxy before a broker that does what networks do: it cuts connections, swallows bytes, holds them back."""

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from fastlog.protocol.messages import API_BY_KEY, decode_response, encode_response

if TYPE_CHECKING:
    from collections.abc import Callable

METADATA, FIND_COORDINATOR = 3, 10


class Proxy:
    """Answers of Metadata and FindCoordinator are rewritten, so that clients come back through the proxy.

    `silent`: nothing is passed on any more. `delay_s`: before each answer. `cut_after`: (api key, count): the connection is cut when
    so many requests of that kind have reached the broker, before their answer is passed on. `requests`: how many came, by api
    key. `spoil(api key, answer)`: what is passed on instead of an answer; it begins with the correlation id.
    """

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.bootstrap = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.silent = False
        self.delay_s = 0.0
        self.cut_after: tuple[int, int] | None = None
        self.cuts = 0
        self.requests: Counter[int] = Counter()
        self.spoil: Callable[[int, bytes], bytes] | None = None
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.cut()

    def cut(self) -> None:
        """All connections, at once."""
        with self._lock:
            found, self._sockets = self._sockets, []
        for one in found:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self.target)
            except OSError:  # it is being started again
                client.close()
                continue
            with self._lock:
                self._sockets += [client, broker]
            asked: list[tuple[int, int]] = []
            threading.Thread(target=self._requests, args=(client, broker, asked), daemon=True).start()
            threading.Thread(target=self._answers, args=(client, broker, asked), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket, asked: list[tuple[int, int]]) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                body = _frame(client)
                asked.append(struct.unpack_from(">hh", body))
                self.requests[asked[-1][0]] += 1
                if not self.silent:
                    broker.sendall(struct.pack(">i", len(body)) + body)
        _end(client, broker)

    def _answers(self, client: socket.socket, broker: socket.socket, asked: list[tuple[int, int]]) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                body = _frame(broker)
                key, version = asked.pop(0)
                with self._lock:
                    if self.cut_after is not None and self.cut_after[0] == key:
                        self.cut_after = (key, self.cut_after[1] - 1)
                        if self.cut_after[1] < 0:
                            self.cut_after = None
                            self.cuts += 1
                            break
                time.sleep(self.delay_s)
                body = self._rewritten(key, version, body)
                if self.spoil is not None:
                    body = self.spoil(key, body)
                client.sendall(struct.pack(">i", len(body)) + body)
        _end(client, broker)

    def _rewritten(self, key: int, version: int, body: bytes) -> bytes:
        if key not in (METADATA, FIND_COORDINATOR):
            return body
        at = 4 + API_BY_KEY[key].response_header_version(version)
        said = decode_response(key, version, body[at:])
        host, _, port = self.bootstrap.rpartition(":")
        for one in [*said.get("brokers", ()), *([said] if key == FIND_COORDINATOR and version < 4 else said.get("coordinators", ()))]:
            one["host"], one["port"] = host, int(port)
        return body[:at] + encode_response(key, version, said)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _frame(one: socket.socket) -> bytes:
    (n,) = struct.unpack(">i", _exactly(one, 4))
    return _exactly(one, n)


def _exactly(one: socket.socket, n: int) -> bytes:
    made = bytearray()
    while len(made) < n:
        part = one.recv(n - len(made))
        if not part:
            raise EOFError
        made += part
    return bytes(made)
