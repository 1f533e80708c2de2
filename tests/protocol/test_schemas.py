"""The schema files against Kafka's facts, field by field and version by version: kio's types, and Kafka's own definitions in its jars."""

import dataclasses
import json
from types import NoneType
from typing import Any, get_args
from uuid import UUID

import pytest

from fastlog.protocol import messages, schema
from fastlog.protocol.schema import Field, Schema, SchemaError, Versions

from . import oracles
from .chance import all_schemas

MESSAGES = list(all_schemas())
needs_kafka = pytest.mark.skipif(not oracles.KAFKA.exists(), reason=f"no jars of Kafka in {oracles.KAFKA_LIBS}")

# kio's types for what is an integer on the wire.
WIDTHS = {"error_code": "int16", "timedelta_i32": "int32", "timedelta_i64": "int64", "datetime_i64": "int64"}


def test_every_served_api_has_its_schemas() -> None:
    assert len(messages.API_BY_KEY) == len({stem for stem, _, _ in MESSAGES if stem[0].isdigit()})
    for api in messages.API_BY_KEY.values():
        assert messages.API_BY_NAME[api.name] is api
        found = {name: entry for stem, entry, _ in MESSAGES if stem.startswith(f"{api.key:03}_") for name in [entry.name]}
        assert set(found) == {f"{api.name}Request", f"{api.name}Response"}


@pytest.mark.parametrize(
    ("found", "version"),
    [pytest.param(found, version, id=f"{found.name}-{version}") for _, found, version in MESSAGES if oracles.in_kio(found)],
)
def test_fields_are_those_of_kio(found: Schema, version: int) -> None:
    theirs = oracles.kio_type(found.name, version)
    assert theirs.__flexible__ == (found.flexible is not None and version >= found.flexible)
    compare_with_kio(found.fields, version, theirs)


def compare_with_kio(fields: tuple[Field, ...], version: int, theirs: Any) -> None:
    ours = oracles.present(fields, version)
    assert [field.name.removesuffix("_ms") for field in ours] == [field.name.removesuffix("_ms") for field in dataclasses.fields(theirs)]
    for field, their in zip(ours, dataclasses.fields(theirs), strict=True):
        # a UUID is never null on the wire: None is kio's zero UUID, and -1 its missing time
        kafka_type = their.metadata.get("kafka_type", "struct")
        optional = NoneType in get_args(their.type) and kafka_type not in {"uuid", "datetime_i64"}
        array = get_args(their.type)[-1:] == (...,) or any(get_args(part)[-1:] == (...,) for part in get_args(their.type))
        assert WIDTHS.get(kafka_type, kafka_type) == field.type, field.name
        assert array == field.array, field.name
        assert optional == (field.nullable is not None and version in field.nullable), field.name
        assert their.metadata.get("tag") == field.tag, field.name
        if their.default is not dataclasses.MISSING:
            assert oracles.kio_value(field.default, field, version, their) == their.default, field.name
        if field.type == "struct":
            compare_with_kio(field.fields, version, oracles.kio_inner(their.type))


def in_range(text: str | None, outer: Versions) -> Versions | None:
    """Kafka's notation of versions, cut to those of the message."""
    if text is None or text == "none":
        return None
    first, dash, last = text.partition("-")
    low = int(first.removesuffix("+"))
    high = outer.last if first.endswith("+") else int(last) if dash else low
    low, high = max(low, outer.first), min(high, outer.last)
    return Versions(low, high) if low <= high else None


def kafka_default(field: dict[str, Any], fields: tuple[Field, ...]) -> Any:
    kind, default = field["type"], field.get("default", "")
    if default == "null" or kind == "records":
        return None
    if kind.startswith("[]"):
        return []
    if kind[0].isupper():
        return {inner.name: inner.default for inner in fields}
    match kind:
        case "bool":
            return default is True or default == "true"
        case "string" | "bytes":
            return default if kind == "string" else b""
        case "uuid":
            return UUID(int=0)
    return int(str(default), 0) if default != "" else 0


@needs_kafka
@pytest.mark.parametrize("found", {found.name: found for _, found, _ in MESSAGES}.values(), ids=lambda found: found.name)
def test_fields_are_those_of_kafka(found: Schema) -> None:
    """What kio does not say too: versions as ranges, `ignorable`, and what the group coordinator stores."""
    definition = json.loads(oracles.kafka_definition(oracles.kafka_name(found)))
    versions = in_range(definition["validVersions"], Versions(0, 99))
    assert versions is not None
    if definition["type"] == "coordinator-key":
        # Kafka 4 numbers these by their type, which stands where the version stood; ours do too, and 0 is the older name of 1
        assert (versions.last, found.versions.last) == (0, definition["apiKey"])
        versions = Versions(0, 0)
        found = found._replace(versions=versions, fields=tuple(f._replace(versions=versions) for f in found.fields))
    elif definition.get("latestVersionUnstable") or (found.name == "InitProducerIdResponse" and versions.last == 6):
        versions = Versions(versions.first, versions.last - 1)
    assert found.versions == versions
    flexible = in_range(definition["flexibleVersions"], versions)
    assert found.flexible == (flexible.first if flexible else None)
    compare_with_kafka(found.fields, definition["fields"], {s["name"]: s["fields"] for s in definition.get("commonStructs", [])}, versions)


