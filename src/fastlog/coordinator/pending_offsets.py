"""Offsets that producers have committed inside transactions which are still open (TxnOffsetCommit, KIP-447)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fastlog.coordinator.records import OffsetValue

Key: TypeAlias = tuple[str, str, int]
"""Group, topic, partition."""


class PendingOffsets:
    """Of one partition of `__consumer_offsets`. Offsets of records in that log decide: a commit holds unless a later one was accepted."""

    def __init__(self) -> None:
        self._by_producer: dict[int, dict[Key, tuple[int, OffsetValue]]] = {}  # with the offset of the record
        self._open: dict[str, dict[tuple[str, int], int]] = {}  # by group: how many producers have (topic, partition) open
        self._newest: dict[Key, int] = {}  # of what is open: the record that its committed offset is from, if that came meanwhile
        self._verified: dict[int, object] = {}
        self._epochs: dict[int, int] = {}  # by producer: that of its last commit, since this process has the partition

    # -- who may write --------------------------------------------------------------------------------------------------------------

    def is_ongoing(self, producer_id: int, epoch: int) -> bool:
        """Whether the producer is known to have a transaction of this epoch in this partition. One of another epoch is another: the end of
        a transaction is answered before its marker is here, and the next one has a new epoch (KIP-890)."""
        return producer_id in self._by_producer and self._epochs.get(producer_id) == epoch

    def going_on(self, producer_id: int, epoch: int) -> None:
        """A commit of this epoch, which may be made, goes to the log."""
        self._epochs[producer_id] = epoch

    def verification(self, producer_id: int) -> object:
        """To be asked for before the transaction coordinator is; see `is_verified`."""
        return self._verified.setdefault(producer_id, object())

    def is_verified(self, producer_id: int, verification: object) -> bool:
        """Whether no transaction of the producer has ended since `verification`: otherwise what the coordinator said may be out of date,
        and a commit now would be in a transaction that nobody ends (KIP-890)."""
        return self._verified.get(producer_id) is verification

    def ending(self, producer_id: int) -> None:
        """The end of the producer's transaction is on its way; what has been verified no longer is."""
        self._verified.pop(producer_id, None)

    # -- the log --------------------------------------------------------------------------------------------------------------------

    def add(self, producer_id: int, key: Key, offset: int, value: OffsetValue) -> None:
        pending = self._by_producer.setdefault(producer_id, {})
        if key not in pending:
            opened = self._open.setdefault(key[0], {})
            opened[key[1:]] = opened.get(key[1:], 0) + 1
        pending[key] = (offset, value)

    def committed(self, key: Key, offset: int) -> None:
        """A commit outside of transactions was accepted."""
        if self.is_open(*key):
            self._newest[key] = offset

    def end(self, producer_id: int, commit: bool) -> list[tuple[Key, OffsetValue]]:
        """What the producer's transaction brings, at its end; nothing if it was aborted."""
        self._verified.pop(producer_id, None)
        self._epochs.pop(producer_id, None)
        brought: list[tuple[Key, OffsetValue]] = []
        for key, (offset, value) in self._by_producer.pop(producer_id, {}).items():
            holds = commit and offset > self._newest.get(key, -1)
            if holds:
                self._newest[key] = offset
            self._close(key)
            if holds:
                brought.append((key, value))
        return brought

    def drop(self, key: Key) -> None:
        """A tombstone: what is pending for the key is void."""
        if not self.is_open(*key):
            return
        for pending in self._by_producer.values():
            if pending.pop(key, None) is not None:
                self._close(key)

    def _close(self, key: Key) -> None:
        group, topic, partition = key
        opened, where = self._open[group], (topic, partition)
        opened[where] -= 1
        if not opened[where]:
            del opened[where]
            self._newest.pop(key, None)
            if not opened:
                del self._open[group]

    def clear(self) -> None:
        self._by_producer.clear()
        self._open.clear()
        self._newest.clear()
        self._verified.clear()
        self._epochs.clear()

    # -- reading --------------------------------------------------------------------------------------------------------------------

    def is_open(self, group: str, topic: str, partition: int) -> bool:
        return (topic, partition) in self._open.get(group, ())

    def of_group(self, group: str) -> list[tuple[str, int]]:
        """(topic, partition) of what is open for a group."""
        return list(self._open.get(group, ()))

    @property
    def groups(self) -> list[str]:
        """Those with something open."""
        return list(self._open)

    @property
    def transactions(self) -> int:
        return len(self._by_producer)
