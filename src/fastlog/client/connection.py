"""A connection to one broker for all but records: requests one at a time, answers awaited. Blocking, with a time for everything."""

import struct
import threading
import time

from fastlog import protocol
from fastlog.client.failures import ClientTimeoutError, ProtocolError, UnreachableError
from fastlog.protocol.messages import Message, api_named, decode_response, encode_request, encode_request_header

# No answer that is asked for here is larger: metadata of 100,000 partitions takes 10 MB.
ANSWER_MAX = 256 << 20
SOFTWARE = "fastlog"
# How an alert and a handshake begin (RFC 8446, 5.1): read as a length, more than any answer has.
TLS_RECORDS = (0x1503, 0x1603)
# Requests are written as these versions at most: later ones name topics by ids, or say what is said elsewhere.
NEWEST = {
    "Metadata": 12,
    "FindCoordinator": 3,
    "OffsetCommit": 9,
    "OffsetFetch": 7,
    "DeleteTopics": 5,
    "Fetch": 12,
    "AddPartitionsToTxn": 3,
    "EndTxn": 4,
    "TxnOffsetCommit": 4,
}


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT or [HOST]:PORT. Raises ConfigError."""
    from fastlog.client.failures import ConfigError

    host, colon, port = text.strip().rpartition(":")
    wrong = not host.isprintable() or any(c in host for c in "/ @")  # a URL's
    if not colon or not host or wrong or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ConfigError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


class Connection:
    """Connects at once and asks which versions the broker has. `timeout_s`: for connecting, and for an answer where none is given."""

    def __init__(self, host: str, port: int, *, client_id: str, timeout_s: float = 30.0) -> None:
        self.address = f"{host}:{port}"
        self.client_id = client_id
        self.timeout_s = timeout_s
        self.versions: dict[int, tuple[int, int]] = {}
        self._correlation = 0
        self._lock = threading.Lock()
        self._closed = False
        import socket  # not before the first connection

        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise UnreachableError(self.address, error.strerror or str(error) or type(error).__name__) from error
        except (ValueError, OverflowError) as error:  # no host's name, no port: a broker may name such ones, too
            raise UnreachableError(self.address, str(error)) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._negotiate()
        except BaseException:
            self.close()
            raise

    def _negotiate(self) -> None:
        """KIP-511: a broker that does not know the version answers in version 0, with its own."""
        said = self._exchange("ApiVersions", 3, {"client_software_name": SOFTWARE, "client_software_version": "1"}, self.timeout_s)
        if said["error_code"] == 35:
            said = self._exchange("ApiVersions", 0, {}, self.timeout_s)
        if said["error_code"]:
            raise ProtocolError(f"{self.address} does not say which versions it has (error {said['error_code']})")
        self.versions = {v["api_key"]: (v["min_version"], v["max_version"]) for v in said["api_keys"]}

    def version(self, name: str) -> int | None:
        """The newest version of an API that both sides have; None where there is none."""
        api = api_named(name)
        theirs = self.versions.get(api.key)
        if theirs is None:
            return None
        newest = min(theirs[1], api.versions[1], NEWEST.get(name, 1000))
        return newest if newest >= max(theirs[0], api.versions[0]) else None

    def call(self, name: str, message: Message, timeout_s: float | None = None, newest: int = 1000) -> Message:
        """Asks and waits for the answer. Raises UnreachableError, ClientTimeoutError or ProtocolError; the connection is closed then."""
        version = self.version(name)
        if version is None:
            from fastlog.client.errors import error_for

            raise error_for(35, f"{name} at {self.address}", "the broker has no version of it that this client knows")
        return self._exchange(name, min(version, newest), message, timeout_s or self.timeout_s)

    def _exchange(self, name: str, version: int, message: Message, timeout_s: float) -> Message:
        api = api_named(name)
        body = encode_request(api.key, version, message)
        with self._lock:
            if self._closed:
                raise UnreachableError(self.address, "the connection is closed")
            self._correlation += 1
            head = encode_request_header(api.key, version, self._correlation, self.client_id)
            try:
                deadline = time.monotonic() + timeout_s
                self._socket.settimeout(timeout_s)
                self._socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
                answer = self._receive(deadline)
            except TimeoutError as error:
                self.close()
                raise ClientTimeoutError(f"{name}: {self.address} did not answer in {timeout_s:.1f} s") from error
            except OSError as error:
                self.close()
                raise UnreachableError(self.address, error.strerror or str(error)) from error
            except BaseException:
                self.close()  # half an answer may be there
                raise
            at = 4
            if len(answer) < 4 or struct.unpack_from(">i", answer)[0] != self._correlation:
                self.close()
                raise ProtocolError(f"{self.address} answered what was not asked; is it a Kafka broker?")
            try:
                if api.response_header_version(version) == 1:
                    at = _skip_tags(answer, at)
                return decode_response(api.key, version, memoryview(answer)[at:])
            except (protocol.DecodeError, IndexError) as error:
                self.close()
                raise ProtocolError(f"{name}: {self.address} answered what can't be read: {error}") from error

    def _receive(self, deadline: float) -> bytearray:
        (size,) = struct.unpack(">i", self._exactly(4, deadline))
        if not 0 <= size <= ANSWER_MAX:
            self.close()
            if size >> 16 in TLS_RECORDS:
                raise ProtocolError(f"{self.address} speaks TLS, this client plain TCP: give it a listener whose protocol is PLAINTEXT")
            raise ProtocolError(f"{self.address} answered with a length of {size}; is it a Kafka broker?")
        return self._exactly(size, deadline)

    def _exactly(self, n: int, deadline: float) -> bytearray:
        made = bytearray()
        while len(made) < n:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            part = self._socket.recv(min(n - len(made), 1 << 20))
            if not part:
                raise ConnectionResetError("the broker closed the connection")
            made += part
        return made

    @property
    def closed(self) -> bool:
        return self._closed

    def detach(self) -> int:
        """The socket's descriptor, which does not block then and is the caller's; the connection is over for this object."""
        self._closed = True
        self._socket.setblocking(False)
        return self._socket.detach()

    def close(self) -> None:
        self._closed = True
        if getattr(self, "_socket", None) is not None:
            self._socket.close()


def _skip_tags(data: bytearray, at: int) -> int:
    """Past the tagged fields at `at` (KIP-482)."""

    def number() -> int:
        nonlocal at
        made = shift = 0
        while True:
            byte = data[at]
            at += 1
            made |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return made

    for _ in range(number()):
        number()
        at += number()
    return at
