"""The settings of a subscription of client metrics (KIP-714). They are kept and shown; nothing asks clients for metrics."""

from __future__ import annotations

import re
from typing import Final

from fastlog.config.keys import ConfigError, Key, Type

INTERVAL_MIN_MS: Final = 100
INTERVAL_MAX_MS: Final = 3_600_000
_MATCHES: Final = (
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
)
_IDLE: Final = " Kept and shown; without effect: nothing takes what clients would push."


def check_match(patterns: list[str]) -> None:
    """Each is NAME=REGEX. Raises ConfigError."""
    for pattern in patterns:
        name, equals, regex = (part.strip() for part in pattern.partition("="))
        try:
            re.compile(regex)
        except re.error:
            equals = ""
        if not equals or name not in _MATCHES:
            raise ConfigError(f"Illegal client matching pattern: {pattern}")


def check_interval(value: int) -> None:
    """Raises ConfigError."""
    if not INTERVAL_MIN_MS <= value <= INTERVAL_MAX_MS:
        bounds = f"{INTERVAL_MIN_MS} and {INTERVAL_MAX_MS} (1 hour)"
        raise ConfigError(f"Invalid value {value} for interval.ms, interval must be between {bounds}")


CLIENT_METRICS_KEYS: Final[dict[str, Key]] = {
    key.name: key
    for key in (
        Key("interval.ms", Type.INT, "300000", "How often clients push." + _IDLE),
        Key("match", Type.LIST, "", "Which clients push, as NAME=REGEX." + _IDLE),
        Key("metrics", Type.LIST, "", "Beginnings of the names of the metrics that are pushed; * is all." + _IDLE),
    )
}
