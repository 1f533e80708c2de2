"""A transactional id's state and its transitions (Kafka 4.3's TransactionMetadata), as values: each transition makes a new one."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from fastlog.protocol.errors import Error, KafkaError

NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
NO_TIME: Final = -1
EPOCH_MAX: Final = 32_767
EPOCH_BUMPS: Final = 2
"""The version of the transaction protocol from which on every end of a transaction has an epoch of its own (KIP-890's second part)."""

Partition = tuple[str, int]  # topic, index


class State(IntEnum):
    """Values are those in the log."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def shown(self) -> str:
        """As DescribeTransactions and ListTransactions name it: "PrepareCommit"."""
        return "".join(word.capitalize() for word in self.name.split("_"))


PREPARED: Final = frozenset((State.PREPARE_COMMIT, State.PREPARE_ABORT))
AT_REST: Final = frozenset((State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT))
STATE_OF_NAME: Final = {state.shown: state for state in State}


class Transaction(NamedTuple):
    """What a record of `__transaction_state` says, but for `last_epoch`, which is not stored (as in Kafka: a retry that spans a restart is
    taken for a fenced producer). Times are wall clock milliseconds."""

    producer_id: int
    previous_producer_id: int
    next_producer_id: int
    """The id that takes over when this transaction is complete, as the epochs are used up."""
    epoch: int
    last_epoch: int
    """The epoch before the last bump that its producer asked for: what a retry of that request brings."""
    timeout_ms: int
    state: State
    partitions: frozenset[Partition]
    start_ms: int
    update_ms: int
    client_version: int
    """Of the transaction protocol that its producer spoke when the state changed: 0, 1 or 2."""

    @property
    def exhausted(self) -> bool:
        """The last epoch but one is never given out, so that a producer can always be fenced."""
        return self.epoch >= EPOCH_MAX - 1

    @property
    def committed(self) -> bool:
        return self.state in (State.PREPARE_COMMIT, State.COMPLETE_COMMIT)


def new(producer_id: int, timeout_ms: int, now_ms: int) -> Transaction:
    """Of a transactional id that is seen for the first time. It has no epoch yet and is not stored so."""
    return Transaction(
        producer_id, NO_PRODUCER_ID, NO_PRODUCER_ID, NO_EPOCH, NO_EPOCH, timeout_ms, State.EMPTY, frozenset(), NO_TIME, now_ms, 0
    )


def rotated(txn: Transaction, producer_id: int, timeout_ms: int, now_ms: int, *, asked_by_epoch: bool) -> Transaction:
    """A new producer id, as the epochs of the old one are used up."""
    return txn._replace(
        producer_id=producer_id,
        previous_producer_id=txn.producer_id,
        epoch=0,
        last_epoch=txn.epoch if asked_by_epoch else NO_EPOCH,
        timeout_ms=timeout_ms,
        state=State.EMPTY,
        partitions=frozenset(),
        start_ms=NO_TIME,
        update_ms=now_ms,
    )


def initialized(txn: Transaction, expected_epoch: int | None, timeout_ms: int, now_ms: int) -> Transaction:
    """The epoch is bumped, or for a retry is not. `expected_epoch`: that the producer says it has. Raises KafkaError PRODUCER_FENCED."""
    if expected_epoch is None:
        epoch, last_epoch = txn.epoch + 1, NO_EPOCH
    elif txn.epoch in (NO_EPOCH, expected_epoch):
        epoch, last_epoch = txn.epoch + 1, txn.epoch
    elif expected_epoch == txn.last_epoch:
        epoch, last_epoch = txn.epoch, txn.last_epoch
    else:
        raise KafkaError(Error.PRODUCER_FENCED)
    return txn._replace(
        previous_producer_id=txn.producer_id,
        epoch=epoch,
        last_epoch=last_epoch,
        timeout_ms=timeout_ms,
        state=State.EMPTY,
        partitions=frozenset(),
        start_ms=NO_TIME,
        update_ms=now_ms,
    )


def with_partitions(txn: Transaction, partitions: frozenset[Partition], client_version: int, now_ms: int) -> Transaction:
    """Begins a transaction unless one is under way, and adds partitions to it."""
    return txn._replace(
        previous_producer_id=txn.producer_id,
        state=State.ONGOING,
        partitions=txn.partitions | partitions,
        start_ms=now_ms if txn.state in AT_REST else txn.start_ms,
        update_ms=now_ms,
        client_version=client_version,
    )


def prepared(
    txn: Transaction, *, commit: bool, client_version: int, next_producer_id: int, now_ms: int, nothing_added: bool = False
) -> Transaction:
    """The decision. `nothing_added`: an abort when no transaction is under way, which is there for its bump of the epoch."""
    epoch, last_epoch = txn.epoch, txn.last_epoch
    if client_version >= EPOCH_BUMPS:
        last_epoch = epoch
        epoch = min(epoch + 1, EPOCH_MAX)
    return txn._replace(
        previous_producer_id=txn.producer_id,
        next_producer_id=next_producer_id,
        epoch=epoch,
        last_epoch=last_epoch,
        state=State.PREPARE_COMMIT if commit else State.PREPARE_ABORT,
        start_ms=now_ms if nothing_added else txn.start_ms,
        update_ms=now_ms,
        client_version=client_version,
    )


def completed(txn: Transaction, now_ms: int) -> Transaction:
    """All markers are written. After an overflow of the epoch the new producer id takes over, and `last_epoch` stays what clients saw."""
    takes_over = txn.client_version >= EPOCH_BUMPS and txn.next_producer_id != NO_PRODUCER_ID
    return txn._replace(
        producer_id=txn.next_producer_id if takes_over else txn.producer_id,
        previous_producer_id=txn.producer_id,
        next_producer_id=NO_PRODUCER_ID,
        epoch=0 if takes_over else txn.epoch,
        state=State.COMPLETE_COMMIT if txn.committed else State.COMPLETE_ABORT,
        partitions=frozenset(),
        update_ms=now_ms,
    )
