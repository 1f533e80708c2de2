"""The messages of the protocol by API key and version: dicts to bytes and back.

Names are Kafka's in snake case. A decoded message has every field of every version, those that its version lacks with their defaults
(as Kafka's own do), so that a handler need not ask for the version; encoding takes what a message does not give to be the default.
Schemas are read, and compiled for a version, when they are first used; what reads them, and the codec, are imported then.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from fastlog._core import Codec
    from fastlog.protocol import schema

Message: TypeAlias = dict[str, Any]
Buffer: TypeAlias = "bytes | bytearray | memoryview"

METADATA = 3
API_VERSIONS = 18


class Api(NamedTuple):
    """A kind of request, and the versions of it that are served."""

    key: int
    name: str
    """As Kafka writes it: "CreateTopics"."""
    versions: tuple[int, int]
    """Oldest and newest version served."""
    advertised: tuple[int, int] | None
    """What ApiVersions says. Wider than `versions` for Produce only: librdkafka would not compress otherwise (KAFKA-18659).
    None: served, but left out, as Kafka leaves out what clients need not ask for."""
    flexible_from: int | None
    """First version with compact lengths and tagged fields (KIP-482); None: no version has them."""

    def serves(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def flexible(self, version: int) -> bool:
        return self.flexible_from is not None and version >= self.flexible_from

    def request_header_version(self, version: int) -> int:
        """2: correlation id, client id, tagged fields; 1: without tagged fields."""
        return 2 if self.flexible(version) else 1

    def response_header_version(self, version: int) -> int:
        """1: correlation id, tagged fields; 0: the correlation id alone.

        ApiVersions keeps 0 in all versions: a client must be able to read it before it knows what the broker speaks (KIP-511).
        """
        return 1 if self.flexible(version) and self.key != API_VERSIONS else 0


if TYPE_CHECKING:
    API_BY_KEY: dict[int, Api]
    API_BY_NAME: dict[str, Api]


def __getattr__(name: str) -> Any:
    """API_BY_KEY and API_BY_NAME, made when they are first named: a client that only sends and reads does without for a while."""
    if name == "API_BY_KEY":
        return _by_key()
    if name == "API_BY_NAME":
        return _by_name()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _heads() -> dict[int, schema.ApiHead]:
    from fastlog.protocol import schema

    return {head.key: head for head in schema.api_heads()}


@cache
def _by_key() -> dict[int, Api]:
    return {
        head.key: Api(
            head.key,
            head.name,
            (head.versions.first, head.versions.last),
            (head.advertised.first, head.advertised.last) if head.advertised is not None else None,
            head.flexible,
        )
        for head in _heads().values()
    }


@cache
def _by_name() -> dict[str, Api]:
    return {api.name: api for api in _by_key().values()}


def api_named(name: str) -> Api:
    """An API by its name, as Kafka writes it. KeyError where there is none."""
    return _by_name()[name]


# Data that is not a request or response, by the file that has it.
_DATA_FILES = {
    "request_header": "headers",
    "response_header": "headers",
    "consumer_protocol_subscription": "consumer_protocol",
    "consumer_protocol_assignment": "consumer_protocol",
    "offset_commit_key": "group_log",
    "offset_commit_value": "group_log",
    "group_metadata_key": "group_log",
    "group_metadata_value": "group_log",
    "transaction_log_key": "transaction_log",
    "transaction_log_value": "transaction_log",
    "consumer_group_metadata_key": "consumer_group_log",
    "consumer_group_metadata_value": "consumer_group_log",
    "consumer_group_partition_metadata_key": "consumer_group_log",
    "consumer_group_partition_metadata_value": "consumer_group_log",
    "consumer_group_member_metadata_key": "consumer_group_log",
    "consumer_group_member_metadata_value": "consumer_group_log",
    "consumer_group_target_assignment_metadata_key": "consumer_group_log",
    "consumer_group_target_assignment_metadata_value": "consumer_group_log",
    "consumer_group_target_assignment_member_key": "consumer_group_log",
    "consumer_group_target_assignment_member_value": "consumer_group_log",
    "consumer_group_current_member_assignment_key": "consumer_group_log",
    "consumer_group_current_member_assignment_value": "consumer_group_log",
    "consumer_group_regular_expression_key": "consumer_group_log",
    "consumer_group_regular_expression_value": "consumer_group_log",
    "topic_record": "metadata_log",
    "partition_record": "metadata_log",
    "config_record": "metadata_log",
    "partition_change_record": "metadata_log",
    "remove_topic_record": "metadata_log",
    "user_scram_credential_record": "metadata_log",
    "remove_user_scram_credential_record": "metadata_log",
    "client_quota_record": "metadata_log",
    "producer_ids_record": "metadata_log",
}


def _unsupported(why: str) -> Exception:
    from fastlog.protocol.errors import Error, KafkaError  # a client hardly ever needs them

    return KafkaError(Error.UNSUPPORTED_VERSION, why)


@cache
def _api_schemas(api_key: int) -> dict[str, schema.Schema]:
    from fastlog.protocol import schema

    return schema.load(_heads()[api_key].path)


@cache
def _data_schemas(file: str) -> dict[str, schema.Schema]:
    from fastlog.protocol import schema

    return schema.load(schema.directory() / f"{file}.schema")


def _compile(found: schema.Schema, version: int) -> Codec:
    from fastlog._core import Codec
    from fastlog.protocol import schema

    served = found.versions
    if version not in served:
        raise _unsupported(f"{found.name} has versions {served.first}-{served.last}, not {version}")
    return Codec(f"{found.name} v{version}", schema.plan(found, version))


@cache
def _codec(api_key: int, kind: str, version: int) -> Codec:
    if api_key not in _heads():
        raise _unsupported(f"no API has key {api_key}")
    return _compile(_api_schemas(api_key)[kind], version)


@cache
def _data_codec(name: str, version: int) -> Codec:
    return _compile(_data_schemas(_DATA_FILES[name])[name], version)


def decode_request(api_key: int, version: int, body: Buffer) -> Message:
    """A request's body (what follows the header).

    Raises DecodeError for bytes that are no such request, KafkaError (UNSUPPORTED_VERSION) for a key or version without a schema.
    Bytes behind the message are ignored, as Kafka does.
    """
    return _codec(api_key, "request", version).decode(body)


def encode_request(api_key: int, version: int, message: Message) -> bytes:
    """A request's body. Raises EncodeError (a ValueError), or KafkaError as `decode_request` does."""
    return _codec(api_key, "request", version).encode(message)


