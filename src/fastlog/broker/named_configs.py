"""Settings of what is named freely (groups, subscriptions of client metrics), in the metadata store: one JSON value under each name."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from fastlog.metadata.store import ABSENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastlog.metadata.store import MetadataStore


class NamedConfigs:
    """What each name sets itself. A name that sets nothing is not listed."""

    def __init__(self, store: MetadataStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._own: dict[str, dict[str, str]] = {}
        self._revisions: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._listeners: list[Callable[[str], Awaitable[None]]] = []

    async def load(self) -> None:
        for entry in await self._store.range(self._prefix):
            name = entry.key.removeprefix(self._prefix)
            self._own[name] = {str(key): str(text) for key, text in json.loads(entry.value).items()}
            self._revisions[name] = entry.revision

    def names(self) -> list[str]:
        return sorted(self._own)

    def get(self, name: str) -> Mapping[str, str]:
        return self._own.get(name, {})

    def on_change(self, listener: Callable[[str], Awaitable[None]]) -> None:
        """To be called with the name after each change."""
        self._listeners.append(listener)

    async def alter(self, name: str, change: Callable[[dict[str, str]], dict[str, str]], *, validate_only: bool = False) -> None:
        """Replaces what `name` sets by what `change` makes of it, durably.

        Raises what `change` raises, StoreError; then nothing changed.
        """
        async with self._changing:
            own = self._own.get(name, {})
            wanted = change(dict(own))
            if validate_only or wanted == own:
                return
            key = self._prefix + name
            body = json.dumps(wanted, sort_keys=True).encode() if wanted else None
            revision = await self._store.write({key: body}, {key: self._revisions.get(name, ABSENT)})
            if wanted:
                self._own[name], self._revisions[name] = wanted, revision
            else:
                del self._own[name], self._revisions[name]
            for listener in self._listeners:
                await listener(name)
