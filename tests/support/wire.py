"""Requests by hand over a socket, apart from any client: what is stored, byte for byte."""

import socket
import struct
from dataclasses import dataclass

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """The header of a record batch (magic 2) as the broker keeps it."""

    base_offset: int
    count: int
    codec: str
    log_append_time: bool
    producer_id: int
    base_sequence: int
    bytes: int


def roundtrip(bootstrap: str, api_key: int, version: int, body: bytes) -> bytes:
    """One request with header version 1, the response without its correlation id."""
    host, _, port = bootstrap.rpartition(":")
    frame = struct.pack(">hhih", api_key, version, 7, 5) + b"tests" + body
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        stream = connection.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        answer = stream.read(size)
    assert len(answer) == size, "the broker closed the connection in the middle of its answer"
    assert struct.unpack_from(">i", answer) == (7,), "the correlation id is not the request's"
    return answer[4:]


def stored_batches(bootstrap: str, topic: str, partition: int = 0) -> list[StoredBatch]:
    """Every batch of a partition, by Fetch version 4 from offset 0 on."""
    found: list[StoredBatch] = []
    offset = 0
    name = topic.encode()
    while True:
        body = struct.pack(">iiiib", -1, 500, 1, 64 << 20, 0)
        body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiqi", 1, partition, offset, 16 << 20)
        answer = roundtrip(bootstrap, 1, 4, body)
        at = 4 + 4 + 2 + len(name) + 4  # throttle, topics, name, partitions
        number, error, _high, _stable, aborted = struct.unpack_from(">ihqqi", answer, at)
        assert (number, error) == (partition, 0), f"Fetch answered error {error}"
        at += 26 + max(0, aborted) * 16
        (size,) = struct.unpack_from(">i", answer, at)
        data = answer[at + 4 : at + 4 + max(0, size)]
        batches = _batches(data)
        if not batches:
            return found
        found += batches
        offset = batches[-1].base_offset + batches[-1].count


def _batches(data: bytes) -> list[StoredBatch]:
    """Whole batches only: a broker may cut the last one short."""
    made = []
    at = 0
    while at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if at + 12 + length > len(data):
            break
        attributes, _last, _first, _max, producer_id, _epoch, sequence, count = struct.unpack_from(">hiqqqhii", data, at + 21)
        assert data[at + 16] == 2, "a batch of another magic"
        made.append(StoredBatch(base, count, CODECS[attributes & 7], bool(attributes & 8), producer_id, sequence, 12 + length))
        at += 12 + length
    return made
