"""Against Apache Kafka's own classes: the same verdicts, batches that its client wrote, batches that it reads."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.native import batchtool as native
from fastlog.protocol.errors import Error
from fastlog.protocol.records import Codec, Record, build_batch, iter_batches
from tests.native import outside
from tests.native.batches import HOUR, NEVER, NOW, Rules, of_records, random_records, record, remake, simple, varint
from tests.native.spoil import spoiled
from tests.native.test_batch import BROKEN
from tests.native.test_batch_codecs import BAD, WAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.java
CODECS = list(Codec)


class Kafka:
    """KafkaOracle.java, running."""

    def __init__(self, classpath: str) -> None:
        source = Path(__file__).with_name("KafkaOracle.java")
        command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp", classpath, str(source)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, request: bytes) -> bytes:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(request)
        self.process.stdin.flush()
        (n,) = struct.unpack(">i", self.process.stdout.read(4))
        return self.process.stdout.read(n)

    def validate(self, batch: bytes | bytearray, rules: Rules | None = None, codec: int = -1) -> tuple[Error, bytes | None]:
        r = rules or Rules()
        numbers = struct.pack(
            ">qiqq??b", NOW, r.size_max, min(r.before_max_ms, NEVER), r.after_max_ms, r.log_append_time, r.keys_required, codec
        )
        answer = self.ask(b"v" + numbers + sized(bytes(batch)))
        code, n = struct.unpack_from(">hi", answer)
        return Error(code), None if n < 0 else answer[6:]

    def build(self, records: list[Record], codec: Codec, *, producer: tuple[int, int, int] = (-1, -1, -1), txn: bool = False) -> bytes:
        request = struct.pack(">bqhi?i", codec, *producer, txn, len(records))
        for r in records:
            request += struct.pack(">q", r.timestamp) + sized(r.key) + sized(r.value) + struct.pack(">i", len(r.headers))
            request += b"".join(sized(name.encode()) + sized(value) for name, value in r.headers)
        return self.ask(b"b" + request)[4:]

    def read(self, batches: bytes) -> list[Record] | Error:
        answer = self.ask(b"r" + sized(batches))
        (code,) = struct.unpack_from(">h", answer)
        return Error(code) if code else list(taken(answer))

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


def sized(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def taken(answer: bytes) -> Iterator[Record]:
    at = 6

    def take() -> bytes | None:
        nonlocal at
        (n,) = struct.unpack_from(">i", answer, at)
        at += 4 + max(0, n)
        return None if n < 0 else answer[at - n : at]

    for _ in range(struct.unpack_from(">i", answer, 2)[0]):
        offset, timestamp = struct.unpack_from(">qq", answer, at)
        at += 16
        key, value = take(), take()
        (count,) = struct.unpack_from(">i", answer, at)
        at += 4
        headers = tuple(((take() or b"").decode(), take()) for _ in range(count))
        yield Record(offset, timestamp, key, value, headers)


@pytest.fixture(scope="module")
def kafka(kafka_classpath: str) -> Iterator[Kafka]:
    oracle = Kafka(kafka_classpath)
    yield oracle
    oracle.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_batches_that_kafkas_client_wrote(kafka: Kafka, codec: Codec) -> None:
    chance = random.Random(codec)
    for count in (1, 7, 300, 3000):
        records = random_records(chance, count)
        data = kafka.build(records, codec, producer=(5, 2, 9), txn=True)
        assert native.check(bytearray(data), NOW)[0] == 0
        (batch,) = iter_batches(data)
        assert list(batch.records) == records
        assert (batch.codec, batch.transactional, batch.producer_id, batch.producer_epoch, batch.base_sequence) == (codec, True, 5, 2, 9)
        assert native.find_time(data, batch.max_timestamp) == next(
            (r.offset, r.timestamp) for r in records if r.timestamp == batch.max_timestamp
        )


@pytest.mark.parametrize("codec", CODECS)
def test_kafka_reads_what_we_build_and_recode(kafka: Kafka, codec: Codec) -> None:
    chance = random.Random(codec)
    for count in (1, 7, 3000):
        records = random_records(chance, count, 300)
        built = build_batch(records, timestamp_ms=NOW, codec=codec, base_offset=500)
        shifted = [Record(r.offset + 500, r.timestamp, r.key, r.value, r.headers) for r in records]
        assert kafka.read(built) == shifted
        for source in CODECS:
            code, _why, made = native.recode(build_batch(records, timestamp_ms=NOW, codec=source), codec=codec)
            assert code == 0
            assert kafka.read(made) == records


def test_our_encoding_is_kafkas(kafka: Kafka) -> None:
    for seed in range(20):
        records = random_records(random.Random(seed), 50)
        assert remake(build_batch(records, timestamp_ms=NOW), leader_epoch=-1) == kafka.build(records, Codec.NONE)


LYING_COUNTS = [(0, 0), (0, -1), (-1, -2), (2, 2), (4, 2), (3, 1), (4, 3), (2, 1), (2**31 - 1, 2**31 - 2)]


def variants() -> Iterable[tuple[str, bytes | bytearray, Rules]]:
    """Batches of every kind, right and wrong."""
    plain = Rules()
    for codec in CODECS:
        data = simple(3, codec=codec)
        wrong: list[dict[str, Any]] = [
            *(
                {"count": n, "last_offset_delta": m}
                for n, m in [(0, 0), (0, -1), (-1, -2), (2, 2), (4, 2), (3, 1), (4, 3), (2, 1), (2**31 - 1, 2**31 - 2)]
            ),
            *({"magic": m} for m in (0, 1, 3, -1)),
            *({"length": n} for n in (-1, 0, 13, 2**31 - 1, len(data) - 11)),
            {"base_offset": 1},
            {"crc": 1},
            {"leader_epoch": 9},
            {"attributes": codec | 0x20},
            {"attributes": codec | 0x10, "producer_id": 5, "base_sequence": 0},
            {"producer_id": 1, "base_sequence": -1},
            *({"max_timestamp": t} for t in (0, NOW - 1, NOW + 1, -1)),
            {"attributes": codec | 0x48 | 0x80},
        ]
        for fields in wrong:
            yield f"{codec.name} {fields}", remake(data, **fields), plain
            yield f"{codec.name} {fields} appended", remake(data, **fields), Rules(log_append_time=True)
        for n in (0, 11, 12, 16, 17, 60, 61, len(data) - 1):
            yield f"{codec.name} cut at {n}", data[:n], plain
        yield f"{codec.name} twice", data + data, plain
        yield f"{codec.name} size", data, Rules(size_max=len(data) - 1)
        yield f"{codec.name} keys", of_records(record(0) + record(1, None), 2, codec), Rules(keys_required=True)
        for at in (NOW + HOUR, NOW + HOUR + 1, -1, -2, 0, NEVER):
            body = record(0, None) + record(1, timestamp_delta=at - NOW)
            for rules in (plain, Rules(before_max_ms=10), Rules(log_append_time=True), Rules(keys_required=True)):
                yield f"{codec.name} time {at} {rules}", of_records(body, 2, codec, base_timestamp=NOW, max_timestamp=at), rules
        for claimed in (NOW, -1, NOW + HOUR + 1):
            for rules in (plain, Rules(log_append_time=True)):
                yield f"{codec.name} claims {claimed} {rules}", remake(data, attributes=codec | 0x08, max_timestamp=claimed), rules
        for name, body in BROKEN.items():
            yield f"{codec.name} {name}", of_records(body, 2, codec), plain
        yield f"{codec.name} nulls", of_records(varint(8) + b"\0\0\0" + varint(-7) + varint(-3) + b"\x80\x80\x00", 1, codec), plain


# Where this broker refuses what Kafka takes, or answers otherwise: see batch.pxd. (ours, Kafka's) by what is wrong with the batch.
UNDECIDED = (Error.INVALID_RECORD, Error.UNKNOWN_SERVER_ERROR)
TAKEN = (Error.INVALID_RECORD, Error.NONE)
OFFSETS = ("offset deltas from 1", "offset delta twice", "offset deltas backwards", "negative offset delta", "number of 35 bits")
LENGTHS = ("length too short", "length too long", "length of zero", "negative length", "length past the end")
DIFFERENT = {
    **{f"NONE {kind}": TAKEN for kind in OFFSETS},
    "NONE number of six bytes": UNDECIDED,
    "NONE garbage": UNDECIDED,
    **{f"{codec.name} {kind}": UNDECIDED for codec in CODECS[1:] for kind in OFFSETS},
    **{f"{codec.name} {kind}": TAKEN for codec in CODECS[1:] for kind in LENGTHS},
    **{
        f"{codec.name} {{'length': 2147483647}}{rules}": (Error.CORRUPT_MESSAGE, Error.UNKNOWN_SERVER_ERROR)
        for codec in CODECS
        for rules in ("", " appended")
    },
}


def test_every_rule(kafka: Kafka) -> None:
    different = {}
    for name, data, rules in variants():
        held = bytearray(data)
        code, _why, _info = native.check(held, NOW, **rules.given())
        theirs, made = kafka.validate(data, rules)
        if code != theirs:
            different[name] = (Error(code), theirs)
        elif made is not None:
            native.stamp(held, 0, 0)
            assert held == made, name
    assert different == DIFFERENT


def test_ways_of_compressing(kafka: Kafka) -> None:
    """What Kafka takes is taken, and what is refused here is refused there, but for what it does not look at."""
    body = record(0, b"k", bytes(range(256)) * 1000) + record(1)
    for name, (codec, pack) in WAYS.items():
        data = remake(of_records(body, 2), body=pack(body), attributes=codec)
        assert (kafka.validate(data)[0], native.check(data, NOW)[0]) == (Error.NONE, Error.NONE), name
    unread = {"lz4 with something behind", "lz4 frame twice", "gzip with something behind", "gzip with zeroes behind"}
    for name, (codec, packed) in BAD.items():
        data = remake(simple(1), body=packed, attributes=codec)
        if name in unread:
            inside = record(0)
            behind = {"lz4 frame twice": outside.lz4(inside), "gzip with zeroes behind": bytes(30)}.get(name, b"x")
            data = remake(data, body=outside.compress(inside, codec) + behind)
        assert native.check(bytearray(data), NOW)[0] == Error.CORRUPT_MESSAGE
        expected = {Error.NONE} if name in unread else {Error.UNKNOWN_SERVER_ERROR, Error.INVALID_RECORD}
        assert kafka.validate(data)[0] in expected, name


def test_spoiled_batches(kafka: Kafka) -> None:
    """What is taken here is taken there, with the same bytes; what is not, is refused there but for the known differences."""
    taken = 0
    for data, rules in spoiled(random.Random(20), 4000):
        held = bytearray(data)
        code, why, _info = native.check(held, NOW, **rules.given())
        theirs, made = kafka.validate(data, rules)
        if code == 0:
            native.stamp(held, 0, 0)
            assert (theirs, made) == (Error.NONE, bytes(held))
            taken += 1
        elif theirs is Error.NONE:
            assert why in {
                "the records' offsets are not 0, 1, 2, ...",
                "a record's lengths or counts don't add up",
                "a transactional batch without a producer id",
                "the records can't be decompressed",
                "more than one record batch, or something behind it",  # when it is less than one
            }, why
            if why == "a record's lengths or counts don't add up":
                assert data[22] & 7, "only in compressed records"
    assert taken > 100
