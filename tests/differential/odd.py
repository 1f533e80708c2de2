"""Makes a good request odd: a field at a boundary, null, empty, doubled. What would only make both brokers wait is left alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.differential.loose import request_schema
from tests.differential.symbols import Batch, Ref

if TYPE_CHECKING:
    import random

    from fastlog.protocol.schema import Field

_BITS = {"int8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64}
# Waiting long, or a session that ends in the middle of a sequence, says nothing; an unknown operation makes Kafka's controller restart.
_LEFT_ALONE = {
    "max_wait_ms",
    "session_timeout_ms",
    "rebalance_timeout_ms",
    "timeout_ms",
    "min_bytes",
    "config_operation",
    "isolation_level",
    "last_fetched_epoch",
    "resource_type",
    "transactional_id",
}
# Of a Produce: Kafka drops the first of two batches for one partition, here both are stored; what follows would differ, too.
_KEPT_TWICE = {"topic_data", "partition_data"}
_NAMES = ["", ".", "..", "§a", "§nobody", "a b", "ä", "§x.y", "§x_y", "x" * 249, "x" * 250, "\0"]


def odd(key: int, version: int, message: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy of the message with one or two things changed."""
    made = copy.deepcopy(message)
    for _ in range(chance.choice([1, 1, 1, 2])):
        places = list(_places(request_schema(key).fields, version, made))
        if places:
            holder, field = chance.choice(places)
            holder[field.name] = _changed(field, version, holder.get(field.name, copy.deepcopy(field.default)), chance)
    return made


def _places(fields: tuple[Field, ...], version: int, message: dict[str, Any]) -> list[tuple[dict[str, Any], Field]]:
    found = []
    for field in fields:
        if version not in field.versions or field.name in _LEFT_ALONE or (field.name == "topics" and "session_id" in message):
            continue
        found.append((message, field))
        value = message.get(field.name)
        if field.type == "struct":
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    found += _places(field.fields, version, item)
    return found


def _changed(field: Field, version: int, value: Any, chance: random.Random) -> Any:
    nullable = field.nullable is not None and version in field.nullable
    if chance.random() < (0.25 if nullable else 0.06):
        return None
    if field.array:
        items = list(value or [])
        match chance.randrange(4):
            case 0:
                return []
            case 1 if items and field.name not in _KEPT_TWICE:
                return [*items, copy.deepcopy(chance.choice(items))]
            case 2 if items:
                return items[1:]
        return items[::-1]
    match field.type:
        case "bool":
            return not value
        case "string":
            return chance.choice(_NAMES if field.name != "group_id" else _NAMES[1:])
        case "uuid":
            return chance.choice([UUID(int=0), UUID(int=0xABCDEF), Ref("topic_id", "§b")])
        case "bytes":
            return chance.choice([b"", b"\0", b"\xff" * 20])
        case "records":
            if isinstance(value, Batch):
                return _other_batch(value, chance)
            return b""
        case "struct":
            return value
        case "float64":
            return chance.choice([-1.0, 0.0, 1e300])
    top = 1 << _BITS[field.type] - 1
    number = value if isinstance(value, int) else 0
    if field.name == "session_id":
        return chance.choice([0, 1, -1, number + 1, top - 1])  # one far below zero makes Kafka fail
    return chance.choice([0, 1, -1, -2, 2, 3, number + 1, number - 1, 100, top - 1, -top])


def _other_batch(batch: Batch, chance: random.Random) -> Any:
    said = {
        "base_offset": [0, 1, -1, 77],
        "length": [0, 49, 48, 1000, -1],
        "leader_epoch": [-1, 5],
        "magic": [0, 1, 3, -1],
        "crc": [0],
        "attributes": [5, 6, 7, 8, 16, 32, 48, 64],
        "last_offset_delta": [-1, 0, 1, 100, 2**31 - 1],
        "base_timestamp": [-1, -2, 0, 2**62],
        "max_timestamp": [-1, 0, 2**62],
        "producer_id": [-2, 0, 5],
        "producer_epoch": [-2, 0, 5],
        "base_sequence": [-2, -1, 0, 5, 2**31 - 1],
        "count": [-1, 0, 1, 2, 100, 2**31 - 1],
    }
    fields = dict(batch.fields)
    match chance.randrange(6):
        case 0:
            return b""
        case 1:
            return Batch(count=batch.count, codec=batch.codec, spoiled=chance.randrange(10_000))
        case 2:
            return Batch(count=batch.count, repeat=2)
        case 3:
            return Batch(count=1, timestamp=chance.choice([-1, 0, 1, 2**61]))
    name = chance.choice(list(said))
    fields[name] = chance.choice(said[name])
    return Batch(
        count=batch.count,
        codec=batch.codec,
        producer=batch.producer,
        epoch_plus=batch.epoch_plus,
        sequence=batch.sequence,
        keyed=batch.keyed,
        fields=fields,
    )
