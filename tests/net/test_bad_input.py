"""What strangers send costs nothing: each gets Kafka's error code, or a closed connection and a log line that names it and says why."""

from __future__ import annotations

import random
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.protocol.errors import Error
from fastlog.protocol.messages import API_BY_KEY, encode_request
from fastlog.protocol.records import TRANSACTIONAL, Codec, Record, build_batch
from tests.support.peer import Peer, create_topic, fetch, frame, produce, produced
from tests.support.process_facts import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.process import Broker

NOW = int(time.time() * 1000)
SERVED = sorted(API_BY_KEY)


def batch(n: int = 3, **settings: object) -> bytearray:
    records = [Record(0, NOW, b"key", b"value %d" % i) for i in range(n)]
    return bytearray(build_batch(records, timestamp_ms=NOW, **settings))  # type: ignore[arg-type]


def sealed(data: bytearray) -> bytes:
    """With the CRC made right again."""
    from fastlog.native.crc32c import checksum

    struct.pack_into(">I", data, 17, checksum(bytes(data[21:])))
    return bytes(data)


@pytest.fixture
def topic(broker: Broker, fresh_name: str) -> str:
    create_topic(broker.bootstrap, fresh_name)
    return fresh_name


@pytest.fixture(autouse=True)
def still_well(broker: Broker) -> Iterator[None]:
    """After each test: the broker serves, and no request is left over."""
    yield
    with Peer(broker.bootstrap) as peer:
        assert peer.call("ApiVersions", 0, {})["error_code"] == 0
    assert broker.alive()


def let_the_log_breathe() -> None:
    """After many closed connections: a shard writes 50 lines a second at most, and the next test looks for its own."""
    time.sleep(1.1)


def assert_closed(broker: Broker, peer: Peer, why: str) -> None:
    name = peer.name
    assert peer.closed(), "the connection is still open"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [line for line in broker.log.splitlines() if name in line]
        if any(why in line for line in lines):
            return
        time.sleep(0.02)
    raise AssertionError(f"no log line of {name} says {why!r}: {lines}")


@pytest.mark.parametrize(
    ("key", "version", "body"),
    [
        pytest.param(0, 3, struct.pack(">hhii", -1, 1, 1000, -1), id="Produce, topics"),
        pytest.param(0, 3, struct.pack(">hhiih1si", -1, 1, 1000, 1, 1, b"t", -1), id="Produce, partitions"),
        pytest.param(1, 4, struct.pack(">iiiibi", -1, 0, 0, 1000, 0, -1), id="Fetch, topics"),
        pytest.param(1, 4, struct.pack(">iiiibih1si", -1, 0, 0, 1000, 0, 1, 1, b"t", -1), id="Fetch, partitions"),
        pytest.param(1, 7, struct.pack(">iiiibiiii", -1, 0, 0, 1000, 0, 0, -1, 0, -1), id="Fetch, forgotten topics"),
        pytest.param(2, 1, struct.pack(">ii", -1, -1), id="ListOffsets, topics"),
        pytest.param(2, 1, struct.pack(">iih1si", -1, 1, 1, b"t", -1), id="ListOffsets, partitions"),
    ],
)
def test_null_where_there_must_be_an_array_closes(broker: Broker, key: int, version: int, body: bytes) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.send(frame(key, version, 1, body))
        assert_closed(broker, peer, "that can't be read")


@pytest.mark.parametrize("length", [-1, -(2**31), 0, 7, 104_857_601, 2**31 - 1])
def test_a_frame_length_out_of_bounds_closes(broker: Broker, length: int) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.send(struct.pack(">i", length) + b"xxxx")
        assert_closed(broker, peer, "socket.request.max.bytes")


@pytest.mark.memory
def test_a_length_that_no_bytes_follow_costs_no_memory(broker: Broker) -> None:
    before = resident(broker)
    peers = [Peer(broker.bootstrap) for _ in range(50)]
    for peer in peers:
        peer.send(struct.pack(">i", 100_000_000) + b"\x00\x00\x00\x09")
    time.sleep(0.3)
    assert resident(broker) - before < 32 << 20
    for peer in peers:
        peer.socket.close()


def test_garbage_frames_close(broker: Broker) -> None:
    rng = random.Random(11)
    for _ in range(200):
        with Peer(broker.bootstrap) as peer:
            data = rng.randbytes(rng.randrange(8, 300))
            peer.send(struct.pack(">i", len(data)) + data)
            # an unlikely but possible ApiVersions is answered; whatever happens, the broker goes on
            peer.socket.settimeout(0.5)
            peer.closed()
    let_the_log_breathe()


