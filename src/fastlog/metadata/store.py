"""The metadata store: a map of keys to bytes with revisions, compare-and-set and watch.

The interface is what etcd offers too, so that what is above it need not know which of the two holds the metadata. Every write is one
transaction with a revision of its own, higher than all before; it is durable when the call returns. Keys are paths ("/topics/orders").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

ABSENT = 0
"""The revision of a key that does not exist, in a compare."""


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    revision: int
    """Of the transaction that wrote it last."""


@dataclass(frozen=True, slots=True)
class Event:
    """One key's change. `value` is None when the key was deleted."""

    key: str
    value: bytes | None
    revision: int


class StoreError(Exception):
    """The store can't be used: why, for the operator. Nothing was written."""


class NewerFormatError(StoreError):
    """Written by a newer release, in a format that this one does not know."""


class CorruptError(StoreError):
    """What is stored can't be read."""


class ConflictError(Exception):
    """A compare did not hold: someone else wrote `key` first. Nothing was written."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key} is at revision {found}, not {expected}")
        self.key = key
        self.expected = expected
        self.found = found


class CompactedError(Exception):
    """The events after that revision are not kept any more: read again, then watch from there."""


class MetadataStore(Protocol):
    @property
    def revision(self) -> int:
        """Of the newest transaction; 0 for an empty store."""

    async def get(self, key: str) -> Entry | None: ...

    async def range(self, prefix: str) -> Sequence[Entry]:
        """All keys that start with `prefix`, in order, as of one revision."""

    async def write(self, changes: Mapping[str, bytes | None], expect: Mapping[str, int] | None = None) -> int:
        """Puts (bytes) and deletes (None) all of `changes` or none, and returns the revision.

        `expect`: the revision that each of these keys must be at (ABSENT: it must not exist), else ConflictError.
        """

    def watch(self, prefix: str, after: int) -> AsyncIterator[Event]:
        """The changes of keys that start with `prefix`, after that revision, in order, as they come. Ends with `close`.

        Raises CompactedError when `after` is longer ago than what is kept.
        """

    async def close(self) -> None: ...
