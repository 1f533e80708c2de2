"""Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords: what is in a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step, topic_id
from tests.differential.symbols import NO_UUID, Batch, Ref

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step

_TOPICS = ["§a", "§a", "§b", "§c", "§missing"]
_EPOCHS = [-1, -1, -1, 0, 1, 5]
_OFFSETS = [0, 0, 1, 2, 3, 5, 10, 100, -1]


def log(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 2, "§b": 1})
    yield create(
        {"§c": 1},
        {"cleanup.policy": "compact", "max.message.bytes": "400", "message.timestamp.type": chance.choice(["CreateTime", "LogAppendTime"])},
    )
    for _ in range(length):
        match chance.randrange(10):
            case 0 | 1 | 2:
                yield _produce(chance, _batch(chance))
            case 3 | 4 | 5:
                yield _fetch(chance)
            case 6 | 7:
                yield _list_offsets(chance)
            case 8:
                yield _epochs(chance)
            case _:
                topics = [
                    {"name": n, "partitions": [{"partition_index": p, "offset": chance.choice(_OFFSETS)} for p in _partitions(chance)]}
                    for n in some(chance, sorted(set(_TOPICS)))
                ]
                yield step("DeleteRecords", chance, {"topics": topics, "timeout_ms": 10_000})


def _partitions(chance: random.Random) -> list[int]:
    return some(chance, chance.choice([[0], [0, 1], [0, 1, 2]]), 2)


def _batch(chance: random.Random, **more: Any) -> Batch:
    return Batch(
        count=chance.choice([1, 1, 2, 5]),
        codec=chance.randrange(5),
        timestamp=1_700_000_000_000 + chance.randrange(1000) * 1000,
        keyed=chance.random() < 0.8,
        size=chance.choice([8, 8, 100]),
        **more,
    )


def _produce(chance: random.Random, batch: Any, *, topic: str | None = None, partition: int | None = None) -> Step:
    names = [topic] if topic else some(chance, sorted(set(_TOPICS)), 2)
    data = []
    for name in names:
        parts = [partition] if partition is not None else _partitions(chance)
        data.append({"name": name, "topic_id": topic_id(name, chance), "partition_data": [{"index": p, "records": batch} for p in parts]})
    message = {"transactional_id": None, "acks": chance.choice([1, 1, -1, -1, 0]), "timeout_ms": 10_000, "topic_data": data}
    return step("Produce", chance, message)


def _fetch_partition(chance: random.Random, index: int) -> dict[str, Any]:
    return {
        "partition": index,
        "current_leader_epoch": chance.choice(_EPOCHS),
        "fetch_offset": chance.choice(_OFFSETS),
        "log_start_offset": -1,
        "partition_max_bytes": chance.choice([1, 100, 1 << 20]),
    }


def _fetch_topics(chance: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "topic": name,
            "topic_id": topic_id(name, chance),
            "partitions": [_fetch_partition(chance, p) for p in _partitions(chance)],
        }
        for name in some(chance, sorted(set(_TOPICS)), 2)
    ]


def _fetch(chance: random.Random, **more: Any) -> Step:
    message = {
        "max_wait_ms": 0,
        "min_bytes": 0,
        "max_bytes": chance.choice([1, 300, 1 << 20]),
        "isolation_level": chance.choice([0, 1]),
        "topics": _fetch_topics(chance),
    }
    return step("Fetch", chance, message | more)


def _list_offsets(chance: random.Random) -> Step:
    topics = []
    for name in some(chance, sorted(set(_TOPICS)), 2):
        parts = []
        for index in _partitions(chance):
            at = chance.choice([-1, -1, -2, -2, -3, -4, -5, -6, -7, 0, 1_700_000_000_000, 1_700_000_500_001, 2**60])
            parts.append({"partition_index": index, "current_leader_epoch": chance.choice(_EPOCHS), "timestamp": at})
        topics.append({"name": name, "partitions": parts})
    message = {
        "replica_id": chance.choice([-1, -1, -1, -2]),
        "isolation_level": chance.choice([0, 1]),
        "topics": topics,
        "timeout_ms": 1000,
    }
    return step("ListOffsets", chance, message)


def _epochs(chance: random.Random) -> Step:
    topics = []
    for name in some(chance, sorted(set(_TOPICS)), 2):
        parts = [
            {"partition": p, "current_leader_epoch": chance.choice(_EPOCHS), "leader_epoch": chance.choice([0, 0, 1, -1, 7])}
            for p in _partitions(chance)
        ]
        topics.append({"topic": name, "partitions": parts})
    return step("OffsetForLeaderEpoch", chance, {"replica_id": chance.choice([-1, -2]), "topics": topics})


def idempotent(chance: random.Random, length: int) -> Iterator[Step]:
    """Producers with ids: sequences that go on, repeat, jump, with epochs of before and of later."""
    yield create({"§a": 2, "§b": 1})
    nothing = {"transactional_id": None, "transaction_timeout_ms": 1000, "producer_id": -1, "producer_epoch": -1}
    for name in ("p", "q"):
        yield step("InitProducerId", chance, nothing, named=name, sane=True)
    following: dict[tuple[str, int], int] = {}
    for _ in range(length):
        who = chance.choice(["p", "p", "q"])
        partition = chance.randrange(2)
        at = following.get((who, partition), 0)
        choice = chance.random()
        if choice < 0.1:
            again = nothing | {
                "producer_id": Ref("producer_id", who),
                "producer_epoch": Ref("producer_epoch", who, chance.choice([0, 0, -1, 1])),
            }
            yield step("InitProducerId", chance, chance.choice([again, nothing]), at_least=3, named=who, sane=True)
            following = {key: value for key, value in following.items() if key[0] != who}
        elif choice < 0.25:
            yield _fetch(chance)
        else:
            jump = chance.choice([0, 0, 0, 0, 0, -1, -2, 1, 5])
            batch = _batch(chance, producer=who, sequence=max(0, at + jump), epoch_plus=chance.choice([0, 0, 0, 0, 0, 0, 1]))
            if jump == 0 and batch.epoch_plus == 0:
                following[who, partition] = at + batch.count
            made = _produce(chance, batch, topic="§a", partition=partition)
            made["message"]["acks"] = chance.choice([-1, -1, -1, -1, -1, 1])
            made["message"]["topic_data"][0]["topic_id"] = Ref("topic_id", "§a")
            yield made | {"sane": chance.random() < 0.8}


def sessions(chance: random.Random, length: int) -> Iterator[Step]:
    """Incremental fetch sessions (KIP-227): right epochs and wrong ones, partitions added, forgotten, deleted."""
    yield create({"§a": 3, "§b": 1})
    for index in range(3):
        yield _produce(chance, _batch(chance), topic="§a", partition=index) | {"sane": True}
    version = chance.randint(7, 18)
    epoch = 0
    everything = [
        {"topic": "§a", "topic_id": Ref("topic_id", "§a"), "partitions": [_sane(p) for p in range(3)]},
        {"topic": "§b", "topic_id": Ref("topic_id", "§b"), "partitions": [_sane(0)]},
    ]
    opened = {"max_wait_ms": 0, "min_bytes": 0, "max_bytes": 1 << 20, "session_id": 0, "session_epoch": 0, "topics": everything}
    yield {"api": "Fetch", "version": version, "message": opened, "as": "s", "sane": True}
    for _ in range(length):
        choice = chance.random()
        if choice < 0.25:
            yield _produce(chance, _batch(chance), topic=chance.choice(["§a", "§b"]), partition=0) | {"conn": 1}
            continue
        if choice < 0.3:
            name = chance.choice(["§b", "§a"])
            topics = [{"name": name, "topic_id": NO_UUID}]
            yield step("DeleteTopics", chance, {"topics": topics, "topic_names": [name], "timeout_ms": 30_000}, sane=True)
            continue
        epoch += 1
        wrong = chance.random()
        said = epoch if wrong < 0.8 else chance.choice([0, -1, epoch + 1, epoch - 1])
        forgotten = [{"topic": "§a", "topic_id": Ref("topic_id", "§a"), "partitions": [chance.choice([0, 1, 2, 7])]}]
        message = {
            "max_wait_ms": 0,
            "min_bytes": 0,
            "max_bytes": 1 << 20,
            "session_id": Ref("session", "s") if wrong < 0.95 else chance.choice([0, 12345]),
            "session_epoch": said,
            "topics": _fetch_topics(chance) if chance.random() < 0.4 else [],
            "forgotten_topics_data": forgotten if chance.random() < 0.2 else [],
        }
        if said != epoch or wrong >= 0.95:
            yield {"api": "Fetch", "version": version, "message": message, "sane": True}
            opened = dict(opened)
            yield {"api": "Fetch", "version": version, "message": opened, "as": "s", "sane": True}
            epoch = 0
        else:
            other = version if chance.random() < 0.9 else chance.randint(7, 18)
            yield {"api": "Fetch", "version": other, "message": message, "sane": True}


def _sane(index: int) -> dict[str, Any]:
    return {"partition": index, "current_leader_epoch": -1, "fetch_offset": 0, "log_start_offset": -1, "partition_max_bytes": 1 << 20}
