"""The transaction coordinator of one partition of `__transaction_state`: its transactional ids, by the rules of Kafka 4.3's.

Pure state. A change under way to the log makes its transactional id `pending`, and whoever wants to change it meanwhile gets
CONCURRENT_TRANSACTIONS; it stays so from the decision to commit or abort until all markers are written and the end is in the log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastlog.coordinator.operation import Result
from fastlog.coordinator.printable import printable
from fastlog.coordinator.transactions import state as transitions
from fastlog.coordinator.transactions.records import TransactionRecord, by_topic, decode, encode
from fastlog.coordinator.transactions.state import (
    AT_REST,
    EPOCH_BUMPS,
    EPOCH_MAX,
    NO_EPOCH,
    NO_PRODUCER_ID,
    PREPARED,
    Partition,
    State,
    Transaction,
)
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlog.coordinator.operation import Clock
    from fastlog.coordinator.transactions.settings import Metrics, Settings

log = logging.getLogger("fastlog.transactions")

Message: TypeAlias = dict[str, Any]
_NO_TIMEOUT: Final = 2**31 - 1  # of transactions that somebody else coordinates (two-phase commit)


class NeedsProducerId(Exception):  # noqa: N818 - a request, not an error
    """The operation is to be tried again with a new producer id."""


@dataclass(slots=True, eq=False)
class Entry:
    """A transactional id. `value` is what the log has, `pending` the state that it is on its way to; `unmarked` are the partitions that
    still wait for the marker of a decision."""

    transactional_id: str
    value: Transaction
    pending: State | None = None
    unmarked: set[Partition] = field(default_factory=set)
    waiters: list[Callable[[], None]] = field(default_factory=list)
    """To be called when it is no longer pending."""

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Transactions:
    """All transactional ids of one partition. Operations raise KafkaError; those with a `new_id` raise NeedsProducerId without one."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics, on_decided: Callable[[Entry], None]) -> None:
        """`on_decided`: a decision is in the log: markers are to be written, then `complete`d."""
        self.entries: dict[str, Entry] = {}
        self._ongoing: dict[str, Entry] = {}
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._on_decided = on_decided

    # -- InitProducerId -------------------------------------------------------------------------------------------------------------

    def init_producer(self, transactional_id: str, timeout_ms: int, expected: tuple[int, int] | None, new_id: int | None) -> Result:
        """The response has the producer id and epoch. `expected`: those that the producer says it has. An open transaction is aborted, and
        the producer has to come again (CONCURRENT_TRANSACTIONS)."""
        now_ms = self._clock.now_ms()
        entry = self.entries.get(transactional_id)
        if entry is None:
            entry = Entry(transactional_id, transitions.new(_given(new_id), timeout_ms, now_ms))
            self.entries[transactional_id] = entry
        txn = entry.value
        if entry.pending is not None:
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
        if expected is not None and not _may_go_on(txn, *expected):
            raise KafkaError(Error.PRODUCER_FENCED)
        if txn.state in PREPARED:
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
        if txn.state is State.ONGOING:
            result = self._fence(entry, new_id, {"error_code": Error.CONCURRENT_TRANSACTIONS})
            log.info("%s: a new producer fences the one before, whose transaction is aborted", printable(transactional_id))
            return result
        if txn.exhausted and (expected is None or expected[1] == txn.epoch):
            value = transitions.rotated(txn, _given(new_id), timeout_ms, now_ms, asked_by_epoch=expected is not None)
        else:
            value = transitions.initialized(txn, None if expected is None else expected[1], timeout_ms, now_ms)
        self._metrics.producers_initialized += 1
        return self._change(entry, value, {"error_code": Error.NONE, "producer_id": value.producer_id, "producer_epoch": value.epoch})

    # -- partitions -----------------------------------------------------------------------------------------------------------------

    def add_partitions(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: frozenset[Partition], client_version: int
    ) -> Result:
        """Begins a transaction unless one is under way."""
        entry = self._known(transactional_id)
        if entry.pending is not None:
            # First, as the producer may have an id already that takes over when the transaction before is complete.
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
        self._check_producer(entry.value, producer_id, epoch)
        if entry.value.state is State.ONGOING and partitions <= entry.value.partitions:
            return Result()
        return self._change(entry, transitions.with_partitions(entry.value, partitions, client_version, self._clock.now_ms()))

    def verify_partitions(self, transactional_id: str, producer_id: int, epoch: int, partitions: Sequence[Partition]) -> list[Error]:
        """Whether each is in the producer's transaction."""
        txn = self._known(transactional_id).value
        self._check_producer(txn, producer_id, epoch)
        return [Error.NONE if each in txn.partitions else Error.TRANSACTION_ABORTABLE for each in partitions]

    def _known(self, transactional_id: str) -> Entry:
        entry = self.entries.get(transactional_id)
        if entry is None:
            raise KafkaError(Error.INVALID_PRODUCER_ID_MAPPING)
        return entry

    @staticmethod
    def _check_producer(txn: Transaction, producer_id: int, epoch: int) -> None:
        if txn.producer_id != producer_id:
            raise KafkaError(Error.INVALID_PRODUCER_ID_MAPPING)
        if txn.epoch != epoch:
            raise KafkaError(Error.PRODUCER_FENCED)
        if txn.state in PREPARED:
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)

    # -- EndTxn ---------------------------------------------------------------------------------------------------------------------

    def end_transaction(
        self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool, client_version: int, new_id: int | None
    ) -> Result:
        """The response has the producer id and epoch for the next transaction, if the client's version has them."""
        entry = self._known(transactional_id)
        if client_version < EPOCH_BUMPS:
            return self._end_keeping_epoch(entry, producer_id, epoch, commit=commit)
        return self._end_bumping_epoch(entry, producer_id, epoch, commit=commit, new_id=new_id)

    def _end_keeping_epoch(self, entry: Entry, producer_id: int, epoch: int, *, commit: bool) -> Result:
        txn = entry.value
        if txn.producer_id != producer_id:
            raise KafkaError(Error.INVALID_PRODUCER_ID_MAPPING)
        if txn.epoch != epoch:
            raise KafkaError(Error.PRODUCER_FENCED)
        if entry.pending is not None:
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
        response = _ended(NO_PRODUCER_ID, NO_EPOCH)
        if txn.state is State.ONGOING:
            value = transitions.prepared(txn, commit=commit, client_version=0, next_producer_id=NO_PRODUCER_ID, now_ms=self._clock.now_ms())
            return self._change(entry, value, response)
        if txn.state is not State.EMPTY and txn.committed == commit:
            if txn.state in PREPARED:
                raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
            return Result(response=response)  # a retry
        raise KafkaError(Error.INVALID_TXN_STATE)

    def _end_bumping_epoch(self, entry: Entry, producer_id: int, epoch: int, *, commit: bool, new_id: int | None) -> Result:
        """The epoch tells a retry of the request before (one below the current) from a new one (the current)."""
        txn = entry.value
        after_overflow = txn.previous_producer_id == producer_id and epoch == EPOCH_MAX - 1 and txn.epoch == 0
        after_bump = txn.epoch == epoch + 1
        if txn.producer_id != producer_id and not after_overflow:
            raise KafkaError(Error.INVALID_PRODUCER_ID_MAPPING)
        if txn.state in PREPARED:
            valid = after_bump
        elif txn.state in (State.COMPLETE_COMMIT, State.COMPLETE_ABORT):
            valid = after_bump or after_overflow or txn.epoch == epoch
        else:
            valid = txn.epoch == epoch
        if not valid:
            raise KafkaError(Error.PRODUCER_FENCED)
        if entry.pending is not None:
            raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
        retry = after_bump or after_overflow
        if retry and txn.state is not State.ONGOING:
            if txn.committed != commit:
                raise KafkaError(Error.INVALID_TXN_STATE)
            if txn.state in PREPARED:
                raise KafkaError(Error.CONCURRENT_TRANSACTIONS)
            return Result(response=_ended(txn.producer_id, txn.epoch))
        if commit and txn.state is not State.ONGOING:
            raise KafkaError(Error.INVALID_TXN_STATE)
        value = transitions.prepared(
            txn,
            commit=commit,
            client_version=EPOCH_BUMPS,
            next_producer_id=_given(new_id) if txn.exhausted else NO_PRODUCER_ID,
            now_ms=self._clock.now_ms(),
            nothing_added=txn.state is not State.ONGOING,
        )
        after = transitions.completed(value, value.update_ms)
        return self._change(entry, value, _ended(after.producer_id, after.epoch))

    def complete(self, entry: Entry) -> Result:
        """All partitions have their markers."""
        if self.entries.get(entry.transactional_id) is not entry:
            raise KafkaError(Error.NOT_COORDINATOR)
        value = transitions.completed(entry.value, self._clock.now_ms())
        entry.pending = value.state
        return self._change(entry, value)

    # -- time -----------------------------------------------------------------------------------------------------------------------

    def timed_out(self) -> list[Entry]:
        """Those whose transaction has been open for too long."""
        now_ms = self._clock.now_ms()
        return [
            entry
            for entry in self._ongoing.values()
            if entry.pending is None and entry.value.timeout_ms != _NO_TIMEOUT and entry.value.start_ms + entry.value.timeout_ms < now_ms
        ]

    def abort(self, entry: Entry, new_id: int | None) -> Result:
        """Aborts a transaction that has timed out, if it is still open, and fences its producer."""
        if self.entries.get(entry.transactional_id) is not entry or entry.pending is not None or entry.value.state is not State.ONGOING:
            return Result()
        result = self._fence(entry, new_id)
        log.info("%s: its transaction has timed out after %d ms", printable(entry.transactional_id), entry.value.timeout_ms)
        self._metrics.transactions_timed_out += 1
        return result

    def _fence(self, entry: Entry, new_id: int | None, response: Message | None = None) -> Result:
        txn = entry.value
        value = transitions.prepared(
            txn,
            commit=False,
            client_version=EPOCH_BUMPS,
            next_producer_id=_given(new_id) if txn.exhausted else NO_PRODUCER_ID,
            now_ms=self._clock.now_ms(),
        )
        self._metrics.producers_fenced += 1
        return self._change(entry, value, response)

    def sweep(self) -> Result:
        """Forgets transactional ids that nobody has used for `transactional.id.expiration.ms`."""
        before_ms = self._clock.now_ms() - self._settings.expiration_ms
        doomed = [
            entry
            for entry in self.entries.values()
            if entry.pending is None and entry.value.state in AT_REST and entry.value.update_ms <= before_ms
        ]
        for entry in doomed:
            entry.pending = State.DEAD
        records = [TransactionRecord(entry.transactional_id, None) for entry in doomed]
        return Result(records, done=partial(self._expired, doomed), divisible=True)

    def _expired(self, doomed: list[Entry], error: Error) -> None:
        for entry in doomed:
            if self.entries.get(entry.transactional_id) is entry:  # it could not be written
                entry.pending = None
            else:
                self._metrics.ids_expired += 1
            entry.wake()

    # -- administration -------------------------------------------------------------------------------------------------------------

    def describe(self, transactional_id: str) -> Message:
        """One of DescribeTransactions."""
        entry = self.entries.get(transactional_id)
        if entry is None:
            raise KafkaError(Error.TRANSACTIONAL_ID_NOT_FOUND)
        txn = entry.value
        partitions = frozenset(entry.unmarked) if txn.state in PREPARED else txn.partitions
        return {
            "error_code": Error.NONE,
            "transactional_id": transactional_id,
            "transaction_state": txn.state.shown,
            "transaction_timeout_ms": txn.timeout_ms,
            "transaction_start_time_ms": txn.start_ms,
            "producer_id": txn.producer_id,
            "producer_epoch": txn.epoch,
            "topics": [{"topic": topic["topic"], "partitions": topic["partition_ids"]} for topic in by_topic(partitions)],
        }

    @property
    def ongoing(self) -> int:
        return len(self._ongoing)

    # -- the log, see StateMachine --------------------------------------------------------------------------------------------------

    def _change(self, entry: Entry, value: Transaction, response: Message | None = None) -> Result:
        entry.pending = value.state
        return Result([TransactionRecord(entry.transactional_id, value)], response, done=partial(self._changed, entry))

    def _changed(self, entry: Entry, error: Error) -> None:
        """How the append of a change ended; it has been replayed."""
        entry.pending = None
        if error is not Error.NONE:
            if entry.value.epoch == NO_EPOCH and self.entries.get(entry.transactional_id) is entry:
                del self.entries[entry.transactional_id]  # nothing of it is in the log
        elif entry.value.state in PREPARED:
            self._decided(entry)
            return
        else:
            self._metrics.transactions_committed += entry.value.state is State.COMPLETE_COMMIT
            self._metrics.transactions_aborted += entry.value.state is State.COMPLETE_ABORT
        entry.wake()

    def _decided(self, entry: Entry) -> None:
        entry.pending = State.COMPLETE_COMMIT if entry.value.committed else State.COMPLETE_ABORT
        self._on_decided(entry)

    def encode(self, records: Sequence[TransactionRecord]) -> list[tuple[bytes, bytes | None]]:
        return [encode(record) for record in records]

    def decode(self, key: bytes, value: bytes | None) -> TransactionRecord | None:
        return decode(key, value)

    def begin(self, records: Sequence[TransactionRecord]) -> None:
        """`pending` says it."""

    def end(self, records: Sequence[TransactionRecord]) -> None:
        """Likewise."""

    def replay(self, record: TransactionRecord, offset: int = 0, producer_id: int = -1) -> None:
        transactional_id, value = record
        self._ongoing.pop(transactional_id, None)
        if value is None:
            self.entries.pop(transactional_id, None)
            return
        entry = self.entries.get(transactional_id)
        if entry is None:
            entry = self.entries[transactional_id] = Entry(transactional_id, value)
        entry.value = value
        if value.state is State.ONGOING:
            self._ongoing[transactional_id] = entry
        elif value.state in PREPARED:
            entry.unmarked = set(value.partitions)
        else:
            entry.unmarked.clear()

    def replay_all(self, records: Sequence[TransactionRecord], offset: int, producer_id: int) -> None:
        for record in records:
            self.replay(record)

    def replay_marker(self, producer_id: int, commit: bool) -> None:
        """Nothing here is written inside a transaction."""

    def on_loaded(self) -> list[Result]:
        """What was decided before is brought to its end."""
        for entry in self.entries.values():
            if entry.value.state in PREPARED:
                self._decided(entry)
        return []

    def unload(self) -> None:
        entries = list(self.entries.values())
        self.entries.clear()
        self._ongoing.clear()
        for entry in entries:
            entry.wake()

    def summary(self) -> str:
        return f"{len(self.entries)} transactional ids"


def _given(new_id: int | None) -> int:
    if new_id is None:
        raise NeedsProducerId
    return new_id


def _may_go_on(txn: Transaction, producer_id: int, epoch: int) -> bool:
    """Whether a producer that says it has this id and epoch is not fenced by its id: a transactional id that has just been made knows no
    epoch, and one whose producer id was replaced as its epochs were used up may be asked again by who did not hear of it."""
    if txn.epoch == NO_EPOCH or producer_id == txn.producer_id:
        return True
    return producer_id == txn.previous_producer_id and epoch >= EPOCH_MAX - 1


def _ended(producer_id: int, epoch: int) -> Message:
    return {"error_code": Error.NONE, "producer_id": producer_id, "producer_epoch": epoch}
