"""What a setting is: its name, type, default, bounds and meaning; and its text form, checked and worded as Kafka 4.3 does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_THROTTLED: Final = re.compile(r"[0-9]+:[0-9]+")


class Type(IntEnum):
    """As DescribeConfigs numbers them (KIP-226)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Mode(IntEnum):
    """Who may change a broker setting while the broker runs."""

    READ_ONLY = 0
    """Nobody: it is taken at the start."""
    CLUSTER = 1
    """An administrator, for one broker or for all (KIP-226's cluster-wide and per-broker)."""


class Source(IntEnum):
    """Where a value comes from, as DescribeConfigs numbers it (KIP-226)."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ConfigError(ValueError):
    """A name or value that can't be; the text is for whoever sent it."""


Check: TypeAlias = Callable[[str, Any], None]
"""(name, value): raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `default` is in text form; None: it has none."""

    name: str
    type: Type
    default: str | None
    doc: str
    check: Check | None = None
    synonyms: tuple[tuple[str, int], ...] = ()
    """Settings of the broker that give it a default, first the one that counts most: (name, factor to this one's unit)."""
    mode: Mode = Mode.READ_ONLY
    without_effect: bool = False
    """Kept and shown because Kafka has it; nothing here acts on it."""

    @property
    def sensitive(self) -> bool:
        """Its value is never shown."""
        return self.type is Type.PASSWORD

    def parse(self, text: str) -> Any:
        """The value of a text: bool, str, int, float or list[str]. Raises ConfigError."""
        value = _parse(self.name, self.type, text)
        if self.check is not None:
            self.check(self.name, value)
        return value

    def text(self, text: str) -> str:
        """The text form that is shown: without surrounding blanks, lists without blanks between."""
        return format_value(self.parse(text))


def invalid(name: str, value: Any, why: str) -> ConfigError:
    shown = f"[{', '.join(value)}]" if isinstance(value, list) else format_value(value)
    return ConfigError(f"Invalid value {shown} for configuration {name}: {why}")


def format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(value).replace("e+", "E")  # Java's way
    return ",".join(value) if isinstance(value, list) else str(value)


def _parse(name: str, kind: Type, text: str) -> Any:
    text = text.strip()
    match kind:
        case Type.BOOLEAN:
            if text.lower() not in ("true", "false"):
                raise invalid(name, text, "Expected value to be either true or false")
            return text.lower() == "true"
        case Type.STRING | Type.CLASS | Type.PASSWORD:
            return text
        case Type.LIST:
            return [item.strip() for item in text.split(",")] if text else []
        case Type.DOUBLE:
            try:
                return float(text)
            except ValueError:
                raise invalid(name, text, "Not a number of type DOUBLE") from None
        case _:
            bound = {Type.SHORT: 2**15, Type.INT: 2**31, Type.LONG: 2**63}[kind]
            # the length is looked at first: int() of a megabyte of digits takes seconds
            if len(text) > 20 or not _INTEGER.fullmatch(text) or not -bound <= int(text) < bound:
                raise invalid(name, text, f"Not a number of type {kind.name}")
            return int(text)


def at_least(low: int) -> Check:
    def check(name: str, value: Any) -> None:
        if value < low:
            raise invalid(name, value, f"Value must be at least {low}")

    return check


def between(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if value < low:
            raise invalid(name, value, f"Value must be at least {low}")
        if not value <= high:
            raise invalid(name, value, f"Value must be no more than {high}")

    return check


def between_or(low: int, high: int, also: int) -> Check:
    def check(name: str, value: Any) -> None:
        if value != also and not low <= value <= high:
            raise invalid(name, value, f"Value must be between {low} and {high} or equal to {also}")

    return check


def one_of(*allowed: str) -> Check:
    """Of a string, or each item of a list."""

    def check(name: str, value: Any) -> None:
        for item in value if isinstance(value, list) else [value]:
            if item not in allowed:
                raise invalid(name, item, f"String must be one of: {', '.join(allowed)}")

    return check


def throttled_replicas(name: str, value: Any) -> None:
    if value and value != ["*"] and not all(_THROTTLED.fullmatch(item) for item in value):
        raise invalid(
            name,
            value,
            f"{name} must be the literal '*' or a list of replicas in the following format: "
            "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
        )
