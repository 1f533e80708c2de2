"""Client quotas (KIP-13, KIP-124, KIP-546, KIP-599): what there are, in the metadata store, and what of them holds for a client.

Bytes and time are counted by the data plane, which is given the bounds as a table. Changes of topics are counted here (`mutations`).
There is no authentication: every client is the user ANONYMOUS, as on a Kafka listener without any.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from fastlog.broker.mutations import Mutations, TokenBuckets
from fastlog.broker.plane import ClientBounds, QuotaBound
from fastlog.metadata.store import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastlog.broker.configs import ConfigManager
    from fastlog.broker.context import Clock
    from fastlog.broker.plane import Plane
    from fastlog.metadata.store import MetadataStore

log = logging.getLogger("fastlog.quotas")
PREFIX: Final = "/quotas/"
USER: Final = "user"
CLIENT: Final = "client-id"
IP: Final = "ip"
ANONYMOUS: Final = "ANONYMOUS"
PRODUCE: Final = "producer_byte_rate"
FETCH: Final = "consumer_byte_rate"
REQUEST: Final = "request_percentage"
MUTATION: Final = "controller_mutation_rate"
CONNECTION: Final = "connection_creation_rate"

Entity: TypeAlias = tuple[tuple[str, str | None], ...]
"""(type, name) pairs, by type; the name None is the default: whatever has no quota of its own."""


class QuotaManager:
    def __init__(self, store: MetadataStore, plane: Plane, configs: ConfigManager, clock: Clock) -> None:
        self._store = store
        self._plane = plane
        self._entities: dict[Entity, dict[str, float]] = {}
        self._revisions: dict[Entity, int] = {}
        self._changing = asyncio.Lock()
        windows, window_s = configs.get("controller.quota.window.num"), configs.get("controller.quota.window.size.seconds")
        self._buckets = TokenBuckets(windows * window_s, clock)

    async def load(self) -> None:
        """Reads what administrators set, and hands it to the data plane."""
        for entry in await self._store.range(PREFIX):
            entity: Entity = tuple((str(kind), name) for kind, name in json.loads(entry.key.removeprefix(PREFIX)))
            self._entities[entity] = {str(key): float(value) for key, value in json.loads(entry.value).items()}
            self._revisions[entity] = entry.revision
        self._push()

    def all(self) -> Iterator[tuple[Entity, Mapping[str, float]]]:
        """Every entity that has a quota."""
        return iter(sorted(self._entities.items(), key=lambda item: [(kind, name or "") for kind, name in item[0]]))

    async def alter(self, entity: Entity, changes: Mapping[str, float | None]) -> None:
        """Sets quotas, or (None) takes them away; durable and in force when it returns. Raises StoreError; then nothing changed."""
        async with self._changing:
            before = self._entities.get(entity, {})
            wanted = {key: value for key, value in {**before, **changes}.items() if value is not None}
            if wanted == before:
                return
            key = PREFIX + json.dumps(entity, separators=(",", ":"))
            body = json.dumps(wanted).encode() if wanted else None
            revision = await self._store.write({key: body}, {key: self._revisions.get(entity, ABSENT)})
            if wanted:
                self._entities[entity], self._revisions[entity] = wanted, revision
            else:
                del self._entities[entity], self._revisions[entity]
            self._push()

    def _push(self) -> None:
        named = {dict(entity)[CLIENT] for entity in self._entities if _is_ours(entity)} - {None}
        self._plane.set_quotas(self._bounds(None), {name: self._bounds(name) for name in named if name is not None})

    def _bounds(self, client: str | None) -> ClientBounds:
        return ClientBounds(self.bound(PRODUCE, client), self.bound(FETCH, client), self.bound(REQUEST, client))

    def bound(self, key: str, client: str | None) -> QuotaBound:
        """What holds for a client's id (None: one that no quota names): the first that there is, in Kafka's order."""
        for entity, shared in (
            (((CLIENT, client), (USER, ANONYMOUS)), False),
            (((CLIENT, None), (USER, ANONYMOUS)), False),
            (((USER, ANONYMOUS),), True),
            (((CLIENT, client), (USER, None)), False),
            (((CLIENT, None), (USER, None)), False),
            (((USER, None),), True),
            (((CLIENT, client),), False),
            (((CLIENT, None),), False),
        ):
            value = self._entities.get(entity, {}).get(key)
            if value is not None:
                return QuotaBound(value, shared)
        return QuotaBound()

    def mutations(self, client_id: str | None, *, strict: bool) -> Mutations:
        """For one request that changes topics. Strict: it is refused, not only delayed, when too much was changed."""
        bound = self.bound(MUTATION, client_id or "") if self._entities else QuotaBound()
        return Mutations(self._buckets, None if bound.shared else client_id or "", bound.rate, strict=strict)


def _is_ours(entity: Entity) -> bool:
    """Whether it names a client of the one user that there is."""
    parts = dict(entity)
    return CLIENT in parts and parts.get(USER) in (None, ANONYMOUS)