def test_http_closes(broker: Broker) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert_closed(broker, peer, "socket.request.max.bytes")


@pytest.mark.parametrize(
    ("key", "version"), [(0, 2), (0, 14), (1, 3), (1, 19), (2, 0), (2, 12), (3, 99), (4, 0), (127, 0), (500, 0), (-1, 0)]
)
def test_unknown_keys_and_versions_close(broker: Broker, key: int, version: int) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.send(frame(key, version, 1, b"\x00" * 40))
        assert_closed(broker, peer, "version" if key != 500 else "unknown")


def test_api_versions_out_of_range_gets_the_range(broker: Broker) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.send(frame(18, 99, 5, b""))
        body = peer.receive()
        correlation, error, n, key, low, high = struct.unpack_from(">ihihhh", body)
        assert (correlation, error, n, key, low) == (5, Error.UNSUPPORTED_VERSION, 1, 18, 0)
        assert high >= 4
        assert peer.call("ApiVersions", 4, {"client_software_name": "x", "client_software_version": "1"})["error_code"] == 0


@pytest.mark.parametrize("key", SERVED)
def test_truncated_at_every_byte(broker: Broker, key: int) -> None:
    """Every request kind, newest version, cut at every byte: closed or an error, and never another byte's delay for others."""
    api = API_BY_KEY[key]
    version = api.versions[1]
    body = encode_request(key, version, SAMPLES.get(api.name, {}))
    whole = frame(key, version, 9, body)
    for cut in range(4, len(whole)):
        data = struct.pack(">i", cut - 4) + whole[4:cut]
        with Peer(broker.bootstrap, timeout=5) as peer:
            peer.send(data)
            peer.socket.shutdown(1)
            while peer.socket.recv(65536):
                pass
    let_the_log_breathe()


