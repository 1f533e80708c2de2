"""Keys and values as Kafka 4.3's GroupCoordinatorRecordHelpers and GroupCoordinatorRecordSerde write them, and reading of all versions."""

import random
from uuid import UUID

import pytest

from fastlog.coordinator.records import NO_TOPIC_ID, CoordinatorRecord, GroupRecord, OffsetRecord, OffsetValue, decode, encode
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import encode_data
from fastlog.protocol.packing import pack_commit

MEMBERS = [
    {
        "member_id": "static-1-bbbb",
        "group_instance_id": "static-1",
        "client_id": "client-2",
        "client_host": "/10.0.0.9",
        "rebalance_timeout": 300_000,
        "session_timeout": 10_000,
        "subscription": b"range-meta",
        "assignment": b"",
    },
    {
        "member_id": "client-1-aaaa",
        "group_instance_id": None,
        "client_id": "client-1",
        "client_host": "/127.0.0.1",
        "rebalance_timeout": 60_000,
        "session_timeout": 45_000,
        "subscription": b"range-meta",
        "assignment": b"one",
    },
]
GOLDEN: list[tuple[CoordinatorRecord, str, str | None]] = [
    (
        OffsetRecord(
            "orders-app",
            "orders",
            7,
            OffsetValue(123456789, 3, "meta", 1_700_000_000_000, -1, UUID("01234567-89ab-cdef-1122-334455667788")),
        ),
        "0001000a6f72646572732d61707000066f726465727300000007",
        "000400000000075bcd1500000003056d6574610000018bcfe568000100100123456789abcdef1122334455667788",
    ),
    (
        OffsetRecord("g", "t", 0, OffsetValue(0, -1, "", 1, -1, NO_TOPIC_ID)),
        "000100016700017400000000",
        "00040000000000000000ffffffff01000000000000000100",
    ),
    (
        OffsetRecord("g", "t", 1, OffsetValue(42, 5, "naïve", 1000, 2000, NO_TOPIC_ID)),
        "000100016700017400000001",
        "0001000000000000002a00066e61c3af766500000000000003e800000000000007d0",
    ),
    (OffsetRecord("g", "t", 1, None), "000100016700017400000001", None),
    (GroupRecord("g", None), "0002000167", None),
    (
        GroupRecord(
            "payments",
            {
                "protocol_type": "consumer",
                "generation": 4,
                "protocol": "range",
                "leader": "client-1-aaaa",
                "current_state_timestamp": 1_700_000_000_123,
                "members": MEMBERS,
            },
        ),
        "000200087061796d656e7473",
        (
            "00030008636f6e73756d657200000004000572616e6765000d636c69656e742d312d616161610000018bcfe5687b00000002000d7374617469632d312d62626262"
            "00087374617469632d310008636c69656e742d3200092f31302e302e302e39000493e0000027100000000a72616e67652d6d65746100000000000d636c69656e74"
            "2d312d61616161ffff0008636c69656e742d31000a2f3132372e302e302e310000ea600000afc80000000a72616e67652d6d657461000000036f6e65"
        ),
    ),
    (
        GroupRecord(
            "payments",
            {
                "protocol_type": "consumer",
                "generation": 5,
                "protocol": None,
                "leader": None,
                "current_state_timestamp": 1_700_000_000_999,
                "members": [],
            },
        ),
        "000200087061796d656e7473",
        "00030008636f6e73756d657200000005ffffffff0000018bcfe56be700000000",
    ),
]


@pytest.mark.parametrize(("record", "key", "value"), GOLDEN)
def test_as_kafka_writes_them(record: CoordinatorRecord, key: str, value: str | None) -> None:
    encoded_key, encoded_value = encode(record)
    assert encoded_key.hex() == key
    assert (None if encoded_value is None else encoded_value.hex()) == value


@pytest.mark.parametrize(("record", "key", "value"), GOLDEN)
def test_read_back(record: CoordinatorRecord, key: str, value: str | None) -> None:
    decoded = decode(bytes.fromhex(key), None if value is None else bytes.fromhex(value))
    if isinstance(record, OffsetRecord) and record.value is not None and record.value.expire_ms != -1:
        # The version with an expiry has no leader epoch.
        record = record._replace(value=record.value._replace(leader_epoch=-1))
    assert decoded == record


