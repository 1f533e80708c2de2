"""The few requests around a load, in plain Python: make and find topics, take producer ids, look up offsets, build request prefixes.

Versions are fixed to ones that Apache Kafka 4.x and fastlog both serve. Field order: Kafka's message definitions.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PRODUCE, FETCH, LIST_OFFSETS, METADATA, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID, CREATE_PARTITIONS = 0, 1, 2, 3, 19, 20, 22, 37
STEP_PARTITIONS = 1000  # made by one request: more of them at once and a broker may answer nobody for longer than its own time limits
WAIT_SECONDS, WAIT_SECONDS_EACH = 90.0, 0.05  # for a topic, and more for each partition
ASK_AGAIN_SECONDS, ASK_AGAIN_SECONDS_EACH = 0.02, 0.0002  # so that being asked is not what a broker is busy with
CLIENT_ID = "loadgen"
UNKNOWN_TOPIC_OR_PARTITION, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, TOPIC_ALREADY_EXISTS = 3, 14, 15, 36


class BrokerError(Exception):
    """A broker answered with an error code."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: Kafka error {code}")
        self.code = code


def uvarint(value: int) -> bytes:
    """Unsigned base 128 (KIP-482)."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def text(value: str) -> bytes:
    """A STRING: two bytes of length."""
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def compact_text(value: str) -> bytes:
    data = value.encode()
    return uvarint(len(data) + 1) + data


def header(api_key: int, version: int, correlation_id: int, *, flexible: bool) -> bytes:
    """Request header 1, or 2 when flexible."""
    return struct.pack(">hhi", api_key, version, correlation_id) + text(CLIENT_ID) + (b"\0" if flexible else b"")


class Fields:
    """Reads an answer. Raises ValueError when it ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise ValueError("the answer ends too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, size: int) -> int:
        """A signed big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self) -> str:
        length = self.number(2)
        return self.take(max(length, 0)).decode()

    def compact_text(self) -> str:
        length = self.uvarint()
        return self.take(max(length - 1, 0)).decode()

    def tags(self) -> None:
        for _ in range(self.uvarint()):
            self.uvarint()
            self.take(self.uvarint())


@dataclass(frozen=True)
class Topic:
    name: str
    id: bytes  # 16 bytes
    partitions: int


class Connection:
    """One blocking connection, for requests whose time does not matter. Raises OSError, BrokerError, ValueError (unreadable answer)."""

    def __init__(self, host: str, port: int, timeout: float = 120) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _receive(self, n: int) -> bytes:
        data = bytearray()
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise ConnectionResetError("the broker closed the connection")
            data += piece
        return bytes(data)

    def send_frame(self, frame: bytes) -> Fields:
        """Sends a whole request (from its header on) and returns the answer behind its correlation id."""
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", self._receive(4))
        return Fields(self._receive(size)[4:])

    def ask(self, api_key: int, version: int, body: bytes, *, flexible: bool = False) -> Fields:
        self.correlation_id += 1
        answer = self.send_frame(header(api_key, version, self.correlation_id, flexible=flexible) + body)
        if flexible:
            answer.tags()
        return answer

    def create_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        """CreateTopics 4; a topic that is there already is left as it is. Many partitions are made in steps."""
        settings = b"".join(text(key) + text(value) for key, value in configs.items())
        made = min(partitions, STEP_PARTITIONS)
        body = struct.pack(">i", 1) + text(name) + struct.pack(">ihi", made, 1, 0) + struct.pack(">i", len(configs)) + settings
        answer = self.ask(CREATE_TOPICS, 4, body + struct.pack(">i?", 90_000, False))
        answer.take(8)
        answer.text()
        code = answer.number(2)
        if code == TOPIC_ALREADY_EXISTS:
            return
        if code:
            raise BrokerError(f"creating topic {name}", code)
        while made < partitions:
            self.wait_for_topic(name, made)
            made = min(made + STEP_PARTITIONS, partitions)
            self.create_partitions(name, made)
        self.wait_for_topic(name, made)

    def create_partitions(self, name: str, partitions: int) -> None:
        """CreatePartitions 1: so many in all."""
        body = struct.pack(">i", 1) + text(name) + struct.pack(">ii", partitions, -1)
        answer = self.ask(CREATE_PARTITIONS, 1, body + struct.pack(">i?", 90_000, False))
        answer.take(8)
        answer.text()
        code = answer.number(2)
        if code:
            raise BrokerError(f"adding partitions to {name}", code)

    def delete_topic(self, name: str) -> None:
        """DeleteTopics 3; one that is not there is fine."""
        answer = self.ask(DELETE_TOPICS, 3, struct.pack(">i", 1) + text(name) + struct.pack(">i", 30_000))
        answer.take(8)
        answer.text()
        code = answer.number(2)
        if code not in (0, UNKNOWN_TOPIC_OR_PARTITION):
            raise BrokerError(f"deleting topic {name}", code)

    def find_topic(self, name: str) -> Topic:
        """Metadata 12. Raises BrokerError when the topic or a partition's leader is not there (yet)."""
        body = uvarint(2) + bytes(16) + compact_text(name) + b"\0" + b"\0\0" + b"\0"
        answer = self.ask(METADATA, 12, body, flexible=True)
        answer.number(4)
        for _ in range(answer.uvarint() - 1):
            answer.number(4)
            answer.compact_text()
            answer.number(4)
            answer.compact_text()
            answer.tags()
        answer.compact_text()
        answer.number(4)
        answer.uvarint()
        code = answer.number(2)
        if code:
            raise BrokerError(f"finding topic {name}", code)
        answer.compact_text()
        topic_id = answer.take(16)
        answer.number(1)
        partitions = answer.uvarint() - 1
        for _ in range(partitions):
            code = answer.number(2) or code
            answer.take(12)
            for _ in range(3):
                answer.take(4 * (answer.uvarint() - 1))
            answer.tags()
        if code:
            raise BrokerError(f"finding a leader for {name}", code)
        return Topic(name, topic_id, partitions)

    def offsets(self, name: str, partitions: Iterable[int], timestamp: int) -> list[int]:
        """ListOffsets 2: -1 for the end, -2 for the start of each partition."""
        wanted = list(partitions)
        asked = b"".join(struct.pack(">iq", partition, timestamp) for partition in wanted)
        answer = self.ask(LIST_OFFSETS, 2, struct.pack(">ibi", -1, 0, 1) + text(name) + struct.pack(">i", len(wanted)) + asked)
        answer.take(8)
        answer.text()
        found = {}
        for _ in range(answer.number(4)):
            partition, code = answer.number(4), answer.number(2)
            if code:
                raise BrokerError(f"listing offsets of {name}-{partition}", code)
            answer.number(8)
            found[partition] = answer.number(8)
        return [found[partition] for partition in wanted]

    def producer_id(self, seconds: float = 10) -> tuple[int, int]:
        """InitProducerId 1: id and epoch. Waits while the broker is fetching a block of them."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(INIT_PRODUCER_ID, 1, struct.pack(">hi", -1, 60_000))
            answer.number(4)
            code = answer.number(2)
            if code not in (COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if code:
            raise BrokerError("taking a producer id", code)
        return answer.number(8), answer.number(2)

    def wait_for_topic(self, name: str, partitions: int = 0) -> Topic:
        """The topic, once it has so many partitions (0: any number) and every one answers. Raises BrokerError when that takes too long."""
        begun = time.monotonic()
        while True:
            try:
                topic = self.find_topic(name)
                if topic.partitions < partitions:
                    raise BrokerError(f"finding all partitions of {name}", UNKNOWN_TOPIC_OR_PARTITION)
                partitions = topic.partitions
                self.offsets(name, range(partitions), -1)
            except BrokerError:
                if time.monotonic() - begun > WAIT_SECONDS + WAIT_SECONDS_EACH * partitions:
                    raise
                time.sleep(ASK_AGAIN_SECONDS + ASK_AGAIN_SECONDS_EACH * partitions)
            else:
                return topic


def topic_key(topic: Topic, *, by_id: bool) -> bytes:
    return topic.id if by_id else compact_text(topic.name)


def produce_prefix(version: int, topic: Topic, acks: int, batches: int, batch_bytes: int) -> bytes:
    """A ProduceRequest (9 to 13) from its length field up to its first partition."""
    body = header(PRODUCE, version, 0, flexible=True) + b"\0" + struct.pack(">hi", acks, 30_000)
    body += uvarint(2) + topic_key(topic, by_id=version >= 13) + uvarint(batches + 1)
    size = len(body) + batches * (len(produce_item(batch_bytes)) + batch_bytes + 1) + 2
    return struct.pack(">i", size) + body


def produce_item(batch_bytes: int) -> bytes:
    """What stands before a partition's batch: its index (written over) and the length of the records."""
    return bytes(4) + uvarint(batch_bytes + 1)


def produce_frame(version: int, topic: Topic, acks: int, partition: int, batch: bytes) -> bytes:
    """One whole ProduceRequest with one batch, without its length field."""
    item = struct.pack(">i", partition) + produce_item(len(batch))[4:]
    return produce_prefix(version, topic, acks, 1, len(batch))[4:] + item + batch + b"\0\0\0"


def fetch_request(version: int, topic: Topic, partitions: list[int], wait_ms: int, max_bytes: int) -> tuple[bytes, list[int]]:
    """A FetchRequest (12 to 18) with its length field, and where in it each partition's fetch offset stands.

    No fetch session: every request names all its partitions.
    """
    body = header(FETCH, version, 0, flexible=True)
    if version < 15:
        body += struct.pack(">i", -1)
    body += struct.pack(">iiibii", wait_ms, 1, max_bytes, 0, 0, -1)
    body += uvarint(2) + topic_key(topic, by_id=version >= 13) + uvarint(len(partitions) + 1)
    offset_at = []
    for partition in partitions:
        body += struct.pack(">ii", partition, -1)
        offset_at.append(4 + len(body))
        body += struct.pack(">qiqi", 0, -1, -1, max_bytes) + b"\0"
    body += b"\0" + uvarint(1) + uvarint(1) + b"\0"
    return struct.pack(">i", len(body)) + body, offset_at
