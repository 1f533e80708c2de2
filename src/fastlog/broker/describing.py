"""Settings as DescribeConfigs and CreateTopics show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.broker.configs import may_change
from fastlog.config.broker import BROKER_KEYS
from fastlog.config.client_metrics import CLIENT_METRICS_KEYS
from fastlog.config.group import GROUP_KEYS
from fastlog.config.keys import Source
from fastlog.config.topic import TOPIC_KEYS
from fastlog.config.values import Found

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fastlog.config.keys import Key
    from fastlog.config.values import Layers


def topic_configs(layers: Layers, own: Mapping[str, str], names: Collection[str] = ()) -> list[dict[str, Any]]:
    """The settings of a topic that sets `own`: those of `names`, or all."""
    return [
        _shown(key, layers.topic_synonyms(key.name, own), layers.topic_text(key.name, own), read_only=False)
        for key in TOPIC_KEYS.values()
        if not names or key.name in names
    ]


def broker_configs(layers: Layers, names: Collection[str] = ()) -> list[dict[str, Any]]:
    """The settings of this broker: those of `names`, or all."""
    shown = []
    for key in BROKER_KEYS.values():
        if not names or key.name in names:
            found = layers.broker(key.name)
            shown.append(_shown(key, found, found[0].text if found else None, read_only=not may_change(key.name)))
    return shown


def default_broker_configs(layers: Layers, names: Collection[str] = ()) -> list[dict[str, Any]]:
    """What administrators set for all brokers, and nothing else."""
    return [
        _shown(BROKER_KEYS[found.name], [found], found.text, read_only=not may_change(found.name))
        for found in layers.sources(dict.fromkeys(layers.dynamic_default, 1))
        if found.source is Source.DYNAMIC_DEFAULT_BROKER and (not names or found.name in names)
    ]


def group_configs(layers: Layers, own: Mapping[str, str], names: Collection[str] = ()) -> list[dict[str, Any]]:
    """The settings of a group that sets `own`: those of `names`, or all."""
    shown = []
    for key in GROUP_KEYS.values():
        if not names or key.name in names:
            found = layers.group(key.name, own)
            if not found or found[-1].source is Source.GROUP:  # the broker has none for all groups
                found = [*found, Found(key.name, key.default or "", Source.DEFAULT)]
            shown.append(_shown(key, found, found[0].text, read_only=False))
    return shown


def client_metrics_configs(own: Mapping[str, str], names: Collection[str] = ()) -> list[dict[str, Any]]:
    """The settings of a subscription of client metrics that sets `own`: those of `names`, or all."""
    shown = []
    for key in CLIENT_METRICS_KEYS.values():
        if not names or key.name in names:
            found = [Found(key.name, key.text(own[key.name]), Source.CLIENT_METRICS)] if key.name in own else []
            shown.append(_shown(key, found, found[0].text if found else key.default, read_only=False))
    return shown


def _shown(key: Key, found: Sequence[Found], value: str | None, *, read_only: bool) -> dict[str, Any]:
    return {
        "name": key.name,
        "value": None if key.sensitive else value,
        "read_only": read_only,
        "config_source": found[0].source if found else Source.DEFAULT,
        "is_sensitive": key.sensitive,
        "synonyms": [{"name": one.name, "value": None if key.sensitive else one.text, "source": one.source} for one in found],
        "config_type": key.type,
        "documentation": key.doc,
    }