PARTITION = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 100}
SAMPLES: dict[str, Any] = {
    "Produce": {"acks": 1, "timeout_ms": 100, "topic_data": [{"partition_data": [{"index": 0, "records": bytes(batch())}]}]},
    "Fetch": {"max_wait_ms": 0, "min_bytes": 1, "topics": [{"partitions": [PARTITION]}], "forgotten_topics_data": [{"partitions": [1]}]},
    "ListOffsets": {"topics": [{"name": "none", "partitions": [{"partition_index": 0, "timestamp": -1}]}]},
    "Metadata": {"topics": [{"name": None}], "allow_auto_topic_creation": False},
    "CreateTopics": {"topics": [{"name": "", "num_partitions": 1, "replication_factor": 1, "configs": [{"name": "a", "value": "b"}]}]},
    "JoinGroup": {"group_id": "", "protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b"abc"}]},
    "OffsetCommit": {"group_id": "g", "topics": [{"name": "t", "partitions": [{"partition_index": 0, "committed_offset": 1}]}]},
}


@pytest.mark.parametrize("key", SERVED)
def test_array_of_two_billion_closes(broker: Broker, key: int) -> None:
    """Every int32 of a request's body replaced by 2^31 - 1, one at a time."""
    api = API_BY_KEY[key]
    version = api.versions[0] if api.versions[0] >= 3 or key > 2 else max(3, api.versions[0])
    version = {0: 3, 1: 4, 2: 1}.get(key, version)
    try:
        body = encode_request(key, version, SAMPLES.get(api.name, {}))
    except ValueError:
        body = b"\x00" * 32
    for at in range(max(1, len(body) - 3)):
        data = bytearray(body.ljust(4, b"\0"))
        data[at : at + 4] = b"\x7f\xff\xff\xff"
        with Peer(broker.bootstrap, timeout=5) as peer:
            peer.send(frame(key, version, 9, bytes(data)))
            peer.socket.shutdown(1)
            while peer.socket.recv(65536):
                pass
    let_the_log_breathe()


def test_one_byte_a_time_delays_nobody(broker: Broker, topic: str) -> None:
    slow = Peer(broker.bootstrap)
    data = frame(3, 9, 1, encode_request(3, 9, {"topics": []}))
    stop = threading.Event()

    def trickle() -> None:
        for byte in data:
            if stop.wait(0.05):
                return
            slow.send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with Peer(broker.bootstrap) as peer:
            for _ in range(200):
                assert produced(peer.call("Produce", 9, produce(topic, bytes(batch()))))[0] == 0
        assert thread.is_alive(), "the slow one ended before the others were measured"
        thread.join()
        assert slow.receive()[:4] == struct.pack(">i", 1)
    finally:
        stop.set()
        thread.join()
        slow.socket.close()


@pytest.mark.memory
def test_one_that_never_reads_is_bounded_and_delays_nobody(broker: Broker, topic: str) -> None:
    value = random.Random(3).randbytes(900_000)
    big = build_batch([Record(0, NOW, None, value)], timestamp_ms=NOW)
    with Peer(broker.bootstrap) as peer:
        for _ in range(8):
            assert produced(peer.call("Produce", 9, produce(topic, big)))[0] == 0
        before = resident(broker)
        deaf = Peer(broker.bootstrap, receive_buffer=4096)
        deaf.socket.settimeout(0.2)
        request = frame(1, 12, 1, encode_request(1, 12, fetch(topic, max_bytes=8 << 20)))
        try:
            for _ in range(5000):
                deaf.send(request)
        except TimeoutError:
            pass  # the broker stopped reading: back-pressure
        for _ in range(100):
            assert produced(peer.call("Produce", 9, produce(topic, bytes(batch()))))[0] == 0
        assert resident(broker) - before < 96 << 20
        deaf.socket.close()


BAD_BATCHES: dict[str, tuple[Callable[[], bytes], set[Error]]] = {
    "wrong CRC": (lambda: bytes(batch()[:-1]) + b"\xff", {Error.CORRUPT_MESSAGE}),
    "length past its end": (
        lambda: bytes(batch()[:8]) + struct.pack(">i", 10_000) + bytes(batch()[12:]),
        {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD},
    ),
    "negative length": (
        lambda: bytes(batch()[:8]) + struct.pack(">i", -5) + bytes(batch()[12:]),
        {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD},
    ),
    "cut short": (lambda: bytes(batch()[:50]), {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD}),
    "count that lies": (lambda: _count(batch(), 4), {Error.INVALID_RECORD}),
    "count of zero": (lambda: _count(batch(), 0), {Error.INVALID_RECORD}),
    "two batches": (lambda: bytes(batch()) * 2, {Error.INVALID_RECORD}),
    "empty": (lambda: b"", {Error.INVALID_RECORD}),
    "magic 0": (lambda: _magic(0), {Error.UNSUPPORTED_FOR_MESSAGE_FORMAT, Error.INVALID_RECORD, Error.CORRUPT_MESSAGE}),
    "magic 1": (lambda: _magic(1), {Error.UNSUPPORTED_FOR_MESSAGE_FORMAT, Error.INVALID_RECORD, Error.CORRUPT_MESSAGE}),
    "control batch": (lambda: _attributes(0x20), {Error.INVALID_RECORD}),
    "unknown codec": (lambda: _attributes(0x07), {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD, Error.UNSUPPORTED_COMPRESSION_TYPE}),
    "from the far future": (lambda: bytes(build_batch([Record(0, NOW + 10**9, b"k", b"v")], timestamp_ms=NOW)), {Error.INVALID_TIMESTAMP}),
}


def _count(data: bytearray, n: int) -> bytes:
    struct.pack_into(">i", data, 57, n)
    return sealed(data)


def _attributes(bits: int) -> bytes:
    data = batch()
    struct.pack_into(">h", data, 21, bits)
    return sealed(data)


def _magic(magic: int) -> bytes:
    """A message set as clients before 0.11 sent it."""
    content = (
        struct.pack(">bb", magic, 0) + (struct.pack(">q", NOW) if magic else b"") + struct.pack(">i", -1) + struct.pack(">i", 3) + b"old"
    )
    message = struct.pack(">I", zlib.crc32(content)) + content
    return struct.pack(">qi", 0, len(message)) + message


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batches_are_refused_and_nothing_of_them_is_kept(broker: Broker, topic: str, name: str) -> None:
    make, expected = BAD_BATCHES[name]
    with Peer(broker.bootstrap) as peer:
        error, offset = produced(peer.call("Produce", 9, produce(topic, make())))
        assert Error(error) in expected
        assert offset == -1
        # the connection and the partition go on as if it had not been
        assert produced(peer.call("Produce", 9, produce(topic, bytes(batch(1))))) == (0, 0)


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("damage", ["garbage", "flipped", "cut"])
def test_garbage_inside_a_compression(broker: Broker, topic: str, codec: Codec, damage: str) -> None:
    rng = random.Random(codec)
    with Peer(broker.bootstrap) as peer:
        for _ in range(30):
            data = batch(50, codec=codec)
            if damage == "garbage":
                data[61:] = rng.randbytes(len(data) - 61)
            elif damage == "flipped":
                data[rng.randrange(61, len(data))] ^= 1 << rng.randrange(8)
            else:
                del data[rng.randrange(62, len(data)) :]
                struct.pack_into(">i", data, 8, len(data) - 12)
            error, _ = produced(peer.call("Produce", 9, produce(topic, sealed(data))))
            # a flipped bit of a value inside a raw format can still decode to well-formed records
            assert Error(error) in {Error.CORRUPT_MESSAGE, Error.INVALID_RECORD, Error.INVALID_TIMESTAMP} or damage == "flipped"


@pytest.mark.memory
@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD])
def test_a_decompression_bomb_costs_no_memory(broker: Broker, topic: str, codec: Codec) -> None:
    # 200 MB of zeroes in one value; snappy shrinks to a twentieth only, and stays below message.max.bytes with 15 MB
    size = 15_000_000 if codec is Codec.SNAPPY else 200_000_000
    bomb = build_batch([Record(0, NOW, None, bytes(size))], timestamp_ms=NOW, codec=codec)
    assert len(bomb) < 1_000_000
    before = resident(broker)
    with Peer(broker.bootstrap) as peer:
        error, _ = produced(peer.call("Produce", 9, produce(topic, bomb)))
    assert error == 0 if codec is Codec.SNAPPY else Error(error) in {Error.MESSAGE_TOO_LARGE, Error.CORRUPT_MESSAGE}
    assert resident(broker) - before < 24 << 20


