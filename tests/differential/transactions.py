"""Producers with a transactional id: what is in a transaction, how it ends, who is fenced, what readers see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step, topic_id
from tests.differential.symbols import Batch, Ref

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step

_TRANSACTIONAL = 16
_TOPICS = ["§a", "§a", "§b", "§missing"]


class _Producer:
    """What a sequence knows of one transactional id: enough to be right most of the time."""

    def __init__(self, chance: random.Random, name: str) -> None:
        self.chance = chance
        self.name = name
        self.following: dict[tuple[str, int], int] = {}

    def who(self) -> dict[str, Any]:
        stale = self.chance.choice([0] * 10 + [-1, 1])
        names = {"transactional_id": self.chance.choice([f"§{self.name}"] * 12 + ["§nobody", "§other"])}
        return names | {"producer_id": Ref("producer_id", self.name), "producer_epoch": Ref("producer_epoch", self.name, stale)}

    def init(self, *, again: bool = False) -> Step:
        made: dict[str, Any] = {"transactional_id": f"§{self.name}", "transaction_timeout_ms": 60_000}
        if again:
            made["transaction_timeout_ms"] = self.chance.choice([60_000, 60_000, 0, -1, 2**31 - 1])
        if again and self.chance.random() < 0.5:
            made |= {k: v for k, v in self.who().items() if k != "transactional_id"}
            at_least = 3
        else:
            made |= {"producer_id": -1, "producer_epoch": -1}
            at_least = 0
        self.following.clear()
        return step("InitProducerId", self.chance, made, named=self.name, at_least=at_least, sane=True)

    def add(self) -> Step:
        topics = [
            {"name": n, "partitions": some(self.chance, [0, 1, 5] if n == "§a" else [0])}
            for n in some(self.chance, sorted(set(_TOPICS)), 2)
        ]
        who = self.who()
        message: dict[str, Any] = {f"v3_and_below_{key}": value for key, value in who.items()} | {"v3_and_below_topics": topics}
        message["transactions"] = [who | {"topics": topics, "verify_only": self.chance.random() < 0.5}]
        return step("AddPartitionsToTxn", self.chance, message)

    def offsets(self) -> Step:
        at = [
            {"partition_index": p, "committed_offset": self.chance.choice([1, 7, -1]), "committed_metadata": ""}
            for p in some(self.chance, [0, 1])
        ]
        topics = [{"name": n, "partitions": at} for n in some(self.chance, ["§a", "§missing"])]
        member = self.chance.choice([{}] * 6 + [{"generation_id": 1, "member_id": "x"}])
        return step("TxnOffsetCommit", self.chance, self.who() | {"group_id": "§g", "topics": topics} | member, at_least=3 if member else 0)

    def produce(self, *, low: int) -> Step:
        topic, index = self.chance.choice([("§a", 0), ("§a", 1), ("§b", 0)])
        at = self.following.get((topic, index), 0)
        count = self.chance.choice([1, 2])
        batch = Batch(count=count, producer=self.name, sequence=at, fields={"attributes": self.chance.choice([_TRANSACTIONAL] * 12 + [0])})
        self.following[topic, index] = at + count
        data = [{"name": topic, "topic_id": Ref("topic_id", topic), "partition_data": [{"index": index, "records": batch}]}]
        name = self.chance.choice([f"§{self.name}"] * 12 + [None, "§other"])
        message = {"transactional_id": name, "acks": -1, "timeout_ms": 10_000, "topic_data": data}
        return step("Produce", self.chance, message, at_least=low, sane=True)

    def end(self) -> Step:
        made = step("EndTxn", self.chance, self.who() | {"committed": self.chance.random() < 0.6}, named=self.name, sane=True)
        if made["version"] >= 5:
            self.following.clear()
        return made


def transactions(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 2, "§b": 1})
    producers = [_Producer(chance, "t"), _Producer(chance, "u")]
    for producer in producers:
        yield producer.init()
    for _ in range(length):
        producer = chance.choice([producers[0], producers[0], producers[0], producers[1]])
        match chance.randrange(16):
            case 0:
                yield producer.init(again=True)
            case 1 | 2:
                yield producer.add()
            case 3:
                yield step("AddOffsetsToTxn", chance, producer.who() | {"group_id": "§g"})
            case 4:
                yield producer.offsets()
            case 5 | 6 | 7 | 8:
                yield producer.produce(low=chance.choice([3, 12]))
            case 9 | 10:
                yield producer.end()
            case 11 | 12:
                yield _look(chance)
            case _:
                yield _question(chance)


def _look(chance: random.Random) -> Step:
    isolation = chance.choice([0, 1, 1])
    if chance.random() < 0.4:
        parts = [{"partition_index": p, "current_leader_epoch": -1, "timestamp": chance.choice([-1, -1, -2, -3])} for p in (0, 1)]
        message = {"replica_id": -1, "isolation_level": isolation, "topics": [{"name": "§a", "partitions": parts}], "timeout_ms": 1000}
        return step("ListOffsets", chance, message, at_least=2, sane=True)
    parts = [
        {
            "partition": p,
            "current_leader_epoch": -1,
            "fetch_offset": chance.choice([0, 0, 1, 3]),
            "log_start_offset": -1,
            "partition_max_bytes": 1 << 20,
        }
        for p in (0, 1)
    ]
    topics = [{"topic": "§a", "topic_id": Ref("topic_id", "§a"), "partitions": parts}]
    message = {"max_wait_ms": 0, "min_bytes": 0, "max_bytes": 1 << 20, "isolation_level": isolation, "topics": topics}
    return step("Fetch", chance, message, sane=True)


def _question(chance: random.Random) -> Step:
    match chance.randrange(4):
        case 0:
            return step("DescribeTransactions", chance, {"transactional_ids": some(chance, ["§t", "§u", "§nobody", ""])})
        case 1:
            states = chance.choice([[], [], ["Ongoing"], ["Empty", "CompleteCommit"], ["nonsense"]])
            ids = chance.choice([[], [], [Ref("producer_id", "t")]])
            pattern = chance.choice([None, None, ".*t", "nothing", "("])
            message = {"state_filters": states, "producer_id_filters": ids, "duration_filter": chance.choice([-1, -1, 0, 3_600_000])}
            return step("ListTransactions", chance, message | {"transactional_id_pattern": pattern})
        case 2:
            return step(
                "DescribeProducers",
                chance,
                {"topics": [{"name": n, "partition_indexes": [0, 1, 5]} for n in some(chance, ["§a", "§missing"])]},
            )
    asked = [{"name": n, "topic_id": topic_id(n, chance), "partition_indexes": [0, 1]} for n in ("§a",)]
    group = {"group_id": "§g", "member_id": None, "member_epoch": -1, "topics": asked}
    return step(
        "OffsetFetch", chance, {"group_id": "§g", "topics": asked, "groups": [group], "require_stable": chance.random() < 0.5}, at_least=7
    )
