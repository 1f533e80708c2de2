"""Other implementations of the protocol, and how their types map to our messages.

Kafka's jars are looked for in $FASTLOG_KAFKA_HOME/libs, by default where ci/bootstrap puts them.
"""

import base64
import dataclasses
import os
import re
import sys
import zipfile
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import kio.index
from kio.schema.errors import ErrorCode
from kio.serial.readers import tz_aware_from_i64
from kio.static.constants import EntityType
from kio.static.primitive import i32Timedelta, i64Timedelta

from fastlog.protocol.schema import Field, Schema

KAFKA_LIBS = Path(os.environ.get("FASTLOG_KAFKA_HOME", Path(sys.prefix) / "share/kafka")) / "libs"
KAFKA = KAFKA_LIBS / "kafka-clients-4.3.0.jar"
KAFKA_GROUPS = KAFKA_LIBS / "kafka-group-coordinator-4.3.0.jar"
KAFKA_TRANSACTIONS = KAFKA_LIBS / "kafka-transaction-coordinator-4.3.0.jar"
KAFKA_METADATA = KAFKA_LIBS / "kafka-metadata-4.3.0.jar"

GROUP_LOG = tuple(
    f"{name}_{part}"
    for part in ("key", "value")
    for name in (
        "offset_commit",
        "group_metadata",
        "consumer_group_metadata",
        "consumer_group_partition_metadata",
        "consumer_group_member_metadata",
        "consumer_group_target_assignment_metadata",
        "consumer_group_target_assignment_member",
        "consumer_group_current_member_assignment",
        "consumer_group_regular_expression",
    )
)
TRANSACTION_LOG = ("transaction_log_key", "transaction_log_value")
METADATA_LOG = (
    "topic_record",
    "partition_record",
    "config_record",
    "partition_change_record",
    "remove_topic_record",
    "user_scram_credential_record",
    "remove_user_scram_credential_record",
    "client_quota_record",
    "producer_ids_record",
)


def snake(name: str) -> str:
    """Kafka's names as ours."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    """Our names as Kafka's in JSON."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def in_kio(found: Schema) -> bool:
    """kio has the client's messages, not what coordinators and controllers store."""
    return found.name not in (*GROUP_LOG, *TRANSACTION_LOG, *METADATA_LOG)


@cache
def kio_type(name: str, version: int) -> Any:
    kind: Any = EntityType.data
    if name.endswith("_header"):
        kind = EntityType.header
    elif name.endswith("Request"):
        name, kind = snake(name.removesuffix("Request")), EntityType.request
    elif name.endswith("Response"):
        name, kind = snake(name.removesuffix("Response")), EntityType.response
    return kio.index.load_entity_schema(name, version, kind)


def present(fields: tuple[Field, ...], version: int) -> list[Field]:
    return [field for field in fields if version in field.versions]


def _to_kio(value: Any, field: Field, version: int, there: Any) -> Any:
    if value is None:
        return None
    if field.type == "struct":
        return to_kio(value, field.fields, version, there)
    match there:
        case "error_code":
            return ErrorCode(value)
        case "timedelta_i32":
            return i32Timedelta.parse(timedelta(milliseconds=value))
        case "timedelta_i64":
            return i64Timedelta.parse(timedelta(milliseconds=value))
        case "datetime_i64":
            return None if value == -1 else tz_aware_from_i64(value)
        case "uuid":
            return value if value.int else None
    return value


def kio_value(value: Any, field: Field, version: int, theirs: dataclasses.Field[Any]) -> Any:
    """A field's value as kio's field of it holds it."""
    there = kio_inner(theirs.type) if field.type == "struct" else theirs.metadata["kafka_type"]
    if field.array and value is not None:
        return tuple(_to_kio(item, field, version, there) for item in value)
    return _to_kio(value, field, version, there)


def to_kio(message: dict[str, Any], fields: tuple[Field, ...], version: int, made: Any) -> Any:
    """The entity of kio's type `made` for a message; both have their fields in the same order."""
    pairs = zip(present(fields, version), dataclasses.fields(made), strict=True)
    return made(**{theirs.name: kio_value(message.get(field.name, field.default), field, version, theirs) for field, theirs in pairs})


def kio_inner(annotation: Any) -> Any:
    """The type inside `tuple[T, ...] | None`."""
    if dataclasses.is_dataclass(annotation):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := kio_inner(part)) is not None), None)


@cache
def kafka_definition(name: str) -> str:
    """The text of Kafka's definition of a message ("FetchRequest"), with its comments taken out."""
    for jar in (KAFKA, KAFKA_GROUPS, KAFKA_TRANSACTIONS, KAFKA_METADATA):
        with zipfile.ZipFile(jar) as archive:
            path = f"common/{'metadata' if jar is KAFKA_METADATA else 'message'}/{name}.json"
            if path in archive.namelist():
                return re.sub(r"^\s*//.*$", "", archive.read(path).decode(), flags=re.MULTILINE)
    raise LookupError(name)


def kafka_name(found: Schema) -> str:
    """Kafka's name of the definition."""
    return "".join(part.capitalize() for part in found.name.split("_")) if "_" in found.name else found.name


def to_json(message: dict[str, Any], fields: tuple[Field, ...], version: int) -> dict[str, Any]:
    """The message as Kafka's JSON converters read it."""

    def one(value: Any, field: Field) -> Any:
        match value:
            case UUID():
                return base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")
            case bytes():
                return base64.b64encode(value).decode()
            case dict():
                return to_json(value, field.fields, version)
        return value

    made = {}
    for field in present(fields, version):
        value = message[field.name]
        made[camel(field.name)] = [one(item, field) for item in value] if isinstance(value, list) else one(value, field)
    return made


def from_json(message: dict[str, Any], fields: tuple[Field, ...], version: int) -> dict[str, Any]:
    """The reverse of `to_json`; Kafka leaves tagged fields out that have their defaults."""

    def one(value: Any, field: Field) -> Any:
        if value is None:
            return None
        match field.type:
            case "uuid":
                return UUID(bytes=base64.urlsafe_b64decode(value + "=="))
            case "bytes" | "records":
                return base64.b64decode(value)
            case "struct":
                return from_json(value, field.fields, version)
        return value

    made = {}
    for field in present(fields, version):
        value = message.get(camel(field.name), field)
        if value is not field:
            made[field.name] = [one(item, field) for item in value] if isinstance(value, list) else one(value, field)
    return made
