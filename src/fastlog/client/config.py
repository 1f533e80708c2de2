"""Settings: Kafka's names with underscores. Unknown names and values are refused with what there is."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from fastlog.client.failures import ConfigError

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
STRATEGIES = ("range", "roundrobin", "sticky", "cooperative-sticky")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _integer(least: int, most: int = 2**31 - 1) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{name}={value!r}: expected an integer") from None
        if isinstance(value, float) and number != value:
            raise ConfigError(f"{name}={value!r}: expected an integer")
        if isinstance(value, bool) or not least <= number <= most:
            raise ConfigError(f"{name}={value!r}: expected {least} to {most}")
        return number

    return check


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in _TRUE + _FALSE:
        return str(value).lower() in _TRUE
    raise ConfigError(f"{name}={value!r}: expected true or false")


def _choice(*allowed: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        text = "none" if value is None else str(value)
        if text not in allowed:
            raise ConfigError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        return text

    return check


def _text(name: str, value: Any) -> str | None:
    try:
        fits = value is None or (isinstance(value, str) and len(value.encode()) <= 32767)
    except UnicodeEncodeError:  # half of a surrogate pair
        fits = False
    if not fits:
        raise ConfigError(f"{name}={value!r}: expected a string of at most 32767 bytes in UTF-8")
    made: str | None = value
    return made


def _servers(name: str, value: Any) -> str:
    listed = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    text = value if isinstance(value, str) else ",".join(value) if listed else ""
    if not text.strip():
        raise ConfigError(f"{name}={value!r}: expected HOST:PORT, or several")
    return text


def _acks(name: str, value: Any) -> int:
    if str(value) not in ("all", "-1", "0", "1"):
        raise ConfigError(f"{name}={value!r}: expected all, 1 or 0")
    return -1 if str(value) in ("all", "-1") else int(value)


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigError(f"{name}={value!r}: expected a callable")
    return value


def _partitioner(name: str, value: Any) -> Any:
    return value if callable(value) else _choice("murmur2", "consistent_random")(name, value)


def _strategies(name: str, value: Any) -> list[str]:
    """One name, several with commas between, or a list of them; the first that all members have is taken."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not found:
        raise ConfigError(f"{name}={value!r}: expected one of {', '.join(STRATEGIES)}, or several")
    return [_choice(*STRATEGIES)(name, one.strip() if isinstance(one, str) else one) for one in found]


_PLAIN = "this client speaks plain TCP only, no TLS and no authentication: give it a listener whose protocol is PLAINTEXT"


def _protocol(name: str, value: Any) -> str:
    """What other clients are told too; the only one that there is."""
    if not isinstance(value, str) or value != "PLAINTEXT":
        raise ConfigError(f"{name}={value!r}; {_PLAIN}")
    return "PLAINTEXT"


Setting = tuple[Any, Callable[[str, Any], Any]]  # default, check

