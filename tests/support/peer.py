"""A peer on a socket of its own that says exactly what a test wants said, well-formed or not."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Self

from fastlog.protocol.messages import API_BY_KEY, API_BY_NAME, Message, decode_response, encode_request

if TYPE_CHECKING:
    from types import TracebackType


class Peer:
    """One connection to `bootstrap` (HOST:PORT, or unix:PATH). Times in seconds."""

    def __init__(self, bootstrap: str, *, timeout: float = 20.0, receive_buffer: int | None = None) -> None:
        if bootstrap.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            where: str | tuple[str, int] = bootstrap.removeprefix("unix:")
        else:
            self.socket = socket.socket()
            host, _, port = bootstrap.rpartition(":")
            where = (host, int(port))
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(where)
        self._correlation = 0
        self._asked: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    @property
    def name(self) -> str:
        """As the broker's log names it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, api: str, version: int, message: Message, client_id: str = "peer") -> int:
        """Sends a request without waiting; its correlation id."""
        self._correlation += 1
        key = API_BY_NAME[api].key
        self._asked[self._correlation] = (key, version)
        self.send(frame(key, version, self._correlation, encode_request(key, version, message), client_id))
        return self._correlation

    def answer(self) -> tuple[int, Message]:
        """The next response: its correlation id and message. Raises EOFError when the connection was closed."""
        body = self.receive()
        (correlation,) = struct.unpack_from(">i", body)
        key, version = self._asked.pop(correlation)
        at = 5 if API_BY_KEY[key].response_header_version(version) else 4
        return correlation, decode_response(key, version, body[at:])

    def call(self, api: str, version: int, message: Message) -> Message:
        asked = self.ask(api, version, message)
        got, response = self.answer()
        assert got == asked, "the responses are not in the order of the requests"
        return response

    def receive(self) -> bytes:
        """The next frame, without its length. Raises EOFError."""
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

    def closed(self) -> bool:
        """Whether the broker closes the connection (within the time-out) without sending anything more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _exactly(self, n: int) -> bytes:
        parts = bytearray()
        while len(parts) < n:
            part = self.socket.recv(n - len(parts))
            if not part:
                raise EOFError("the broker closed the connection")
            parts += part
        return bytes(parts)


def frame(key: int, version: int, correlation: int, body: bytes, client_id: str = "peer") -> bytes:
    """A whole request with its length and header."""
    name = client_id.encode()
    header = struct.pack(">hhih", key, version, correlation, len(name)) + name
    api = API_BY_KEY.get(key)
    if api is not None and api.request_header_version(version) == 2:
        header += b"\x00"
    return struct.pack(">i", len(header) + len(body)) + header + body


def produce(topic: str, batch: bytes | None, *, partition: int = 0, acks: int = 1) -> Message:
    """A Produce request of one batch for versions 3 to 12."""
    data = [{"name": topic, "partition_data": [{"index": partition, "records": batch}]}]
    return {"transactional_id": None, "acks": acks, "timeout_ms": 10_000, "topic_data": data}


def fetch(topic: str, *, offset: int = 0, partitions: int = 1, wait_ms: int = 0, min_bytes: int = 1, max_bytes: int = 1 << 20) -> Message:
    """A Fetch request without a session for versions 4 to 12."""
    parts = [{"partition": p, "fetch_offset": offset, "partition_max_bytes": max_bytes} for p in range(partitions)]
    return {
        "max_wait_ms": wait_ms,
        "min_bytes": min_bytes,
        "max_bytes": 50 << 20,
        "session_epoch": -1,
        "topics": [{"topic": topic, "partitions": parts}],
    }


def create_topic(bootstrap: str, name: str, partitions: int = 1, configs: dict[str, str] | None = None) -> None:
    wanted = {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": 1,
        "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
    }
    with Peer(bootstrap) as peer:
        response = peer.call("CreateTopics", 7, {"topics": [wanted], "timeout_ms": 30_000})
    assert [topic["error_code"] for topic in response["topics"]] == [0], response


def produced(response: Message) -> tuple[int, int]:
    """(error code, base offset) of the only partition in a Produce response."""
    (topic,) = response["responses"]
    (partition,) = topic["partition_responses"]
    return partition["error_code"], partition["base_offset"]