@pytest.mark.parametrize("version", range(5))
def test_reads_every_version_of_an_offset(version: int) -> None:
    fields = {"offset": 9, "leader_epoch": 2, "metadata": "m", "commit_timestamp": 5, "expire_timestamp": 6}
    key = b"\x00\x00" + encode_data("offset_commit_key", 0, {"group": "g", "topic": "t", "partition": 3})
    decoded = decode(key, version.to_bytes(2) + encode_data("offset_commit_value", version, fields))
    epoch = 2 if version >= 3 else -1
    expiry = 6 if version == 1 else -1
    assert decoded == OffsetRecord("g", "t", 3, OffsetValue(9, epoch, "m", 5, expiry, NO_TOPIC_ID))


@pytest.mark.parametrize("version", range(5))
def test_reads_every_version_of_a_group(version: int) -> None:
    fields = {
        "protocol_type": "consumer",
        "generation": 4,
        "protocol": "range",
        "leader": "client-1-aaaa",
        "current_state_timestamp": 77,
        "members": MEMBERS,
    }
    decoded = decode(
        b"\x00\x02" + encode_data("group_metadata_key", 2, {"group": "g"}),
        version.to_bytes(2) + encode_data("group_metadata_value", version, fields),
    )
    assert isinstance(decoded, GroupRecord)
    assert decoded.value is not None
    assert decoded.value["current_state_timestamp"] == (77 if version >= 2 else -1)
    member = decoded.value["members"][0]
    assert member["rebalance_timeout"] == (300_000 if version >= 1 else 10_000)  # else its session time-out
    assert member["group_instance_id"] == ("static-1" if version >= 3 else None)


@pytest.mark.parametrize("expire_ms", [-1, 2**62])
def test_a_commit_is_packed_as_the_schemas_say(expire_ms: int) -> None:
    chance = random.Random(7)
    texts = ["", "plain", "naïve", "\U0001f600" * 3, "x" * 126, "x" * 127, "x" * 20_000]
    topics = [
        {
            "name": f"topic-{chance.choice(texts[:3])}-{number}",
            "topic_id": chance.choice([NO_TOPIC_ID, UUID(int=chance.getrandbits(128))]),
            "partitions": [
                {
                    "partition_index": chance.choice([0, 1, 2**31 - 1]),
                    "committed_offset": chance.choice([-1, 0, 2**63 - 1, chance.getrandbits(40)]),
                    "committed_leader_epoch": chance.choice([-1, 0, 9]),
                    "committed_metadata": chance.choice([None, *texts]),
                }
                for _ in range(chance.randrange(8))
            ],
        }
        for number in range(20)
    ]
    asked: list[tuple[str, UUID, int]] = []
    records, pairs, answered = pack_commit(
        "gruppe-ü", topics, 1_700_000_000_000, expire_ms, 126, 12, 0, lambda *at: asked.append(at), OffsetRecord, OffsetValue
    )
    assert all(type(record) is OffsetRecord and type(record.value) is OffsetValue for record in records)
    assert pairs == [encode(record) for record in records]
    assert asked == [(record.topic, record.value.topic_id, record.partition) for record in records]
    given = [(topic, each) for topic in topics for each in topic["partitions"]]  # type: ignore[attr-defined]
    long = [len(each["committed_metadata"] or "") + 3 * ("\U0001f600" in (each["committed_metadata"] or "")) > 126 for _, each in given]
    assert [each["error_code"] for topic in answered for each in topic["partitions"]] == [12 if much else 0 for much in long]
    assert [(record.topic, record.partition, record.value.offset, record.value.metadata) for record in records] == [
        (topic["name"], each["partition_index"], each["committed_offset"], each["committed_metadata"] or "")
        for (topic, each), much in zip(given, long, strict=True)
        if not much
    ]
    assert any(long)


def test_a_refused_partition_ends_a_commit() -> None:
    def check(*_: object) -> None:
        raise KafkaError(Error.STALE_MEMBER_EPOCH)

    at = {"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}
    with pytest.raises(KafkaError):
        pack_commit("g", [{"name": "t", "partitions": [at]}], 1, -1, 10, 12, 0, check, OffsetRecord, OffsetValue)
    with pytest.raises(ValueError, match="more than 32767"):
        pack_commit("g", [{"name": "t" * 40_000, "partitions": [at]}], 1, -1, 10, 12, 0, None, OffsetRecord, OffsetValue)


def test_other_kinds_are_left_alone() -> None:
    assert decode(b"\x00\x09anything", b"at all") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", None),
        (b"\x00", None),
        (b"\x00\x01\x00\x05g", None),
        (b"\x00\x02\x00\x01g", b"\x00"),
        (b"\x00\x02\x00\x01g", b"\x00\x09rest"),
        (b"\x00\x02\x00\x01g", b"\x00\x03\x00"),
    ],
)
def test_unreadable(key: bytes, value: bytes | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        decode(key, value)