REPORTS: dict[str, Setting] = {
    "metrics_hook": (None, _callable),
    "metrics_interval_ms": (10_000, _integer(10)),
}
COMMON: dict[str, Setting] = {
    "bootstrap_servers": ("127.0.0.1:9092", _servers),
    "client_id": (None, _text),
    "request_timeout_ms": (30_000, _integer(1)),
    "retry_backoff_ms": (100, _integer(0)),
    "retry_backoff_max_ms": (1000, _integer(0)),
    "metadata_max_age_ms": (300_000, _integer(100)),
    "security_protocol": ("PLAINTEXT", _protocol),
}
PRODUCER: dict[str, Setting] = {
    **COMMON,
    **REPORTS,
    "acks": ("all", _acks),
    "enable_idempotence": (None, lambda n, v: None if v is None else _boolean(n, v)),
    "compression_type": ("none", _choice(*CODECS)),
    "compression_level": (0, _integer(-131072, 22)),
    "linger_ms": (5, _integer(0)),
    "batch_size": (1_000_000, _integer(1024, 1 << 30)),
    "max_request_size": (1_048_576, _integer(1024, 1 << 30)),
    "buffer_memory": (64 << 20, _integer(1 << 16, 1 << 40)),
    "max_block_ms": (60_000, _integer(0)),
    "delivery_timeout_ms": (120_000, _integer(1)),
    "max_in_flight_requests_per_connection": (5, _integer(1, 1000)),
    "retries": (2**31 - 1, _integer(0)),
    "partitioner": ("murmur2", _partitioner),
    "key_serializer": (None, _callable),
    "value_serializer": (None, _callable),
    "transactional_id": (None, _text),
    "transaction_timeout_ms": (60_000, _integer(1)),
    "allow_auto_create_topics": (True, _boolean),
}
CONSUMER: dict[str, Setting] = {
    **COMMON,
    **REPORTS,
    "group_id": (None, _text),
    "group_instance_id": (None, _text),
    "auto_offset_reset": ("latest", _choice("earliest", "latest", "none")),
    "enable_auto_commit": (True, _boolean),
    "auto_commit_interval_ms": (5000, _integer(1)),
    "session_timeout_ms": (45_000, _integer(1)),
    "heartbeat_interval_ms": (3000, _integer(1)),
    "max_poll_interval_ms": (300_000, _integer(1)),
    "group_protocol": ("classic", _choice("classic", "consumer")),
    "group_remote_assignor": (None, _text),
    "partition_assignment_strategy": ("range", _strategies),
    "isolation_level": ("read_uncommitted", _choice("read_uncommitted", "read_committed")),
    "fetch_min_bytes": (1, _integer(0)),
    "fetch_max_wait_ms": (500, _integer(0)),
    "fetch_max_bytes": (52_428_800, _integer(1)),
    "max_partition_fetch_bytes": (1 << 20, _integer(1)),
    "buffer_memory": (64 << 20, _integer(1 << 16, 1 << 40)),
    "check_crcs": (True, _boolean),
    "key_deserializer": (None, _callable),
    "value_deserializer": (None, _callable),
    "allow_auto_create_topics": (False, _boolean),
}
ADMIN: dict[str, Setting] = {
    **{name: COMMON[name] for name in ("bootstrap_servers", "client_id", "security_protocol")},
    "request_timeout_ms": (15_000, _integer(1)),
}


# Other clients' names for what this one does not have, by what they begin with.
_ABSENT = {
    ("security_", "sasl_", "ssl_"): _PLAIN,
    ("max_poll_records",): "give the number to poll",
}


def merged(config_map: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a mapping, and by name. Raises ConfigError where the first is none."""
    if config_map is not None and not isinstance(config_map, Mapping):
        raise ConfigError(f"{config_map!r}: expected settings by name (bootstrap_servers=...) or in a mapping")
    return {**(config_map or {}), **given}


def settings(known: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, checked; names may have Kafka's dots. Raises ConfigError."""
    made: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ConfigError(f"{name!r} is no name of a setting")
        plain = name.replace(".", "_")
        if plain not in known:
            import difflib

            absent = next((why for names, why in _ABSENT.items() if plain.startswith(names)), "")
            if absent:
                raise ConfigError(f"there is no setting {name!r}; {absent}")
            near = difflib.get_close_matches(plain, known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"there is no setting {name!r}; {hint}")
        made[plain] = known[plain][1](plain, value)
    for name, (default, check) in known.items():
        if name not in made:
            made[name] = check(name, default)
    made["client_id"] = made["client_id"] or f"fastlog-{os.getpid()}"
    return made


def of_admin(first: "str | Mapping[str, Any]", given: Mapping[str, Any]) -> dict[str, Any]:
    """An admin's settings. `first`: addresses, or settings in a mapping, as the others have it. Raises ConfigError."""
    return settings(ADMIN, {**(first if isinstance(first, Mapping) else {"bootstrap_servers": first}), **given})