def decode_response(api_key: int, version: int, body: Buffer) -> Message:
    """A response's body. Raises as `decode_request` does."""
    return _codec(api_key, "response", version).decode(body)


def encode_response(api_key: int, version: int, message: Message) -> bytes:
    """A response's body. Raises as `encode_request` does."""
    return _codec(api_key, "response", version).encode(message)


def encode_data(name: str, version: int, message: Message) -> bytes:
    """Data by its schema's name ("offset_commit_value"), without the version that stands before it where it is stored."""
    return _data_codec(name, version).encode(message)


def decode_data(name: str, version: int, data: Buffer) -> Message:
    """The reverse of `encode_data`; bytes behind the message are ignored, so a newer version may be read as the newest known."""
    return _data_codec(name, version).decode(data)


def data_versions(name: str) -> tuple[int, int]:
    """Oldest and newest version of a data schema."""
    versions = _data_schemas(_DATA_FILES[name])[name].versions
    return versions.first, versions.last


def decode_request_header(data: Buffer) -> tuple[Message, int]:
    """A request's header and its size; the body follows. Its API must be known: the key and version say which header it is.

    Raises DecodeError, or KafkaError (UNSUPPORTED_VERSION) when the key is unknown.
    """
    head, _ = _data_codec("request_header", 1).decode_prefix(data)
    api = _by_key().get(head["request_api_key"])
    if api is None:
        raise _unsupported(f"no API has key {head['request_api_key']}")
    return _data_codec("request_header", api.request_header_version(head["request_api_version"])).decode_prefix(data)


def encode_request_header(api_key: int, version: int, correlation_id: int, client_id: str | None) -> bytes:
    header = {"request_api_key": api_key, "request_api_version": version, "correlation_id": correlation_id, "client_id": client_id}
    return _data_codec("request_header", _by_key()[api_key].request_header_version(version)).encode(header)


def decode_response_header(api_key: int, version: int, data: Buffer) -> tuple[Message, int]:
    """A response's header and its size; the body follows. Raises DecodeError."""
    return _data_codec("response_header", _by_key()[api_key].response_header_version(version)).decode_prefix(data)


def encode_response_header(api_key: int, version: int, correlation_id: int) -> bytes:
    return _data_codec("response_header", _by_key()[api_key].response_header_version(version)).encode({"correlation_id": correlation_id})
