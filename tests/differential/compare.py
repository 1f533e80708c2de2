"""Where two answers differ, and which of the differences are meant to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.differential.allowed import rule_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.differential.allowed import Rule
    from tests.differential.target import Step


@dataclass(frozen=True, slots=True)
class Difference:
    """`path` names the field, without the positions in arrays; `where` with them."""

    api: str
    version: int
    path: str
    where: str
    kafka: Any
    fastlog: Any

    def __str__(self) -> str:
        return f"{self.api} v{self.version} {self.where}: Kafka {self.kafka!r}, fastlog {self.fastlog!r}"


def differences(step: Step, kafka: Any, fastlog: Any, used: set[Rule]) -> list[Difference]:
    """The differences of one step's outcomes, but for those that are allowed: their rules are added to `used`."""
    api, version = step.get("api", "collect"), step.get("version", 0)
    found = []
    for path, where, a, b in _walk("", "", kafka, fastlog):
        difference = Difference(api, version, path, where, a, b)
        rule = rule_for(difference)
        if rule is None:
            found.append(difference)
        else:
            used.add(rule)
    return found


def _walk(path: str, where: str, a: Any, b: Any) -> Iterator[tuple[str, str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from _walk(f"{path}.{key}", f"{where}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _walk(path, f"{where}[{index}]", one, other)
    elif a != b:
        yield path, where, a, b
