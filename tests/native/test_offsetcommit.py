"""OffsetCommit in compiled code against the codec: the same fields, records and answers in every version, and nothing read past an end."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from fastlog.coordinator.records import NO_TOPIC_ID, OffsetRecord, OffsetValue
from fastlog.native.offsetcommit import hold_commits, read_commit
from fastlog.native.offsetpack import pack_commit
from fastlog.protocol import DecodeError, EncodeError
from fastlog.protocol.messages import decode_request, encode_request, encode_response

KEY = 8
VERSIONS = range(2, 11)
NOW_MS = 1_700_000_000_000


def request(version: int, seed: int, topics: int = 4) -> dict[str, Any]:
    chance = random.Random(seed)
    texts = ["", "m", "ünter den Linden", "\U0001f600" * 3, "x" * 130]

    def partition() -> dict[str, Any]:
        made = {
            "partition_index": chance.choice([0, 7, -1, 2**31 - 1]),
            "committed_offset": chance.choice([-1, 0, 2**63 - 1]),
            "committed_metadata": chance.choice([None, *texts]),
        }
        return made | ({"committed_leader_epoch": chance.choice([-1, 9])} if version >= 6 else {})

    message: dict[str, Any] = {
        "group_id": chance.choice(["g", "gruppe-ü", "g" * 200]),
        "generation_id_or_member_epoch": chance.choice([-1, 0, 2**31 - 1]),
        "member_id": chance.choice(["", "member-1"]),
        "topics": [
            ({"topic_id": UUID(int=number + 1)} if version >= 10 else {"name": f"{'t' * chance.choice([1, 130])}{number}"})
            | {"partitions": [partition() for _ in range(chance.randrange(1, 8))]}
            for number in range(topics)
        ],
    }
    if version <= 4:
        message["retention_time_ms"] = chance.choice([-1, 60_000])
    if version >= 7:
        message["group_instance_id"] = chance.choice([None, "static"])
    return message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(10))
def test_it_is_what_the_codec_reads_packs_and_answers(version: int, seed: int) -> None:
    body = encode_request(KEY, version, request(version, seed))
    read = decode_request(KEY, version, body)
    commit = read_commit(version, memoryview(body))
    assert commit is not None
    assert commit.head == {name: read[name] for name in commit.head}
    names = [f"named-{at}" if version >= 10 else topic["name"] for at, topic in enumerate(read["topics"])]
    assert [topic[:2] for topic in commit.topics] == [
        ("", topic["topic_id"]) if version >= 10 else (topic["name"], NO_TOPIC_ID) for topic in read["topics"]
    ]
    for (_, _, least, greatest), topic in zip(commit.topics, read["topics"], strict=True):
        indexes = [partition["partition_index"] for partition in topic["partitions"]]
        assert (least, greatest) == (min(indexes), max(indexes))
    named = [topic | {"name": name} for topic, name in zip(read["topics"], names, strict=True)]
    asked: list[tuple[str, UUID, int]] = []
    expire_ms = NOW_MS + 60_000 if commit.head.get("retention_time_ms", -1) >= 0 else -1
    packed = commit.pack(names, NOW_MS, expire_ms, 4096, lambda *at: asked.append(at), OffsetRecord, OffsetValue)
    records, pairs, _ = pack_commit(read["group_id"], named, NOW_MS, expire_ms, 4096, 12, 0, None, OffsetRecord, OffsetValue)
    assert packed == (records, pairs)
    assert asked == [(record.topic, record.value.topic_id, record.partition) for record in records]
    for error in (0, 25):
        answers = [
            {
                "name": topic.get("name", ""),
                "topic_id": topic.get("topic_id", NO_TOPIC_ID),
                "partitions": [{"partition_index": each["partition_index"], "error_code": error} for each in topic["partitions"]],
            }
            for topic in read["topics"]
        ]
        assert commit.answer(error) == encode_response(KEY, version, {"topics": answers})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_unusual_is_left_to_the_codec(version: int) -> None:
    usual = request(version, 1)
    twice = usual | {"topics": [usual["topics"][0]] * 2}
    empty = usual | {"topics": [usual["topics"][0] | {"partitions": []}]}
    for unusual in (twice, empty, usual | {"topics": []}):
        assert read_commit(version, encode_request(KEY, version, unusual)) is None
    assert read_commit(version, encode_request(KEY, version, usual) + b"\0") is None
    long = request(version, 1) | {"topics": usual["topics"][:1]}
    long["topics"][0]["partitions"][0]["committed_metadata"] = "x" * 50
    commit = read_commit(version, encode_request(KEY, version, long))
    assert commit is not None
    assert commit.pack(["t"], NOW_MS, -1, 49, None, OffsetRecord, OffsetValue) is None
    assert commit.pack(["t"], NOW_MS, -1, 200, None, OffsetRecord, OffsetValue) is not None


def test_versions_that_it_does_not_know_are_left_to_others() -> None:
    assert read_commit(1, b"") is None
    assert read_commit(11, b"") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_spoilt_bodies_are_read_as_the_codec_does_or_not_at_all(version: int) -> None:
    chance = random.Random(version)
    body = encode_request(KEY, version, request(version, 3))
    for cut in range(len(body)):
        assert read_commit(version, body[:cut]) is None
    seen = 0
    for _ in range(2000):
        spoilt = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            spoilt[chance.randrange(len(spoilt))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        commit = read_commit(version, bytes(spoilt))
        if commit is None:
            continue
        seen += 1
        try:
            read = decode_request(KEY, version, bytes(spoilt))
        except DecodeError as why:
            raise AssertionError(f"read what the codec refuses: {spoilt.hex()}") from why
        assert commit.head == {name: read[name] for name in commit.head}
        assert len(commit.topics) == len(read["topics"])
        try:
            answered = encode_response(
                KEY,
                version,
                {
                    "topics": [
                        {
                            "name": topic.get("name", ""),
                            "topic_id": topic.get("topic_id", NO_TOPIC_ID),
                            "partitions": [{"partition_index": each["partition_index"], "error_code": 3} for each in topic["partitions"]],
                        }
                        for topic in read["topics"]
                    ]
                },
            )
        except EncodeError:
            continue
        assert len(commit.answer(3)) >= len(answered)  # a length may be spelled with more bytes than it needs
    assert seen > 100


def test_held_commits_are_counted_once() -> None:
    topics: dict[str, dict[int, OffsetValue]] = {}

    def record(topic: str, index: int, offset: int) -> OffsetRecord:
        return OffsetRecord("g", topic, index, OffsetValue(offset, -1, "", NOW_MS, -1, NO_TOPIC_ID))

    assert hold_commits(topics, [record("a", 0, 1), record("b", 0, 1), record("a", 1, 1), record("a", 0, 2)]) == 3
    assert hold_commits(topics, [record("a", 0, 5)]) == 0
    offsets = {name: {index: value.offset for index, value in held.items()} for name, held in topics.items()}
    assert offsets == {"a": {0: 5, 1: 1}, "b": {0: 1}}