def test_unknown_topics_and_partitions(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        for name, partition in (("no-such-topic", 0), (topic, 1), (topic, -1), ("", 0), ("a/b", 0)):
            error, _ = produced(peer.call("Produce", 9, produce(name, bytes(batch()), partition=partition)))
            assert error == Error.UNKNOWN_TOPIC_OR_PARTITION
        response = peer.call("Fetch", 11, fetch("no-such-topic"))
        assert response["responses"][0]["partitions"][0]["error_code"] == Error.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "white space", "x" * 250, "schlüssel"])
def test_invalid_topic_names(broker: Broker, name: str) -> None:
    with Peer(broker.bootstrap) as peer:
        response = peer.call("CreateTopics", 5, {"topics": [{"name": name, "num_partitions": 1, "replication_factor": 1}]})
        assert response["topics"][0]["error_code"] == Error.INVALID_TOPIC_EXCEPTION
        response = peer.call("Metadata", 9, {"topics": [{"name": name}], "allow_auto_topic_creation": True})
        assert response["topics"][0]["error_code"] == Error.INVALID_TOPIC_EXCEPTION


def test_acks_of_two_is_refused(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        assert produced(peer.call("Produce", 9, produce(topic, bytes(batch()), acks=2)))[0] == Error.INVALID_REQUIRED_ACKS


def test_a_failed_produce_with_acks_0_closes(broker: Broker) -> None:
    with Peer(broker.bootstrap) as peer:
        peer.ask("Produce", 9, produce("no-such-topic", bytes(batch()), acks=0))
        assert_closed(broker, peer, "acks=0")


def test_a_transactional_id_that_nobody_knows_gets_an_error(broker: Broker, topic: str) -> None:
    with Peer(broker.bootstrap) as peer:
        data = bytes(batch(attributes=TRANSACTIONAL, producer_id=5, producer_epoch=0, base_sequence=0))
        message = produce(topic, data) | {"transactional_id": "nobody's"}
        assert produced(peer.call("Produce", 9, message))[0] == Error.INVALID_PRODUCER_ID_MAPPING


def test_zstd_needs_version_7(broker: Broker, topic: str) -> None:
    data = bytes(batch(codec=Codec.ZSTD))
    with Peer(broker.bootstrap) as peer:
        assert produced(peer.call("Produce", 6, produce(topic, data)))[0] == Error.UNSUPPORTED_COMPRESSION_TYPE
        assert produced(peer.call("Produce", 7, produce(topic, data)))[0] == 0


def test_message_too_large(broker: Broker, topic: str) -> None:
    large = build_batch([Record(0, NOW, None, bytes(1_100_000))], timestamp_ms=NOW)
    with Peer(broker.bootstrap) as peer:
        assert produced(peer.call("Produce", 9, produce(topic, large)))[0] == Error.MESSAGE_TOO_LARGE
