"""What DescribeConfigs tells of every setting: value, type, where it comes from, synonyms; beside what Kafka tells of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.protocol.messages import decode_response, encode_request
from tests.support.wire import roundtrip

if TYPE_CHECKING:
    from collections.abc import Iterator

Described: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""By kind of resource and by the setting's name: what is told of it, by field."""

# The newest versions that are not flexible, and so have the old header.
_CREATE_TOPICS, _DESCRIBE_CONFIGS, _ALTER_CONFIGS = (19, 4), (32, 3), (44, 0)
_TOPIC: Final = "described"
_RESOURCES: Final = {
    "topic": (2, _TOPIC),
    "broker": (4, "1"),
    "all brokers": (4, ""),
    "client metrics": (16, _TOPIC),
    "group": (32, _TOPIC),
}
# Only looked at, for broker 1 or (after "all:") for all: how much may be changed while it runs.
_CHANGES: Final = (
    "num.io.threads=16",
    "num.io.threads=17",
    "num.io.threads=3",
    "num.network.threads=7",
    "num.network.threads=1",
    "num.replica.fetchers=3",
    "num.recovery.threads.per.data.dir=5",
    "background.threads=4",
    "all:background.threads=21",
    "all:background.threads=20",
    "background.threads=0",
    "log.cleaner.dedupe.buffer.size=1048576",
    "log.cleaner.threads=3",
    "log.retention.ms=0",
    "log.retention.ms=-2",
    "message.max.bytes=-1",
    "max.connections=-1",
    "max.connections.per.ip.overrides=nonsense",
    "log.message.timestamp.before.max.ms=-1",
    "producer.id.expiration.ms=0",
    "advertised.listeners=PLAINTEXT://127.0.0.1:1",
    "all:advertised.listeners=PLAINTEXT://127.0.0.1:1",
    "listener.security.protocol.map=A:PLAINTEXT",
    "metric.reporters=no.such.Class",
    "min.insync.replicas=0",
    "unclean.leader.election.enable=maybe",
    "log.cleanup.policy=",
    "principal.builder.class=no.such.Class",
)


@dataclass(frozen=True, slots=True)
class Reason:
    """`setting` and `field`: regular expressions for what the reason covers."""

    setting: str
    field: str
    reason: str

    def fits(self, setting: str, field: str) -> bool:
        return re.fullmatch(self.setting, setting) is not None and re.fullmatch(self.field, field) is not None


_ORIGIN: Final = "value|config_source|synonyms"
_TOLD: Final = (
    r"advertised\.listeners|broker\.id|controller\.(listener\.names|quorum\.voters)|inter\.broker\.listener\.name"
    r"|listener\.security\.protocol\.map|listeners|log\.dirs|node\.id|process\.roles"
)
_WORDS: Final = "error_message"
REASONS: Final = [
    Reason(r"fastlog\..*|write\.caching", "setting", "only fastlog has it"),
    Reason(_TOLD, _ORIGIN, "Kafka has to be told its number, where it listens and where its controller does"),
    Reason(r"broker\.session\.timeout\.ms", _ORIGIN, "Kafka is given more time where these tests run"),
    Reason(r"offsets\.topic\.replication\.factor", "synonyms", "the default is one replica, not three: there is one node"),
    Reason(r"listeners|log\.cleaner\.threads|max\.connections", "read_only", "it is taken at the start"),
    Reason(r"(log\.cleaner\.threads|max\.connections)=.*", _WORDS, "it is taken at the start"),
    Reason(r".*threads.*=.*|num\.replica\.fetchers=.*", _WORDS, "Kafka puts the names of two of its Java classes around it"),
    Reason(r"log\.retention\.ms=-2", "error_code|error_message", "to Kafka every negative number is -1"),
    Reason(r"log\.cleaner\.dedupe\.buffer\.size=.*", "error_code|error_message", "one megabyte is enough here, Kafka wants a byte more"),
    Reason(
        r"(listener\.security\.protocol\.map|max\.connections\.per\.ip\.overrides|metric\.reporters)=.*",
        "error_code|error_message",
        "it is without effect here, and kept as it is given",
    ),
    Reason(r"principal\.builder\.class=.*", _WORDS, "no Java class can be loaded"),
]


def described(bootstrap: str) -> Described:
    """Of a topic that sets nothing (it is made), this broker, all brokers, and a group and a subscription that set nothing."""
    topic = {"name": _TOPIC, "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}
    _ask(bootstrap, _CREATE_TOPICS, {"topics": [topic], "timeout_ms": 10_000, "validate_only": False})
    resources = [{"resource_type": kind, "resource_name": name, "configuration_keys": None} for kind, name in _RESOURCES.values()]
    asked = {"resources": resources, "include_synonyms": True, "include_documentation": True}
    answer = _ask(bootstrap, _DESCRIBE_CONFIGS, asked)
    found: Described = {}
    for kind, result in zip(_RESOURCES, answer["results"], strict=True):
        assert result["error_code"] == 0, f"{kind}: {result['error_message']}"
        found[kind] = {config["name"]: _told(config) for config in result["configs"]}
    found["changes"] = {change: _changed(bootstrap, change) for change in _CHANGES}
    return found


def _told(config: dict[str, Any]) -> dict[str, Any]:
    told = {key: config[key] for key in ("value", "read_only", "config_source", "is_sensitive", "config_type")}
    told["synonyms"] = [[one["name"], one["value"], one["source"]] for one in config["synonyms"]]
    return told | {"documented": bool(config["documentation"])}  # in words of its own


def _changed(bootstrap: str, change: str) -> dict[str, Any]:
    """What is answered to a change of the broker's that is only to be looked at."""
    name, _, value = change.removeprefix("all:").partition("=")
    config = {"name": name, "config_operation": 0, "value": value}
    resource = {"resource_type": 4, "resource_name": "" if change.startswith("all:") else "1", "configs": [config]}
    (answer,) = _ask(bootstrap, _ALTER_CONFIGS, {"resources": [resource], "validate_only": True})["responses"]
    return {"error_code": answer["error_code"], "error_message": answer["error_message"]}


def _ask(bootstrap: str, request: tuple[int, int], message: dict[str, Any]) -> dict[str, Any]:
    key, version = request
    return decode_response(key, version, roundtrip(bootstrap, key, version, encode_request(key, version, message)))


def differences(kafka: Described, fastlog: Described) -> Iterator[tuple[str, str, str, Reason | None]]:
    """(kind, setting, what each tells, why) for each field that differs; "setting" is the field of one that only one of them has."""
    for kind, theirs in kafka.items():
        ours = fastlog[kind]
        for name in sorted(theirs.keys() | ours.keys()):
            a, b = theirs.get(name), ours.get(name)
            if a is None or b is None:
                different = [("setting", f"only {'fastlog' if a is None else 'Kafka'} has it")]
            else:
                different = [(field, f"Kafka {a[field]!r}, fastlog {b[field]!r}") for field in a if a[field] != b[field]]
            for field, said in different:
                yield kind, name, f"{field}: {said}", next((one for one in REASONS if one.fits(name, field)), None)
