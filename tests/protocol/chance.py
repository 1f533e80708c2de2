"""Messages made by chance from a schema: reproducible by their seed, within what every oracle can represent."""

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from fastlog.protocol import schema
from fastlog.protocol.schema import Field, Schema

RANGES = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
LETTERS = "abcXYZ019._-/ äß€𝄞\x7f"


def all_schemas() -> Iterator[tuple[str, Schema, int]]:
    """(file stem, schema, version) of every message in every version."""
    for path in sorted(schema.directory().glob("*.schema")):
        for found in schema.load(path).values():
            for version in range(found.versions.first, found.versions.last + 1):
                yield path.stem, found, version


def _integer(field: Field, chance: random.Random) -> int:
    low, high = RANGES[field.type]
    if field.name.endswith("error_code"):
        low, high = -1, 133
    elif field.type == "int64" and ("time" in field.name or field.name.endswith("_ms")):
        low, high = 0, 4_000_000_000_000  # an oracle makes a datetime of it
    choice = chance.random()
    if choice < 0.2:
        return low
    if choice < 0.4:
        return high
    return chance.randint(low, high) if choice < 0.7 else chance.randint(max(low, -1), min(high, 300))


def _scalar(field: Field, version: int, chance: random.Random) -> Any:
    match field.type:
        case "bool":
            return chance.random() < 0.5
        case "float64":
            return chance.choice([0.0, -1.5, 1e300, 0.1])
        case "uuid":
            return UUID(int=chance.getrandbits(128)) if chance.random() < 0.8 else UUID(int=0)
        case "string":
            # 126 to 128 bytes is where a varint grows
            return (
                "".join(chance.choices(LETTERS, k=chance.choice([0, 1, 5, 30])))
                if chance.random() < 0.95
                else "x" * chance.randint(126, 128)
            )
        case "bytes":
            return chance.randbytes(chance.choice([0, 1, 20, 127, 128, 300]))
        case "records":
            return None if field.nullable is not None and version in field.nullable else b""
        case "struct":
            return message(field.fields, version, chance)
    return _integer(field, chance)


def value(field: Field, version: int, chance: random.Random) -> Any:
    """A value that the field may have in the version."""
    choice = chance.random()
    if field.nullable is not None and version in field.nullable and choice < 0.2:
        return None
    if field.tag is not None and choice < 0.4:
        return field.default
    if field.array:
        return [_scalar(field, version, chance) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
    return _scalar(field, version, chance)


def message(fields: tuple[Field, ...], version: int, chance: random.Random) -> dict[str, Any]:
    """A message with all fields of the version."""
    return {field.name: value(field, version, chance) for field in fields if version in field.versions}


def filled(given: dict[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """The message as decoding gives it: with the defaults of what is missing."""
    made = {}
    for field in fields:
        found = given.get(field.name, field.default)
        if field.type == "struct" and found is not None:
            found = [filled(item, field.fields) for item in found] if field.array else filled(found, field.fields)
        made[field.name] = found
    return made
