"""The broker's settings while it runs: what administrators changed, kept in the metadata store, and what the data plane makes of them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fastlog.broker.named_configs import NamedConfigs
from fastlog.broker.plane import CODEC_PRODUCER, BatchRules, LogSettings
from fastlog.config.broker import BROKER_KEYS
from fastlog.config.keys import ConfigError, Mode
from fastlog.config.values import Layers
from fastlog.metadata.store import ABSENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastlog.metadata.store import MetadataStore

log = logging.getLogger("fastlog.config")
PREFIX = "/config/broker/"
GROUP_PREFIX = "/config/group/"
CLIENT_METRICS_PREFIX = "/config/client-metrics/"
USER_PREFIX = "/config/user/"
_CODECS = {"producer": CODEC_PRODUCER, "uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIN_IN_SYNC: Final = "min.insync.replicas"
_LEVELS = {"gzip": "compression.gzip.level", "lz4": "compression.lz4.level", "zstd": "compression.zstd.level"}


class ConfigManager:
    """Settings by Kafka's name: `get`, or `values` where a mapping is wanted."""

    def __init__(self, store: MetadataStore, static: Mapping[str, str], node_id: int) -> None:
        """`static`: what was given at the start, checked already."""
        self._store = store
        self._node_id = node_id
        self._revisions = dict.fromkeys((PREFIX, f"{PREFIX}{node_id}"), ABSENT)
        self._changing = asyncio.Lock()
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self.layers = Layers(static=dict(static))
        self.values = _Values(self)
        self.groups = NamedConfigs(store, GROUP_PREFIX)
        self.client_metrics = NamedConfigs(store, CLIENT_METRICS_PREFIX)
        self.users = NamedConfigs(store, USER_PREFIX)

    async def load(self) -> None:
        """Reads what administrators set. A setting that this release does not know any more is named and left out."""
        await self.groups.load()
        await self.client_metrics.load()
        await self.users.load()
        for entry in await self._store.range(PREFIX):
            if entry.key not in self._revisions:
                continue
            self._revisions[entry.key] = entry.revision
            layer = self._layer(entry.key)
            for name, text in json.loads(entry.value).items():
                try:
                    BROKER_KEYS[name].parse(text)
                except (KeyError, ConfigError):
                    log.warning("the stored broker setting %s=%s is not one that this release takes; it is left out", name, text)
                else:
                    layer[name] = text
        # With eligible leader replicas (KIP-966), as Kafka has them from 4.1 on, it is one number for the whole cluster from the beginning
        self.layers.dynamic.pop(MIN_IN_SYNC, None)
        self.layers.dynamic_default.setdefault(MIN_IN_SYNC, self.layers.broker(MIN_IN_SYNC)[0].text)

    def _layer(self, key: str) -> dict[str, str]:
        return self.layers.dynamic_default if key == PREFIX else self.layers.dynamic

    def get(self, name: str) -> Any:
        """The value that counts now, or None. Raises KeyError for a name that is no broker setting."""
        return self.layers.value(name)

    def group_value(self, group: str, name: str) -> Any:
        """The value of a group's setting that counts now. Raises KeyError for a name that is no group setting."""
        return self.layers.group_value(name, self.groups.get(group))

    def on_change(self, listener: Callable[[], Awaitable[None]]) -> None:
        """To be called after each change by an administrator."""
        self._listeners.append(listener)

    async def alter_dynamic(self, name: str, change: Callable[[dict[str, str]], dict[str, str]], *, validate_only: bool = False) -> None:
        """Replaces what administrators set for the broker of that name ("": for all) by what `change` makes of it; durable, and in force.

        Raises what `change` raises, ConflictError, StoreError; then nothing changed.
        """
        key = PREFIX + name
        async with self._changing:
            layer = self._layer(key)
            wanted = change(dict(layer))
            if validate_only or wanted == layer:
                return
            body = json.dumps(wanted, sort_keys=True).encode() if wanted else None
            revision = await self._store.write({key: body}, {key: self._revisions[key]})
            self._revisions[key] = revision if wanted else ABSENT
            layer.clear()
            layer.update(wanted)
            for listener in self._listeners:
                await listener()

    def log_settings(self, own: Mapping[str, str], *, internal: bool = False) -> LogSettings:
        """What a topic that sets `own` asks of its logs. An internal one may use what is reserved of a disk."""

        def value(name: str) -> Any:
            return self.layers.topic_value(name, own)

        segment_ms = value("segment.ms")
        if "compact" in value("cleanup.policy"):  # only segments that are no longer written to are compacted
            segment_ms = min(segment_ms, value("max.compaction.lag.ms"))
        return LogSettings(
            segment_bytes=value("segment.bytes"),
            segment_ms=segment_ms,
            segment_jitter_ms=value("segment.jitter.ms"),
            index_interval_bytes=value("index.interval.bytes"),
            segment_index_bytes=value("segment.index.bytes"),
            flush_messages=value("flush.messages"),
            flush_ms=value("flush.ms"),
            write_caching=value("write.caching"),
            disk_reserve=0 if internal else self.get("fastlog.disk.reserve.bytes"),
            verify_reads=value("fastlog.fetch.verify.enable"),
            recycle_bytes=self.get("fastlog.segment.recycle.bytes"),
        )

    def batch_rules(self, own: Mapping[str, str]) -> BatchRules:
        """What a topic that sets `own` asks of a record batch."""

        def value(name: str) -> Any:
            return self.layers.topic_value(name, own)

        coding = value("compression.type")
        level = value(_LEVELS[coding]) if coding in _LEVELS else 0
        return BatchRules(
            size_max=value("max.message.bytes"),
            before_max_ms=value("message.timestamp.before.max.ms"),
            after_max_ms=value("message.timestamp.after.max.ms"),
            log_append_time=value("message.timestamp.type") == "LogAppendTime",
            keys_required="compact" in value("cleanup.policy"),
            look_inside=value("fastlog.record.validation.enable"),
            codec=_CODECS[coding],
            # -1 is "the library's own choice" of gzip, which the data plane calls 0; zstd's levels below -128 do not fit its int8
            level=0 if coding == "gzip" and level == -1 else max(level, -128),
        )


class _Values(Mapping[str, Any]):
    """The broker settings as a mapping that is always of now."""

    def __init__(self, manager: ConfigManager) -> None:
        self._manager = manager

    def __getitem__(self, name: str) -> Any:
        return self._manager.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(BROKER_KEYS)

    def __len__(self) -> int:
        return len(BROKER_KEYS)


def may_change(name: str) -> bool:
    """Whether an administrator may change a broker setting while the broker runs."""
    key = BROKER_KEYS.get(name)
    return key is not None and key.mode is not Mode.READ_ONLY
