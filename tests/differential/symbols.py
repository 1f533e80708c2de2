"""Values of a request that a broker gives only while the sequence runs: named in the sequence, filled in for each broker apart.

A string may hold `§`, which stands for the run's token: every topic and group of a sequence has it in its name, so sequences and
brokers with a past do not disturb each other. All of it goes to JSON and back, for recordings.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from fastlog.protocol.records import Codec, Record, build_batch
from tests.native.batches import remake
from tests.native.spoil import spoil_bytes

TOKEN = "§"
NO_UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Ref:
    """What a broker answered before, by kind ("topic_id", "member", "member_epoch", "producer_id", "producer_epoch", "session") and name.

    `plus` is added to a number: an epoch of before, or one that is not there yet.
    """

    kind: str
    name: str
    plus: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A record batch. `fields` are header fields that say something else than is so; `spoiled`: a seed for bytes changed by chance."""

    count: int = 1
    codec: int = 0
    timestamp: int = 1_700_000_000_000
    producer: str | None = None
    epoch_plus: int = 0
    sequence: int = -1
    keyed: bool = True
    size: int = 8
    fields: dict[str, int] = field(default_factory=dict)
    spoiled: int | None = None
    repeat: int = 1

    def build(self, producer_id: int, producer_epoch: int) -> bytes:
        records = [
            Record(i, self.timestamp + i, b"key%d" % i if self.keyed else None, (b"value%d" % i).ljust(self.size, b"."), (("h", b"x"),))
            for i in range(self.count)
        ]
        made = build_batch(
            records,
            timestamp_ms=self.timestamp,
            codec=Codec(self.codec),
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=self.sequence,
        )
        if self.fields:
            changed: dict[str, Any] = dict(self.fields)
            made = bytes(remake(made, **changed))
        if self.spoiled is not None:
            made = spoil_bytes(random.Random(self.spoiled), made)
        return made * self.repeat


def to_json(value: Any) -> Any:
    match value:
        case dict():
            return {key: to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case bytes():
            return {"$bytes": value.hex()}
        case UUID():
            return {"$uuid": str(value)}
        case Ref():
            return {"$ref": [value.kind, value.name, value.plus]}
        case Batch():
            return {"$batch": asdict(value)}
    return value


def from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$bytes": given}:
            return bytes.fromhex(given)
        case {"$uuid": given}:
            return UUID(given)
        case {"$ref": [kind, name, plus]}:
            return Ref(kind, name, plus)
        case {"$batch": given}:
            return Batch(**given)
    return {key: from_json(item) for key, item in value.items()}


class Bindings:
    """What the names of a sequence are at one broker."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._values: dict[tuple[str, str], Any] = {}
        self._names: dict[Any, str] = {}

    def known(self, kind: str, name: str) -> bool:
        return (kind, name) in self._values

    def bind(self, kind: str, name: str, value: Any) -> None:
        """A value seen before keeps its name; a name may get a new value (a topic that was deleted and made again)."""
        self._values[kind, name] = value
        if kind in {"topic_id", "member"}:
            count = sum(1 for known in self._names.values() if known.startswith(f"<{kind} {name} "))
            self._names.setdefault(value, f"<{kind} {name} {count}>")
        elif kind in {"producer_id", "session"}:
            self._names.setdefault((kind, value), f"<{kind} {name}>")

    def fill(self, value: Any) -> Any:
        """The request with everything filled in. What nothing was bound to is a value that no broker gives out."""
        match value:
            case dict():
                return {key: self.fill(item) for key, item in value.items()}
            case list():
                return [self.fill(item) for item in value]
            case str():
                return value.replace(TOKEN, self.token)
            case Ref("producer_id" | "session", name, plus):
                return int(self._values.get((value.kind, name), 987_654)) + plus
            case Ref("producer_epoch" | "member_epoch", name, plus):
                return int(self._values.get((value.kind, name), 0)) + plus
            case Ref("topic_id", name):
                return self._values.get(("topic_id", name), UUID(int=0xFEED))
            case Ref():
                return self._values.get((value.kind, value.name), "nobody")
            case Batch():
                who = value.producer
                if who is None:
                    return value.build(-1, -1)
                producer_id = self._values.get(("producer_id", who), 987_654)
                return value.build(producer_id, self._values.get(("producer_epoch", who), 0) + value.epoch_plus)
        return value

    def number(self, kind: str, value: int) -> Any:
        """A producer id or session id as the sequence calls it."""
        if value in {-1, 0} and kind == "session":
            return value
        return self._names.get((kind, value), f"<{kind}>" if value >= 0 else value)

    def text(self, value: str) -> str:
        known = self._names.get(value)
        return known if known is not None else self._replaced(value)

    def _replaced(self, value: str) -> str:
        for given, name in self._names.items():
            if isinstance(given, str) and given in value:
                value = value.replace(given, name)
        return value.replace(self.token, TOKEN)

    def uuid(self, value: UUID) -> str:
        return "0" if value == NO_UUID else self._names.get(value, "<uuid>")
