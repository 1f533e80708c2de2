"""Which of several values counts: a topic's own, an administrator's, the one given at the start, or the default (KIP-226's order)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final

from fastlog.config.broker import BROKER_KEYS
from fastlog.config.group import GROUP_KEYS
from fastlog.config.keys import ConfigError, Source, format_value
from fastlog.config.topic import TOPIC_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastlog.config.keys import Key


@dataclass(frozen=True, slots=True)
class Found:
    """One place that gives a value."""

    name: str
    text: str
    source: Source
    factor: int = 1
    """From its unit to that of the setting that was asked for."""


@dataclass(slots=True)
class Layers:
    """The broker's settings in text form, from the one that counts most. Keys are BROKER_KEYS' names, values were checked."""

    dynamic: dict[str, str] = field(default_factory=dict)
    """Set by an administrator for this broker."""
    dynamic_default: dict[str, str] = field(default_factory=dict)
    """Set by an administrator for all brokers."""
    static: dict[str, str] = field(default_factory=dict)
    """Given at the start."""

    def sources(self, names: Mapping[str, int]) -> Iterator[Found]:
        """The places that give one of `names` (name -> factor) a value, the one that counts first."""
        for values, source in (
            (self.dynamic, Source.DYNAMIC_BROKER),
            (self.dynamic_default, Source.DYNAMIC_DEFAULT_BROKER),
            (self.static, Source.STATIC_BROKER),
        ):
            for name, factor in names.items():
                if name in values:
                    yield Found(name, BROKER_KEYS[name].text(values[name]), source, factor)
        for name, factor in names.items():
            default = BROKER_KEYS[name].default
            if default is not None:
                yield Found(name, default, Source.DEFAULT, factor)

    def broker(self, name: str) -> list[Found]:
        """All places that give a broker setting a value, the one that counts first; empty: it has none.

        One without a default is not set by a setting in another unit that stands behind it (log.retention.ms by log.retention.hours).
        """
        key = BROKER_KEYS[name]
        found = self.sources({name: 1, **dict(key.synonyms)})
        return list(found if key.default is not None else dropwhile(lambda one: one.name != name, found))

    def value(self, name: str) -> Any:
        """A broker setting's value, or None."""
        found = self.broker(name)
        return BROKER_KEYS[name].parse(found[0].text) if found else None

    def topic(self, name: str, own: Mapping[str, str]) -> list[Found]:
        """All places that give a topic setting a value, the one that counts first; never empty. `own`: what the topic sets."""
        key = TOPIC_KEYS[name]
        found = [Found(name, key.text(own[name]), Source.TOPIC)] if name in own else []
        found += self.sources(dict(key.synonyms))
        return found or [Found(name, key.default or "", Source.DEFAULT)]

    def topic_synonyms(self, name: str, own: Mapping[str, str]) -> list[Found]:
        """What Kafka tells of these places: as of a broker setting, nothing before the first that stands behind the topic's."""
        found = self.topic(name, own)
        mine = [one for one in found if one.source is Source.TOPIC]
        first = next((other for other, _ in TOPIC_KEYS[name].synonyms), None)
        return [*mine, *dropwhile(lambda one: one.name != first, found[len(mine) :])]

    def topic_text(self, name: str, own: Mapping[str, str]) -> str:
        """A topic setting's value in text form, in the topic setting's unit."""
        return in_unit(TOPIC_KEYS[name], self.topic(name, own)[0])

    def topic_value(self, name: str, own: Mapping[str, str]) -> Any:
        return TOPIC_KEYS[name].parse(self.topic_text(name, own))

    def group(self, name: str, own: Mapping[str, str]) -> list[Found]:
        """All places that give a group setting a value, the one that counts first. `own`: what the group sets."""
        key = GROUP_KEYS[name]
        found = [Found(name, key.text(own[name]), Source.GROUP)] if name in own else []
        return [*found, *self.sources(dict(key.synonyms))]

    def group_value(self, name: str, own: Mapping[str, str]) -> Any:
        key = GROUP_KEYS[name]
        found = self.group(name, own)
        return key.parse(found[0].text if found else key.default or "")


def in_unit(key: Key, found: Found) -> str:
    """The text of a found value in the unit of `key`. Negative numbers mean "no limit" and stay as they are."""
    if found.factor == 1:
        return found.text
    number = int(found.text)
    return format_value(number if number < 0 else number * found.factor)


_THREADS: Final = (
    "background.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
)


def check_threads(now: Layers, then: Layers) -> None:
    """Kafka lets a number of threads grow to its double at most while it runs, and shrink to its half. Raises ConfigError."""
    for name in _THREADS:
        old, new = now.value(name), then.value(name)
        wrong = f"Dynamic thread count update validation failed for {name}={new}"
        if new < old // 2:
            raise ConfigError(f"{wrong}, value should be at least half the current value {old}")
        if new > old * 2:
            raise ConfigError(f"{wrong}, value should not be greater than double the current value {old}")