def compare_with_kafka(fields: tuple[Field, ...], theirs: list[dict[str, Any]], shared: dict[str, Any], outer: Versions) -> None:
    theirs = [{"versions": their.get("taggedVersions")} | their for their in theirs]
    theirs = [their for their in theirs if in_range(their["versions"], outer) is not None]
    assert [field.name for field in fields] == [oracles.snake(their["name"]) for their in theirs]
    for field, their in zip(fields, theirs, strict=True):
        kind = their["type"].removeprefix("[]")
        versions = in_range(their["versions"], outer)
        assert versions is not None
        assert field.versions == versions, field.name
        assert field.array == their["type"].startswith("[]"), field.name
        assert field.type == ("struct" if kind[0].isupper() else kind), field.name
        assert field.nullable == in_range(their.get("nullableVersions"), versions), field.name
        assert field.tag == their.get("tag"), field.name
        assert field.classic == (their.get("flexibleVersions") == "none"), field.name
        assert field.ignorable == their.get("ignorable", False), field.name
        if field.type == "struct":
            compare_with_kafka(field.fields, their.get("fields") or shared[kind], shared, versions)
        assert field.default == kafka_default(their, field.fields), field.name


def test_header_versions() -> None:
    metadata, api_versions, offset_delete = (messages.API_BY_NAME[name] for name in ("Metadata", "ApiVersions", "OffsetDelete"))
    assert [metadata.request_header_version(version) for version in (0, 8, 9, 13)] == [1, 1, 2, 2]
    assert [metadata.response_header_version(version) for version in (0, 8, 9, 13)] == [0, 0, 1, 1]
    assert [api_versions.request_header_version(version) for version in (0, 2, 3, 4)] == [1, 1, 2, 2]
    assert [api_versions.response_header_version(version) for version in (0, 2, 3, 4)] == [0, 0, 0, 0]
    assert (offset_delete.request_header_version(0), offset_delete.response_header_version(0)) == (1, 0)


def test_what_is_advertised_is_what_is_served_but_for_three() -> None:
    """Produce is advertised from version 0 on for librdkafka; the two telemetry APIs are not advertised, as on Kafka without a plugin."""
    produce = messages.API_BY_NAME["Produce"]
    assert (produce.versions, produce.advertised) == ((3, 13), (0, 13))
    assert [produce.serves(version) for version in (2, 3, 13, 14)] == [False, True, True, False]
    telemetry = {messages.API_BY_NAME[name].key for name in ("GetTelemetrySubscriptions", "PushTelemetry")}
    assert {key for key, api in messages.API_BY_KEY.items() if api.advertised is None} == telemetry
    assert all(api.advertised == api.versions for api in messages.API_BY_KEY.values() if api.key not in {produce.key, *telemetry})


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("  name: string", "line 1: a field before any block"),
        ("data x versions 0\n   name: string", "line 2: indented by 3 spaces"),
        ("data x versions 0\n    name: string", "line 2: indented too far"),
        ("data x versions 0\n  name string", "line 2: 'name string' is not a field"),
        ("data x versions 0\n  name: text", "line 2: unknown type 'text'"),
        ("data x versions 0\n  name: string\n  name: string", "line 3: name is already there"),
        ("data x versions 0-3\n  name: string 2-4", "line 2: versions 2-4 lie outside 0-3"),
        ("data x versions 0-3\n  inner: struct 2+\n    name: string 1", "line 3: versions 1 lie outside 2-3"),
        ("data x versions 0-3\n  name: string tag 0", "line 2: tagged in a version that is not flexible"),
        ("data x versions 0-3 flexible 2+\n  name: string tag 0", "line 2: tagged in a version that is not flexible"),
        ("data x versions 0\n  name: string = null", "line 2: null is the default of a field that is never null"),
        ("data x versions 0\n  name: bool = 3", "line 2: '3' cannot be the default of bool"),
        ("data x versions 0\n  name: string optional", "line 2: unexpected 'optional'"),
        ("request\n  name: string", "line 1: unexpected 'request'"),
        ("data x\n  name: string", "names no versions"),
        ("data x versions 0 since 3\n  name: string", "unknown options"),
    ],
)
def test_syntax_errors_say_where(lines: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why.replace("(", r"\(")):
        schema.parse(lines)


def test_syntax() -> None:
    found = schema.parse(
        "# comment\n"
        "struct Pair\n  left: int32 = -1\n  right: string 1+ nullable = null   # another\n"
        "data x versions 0-3 flexible 2+\n"
        "  pairs: []Pair 0-2 ignorable\n"
        "  one: Pair 3 tag 7\n"
        "  plain: bytes nullable 1-2 classic\n"
    )["x"]
    pairs, one, plain = found.fields
    assert (pairs.array, pairs.versions, pairs.ignorable, pairs.default) == (True, Versions(0, 2), True, [])
    assert [(field.name, field.versions) for field in pairs.fields] == [("left", Versions(0, 2)), ("right", Versions(1, 2))]
    assert (one.tag, one.default) == (7, {"left": -1, "right": None})
    assert (plain.nullable, plain.classic, plain.default) == (Versions(1, 2), True, b"")
