"""The transaction coordinator's state machine: every request in every state, by Kafka 4.3's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fastlog.coordinator.transactions.machine import NeedsProducerId, Transactions
from fastlog.coordinator.transactions.records import TransactionRecord, decode, encode
from fastlog.coordinator.transactions.settings import Metrics, Settings
from fastlog.coordinator.transactions.state import EPOCH_MAX, STATE_OF_NAME, State, Transaction
from fastlog.protocol.errors import Error, KafkaError
from tests.coordinator.fakes import EPOCH_MS, FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlog.coordinator.operation import Result
    from fastlog.coordinator.transactions.machine import Entry

P0, P1, OFFSETS = ("t", 0), ("t", 1), ("__consumer_offsets", 3)


class Bench:
    """One partition, whose log takes records at once (`hold`: when told to; `failing`: not), and whose markers are written when told to."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.decided: list[Entry] = []
        self.shard = Transactions(Settings(**settings), self.clock, self.metrics, self.decided.append)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.hold = False
        self.held: list[Result] = []
        self.failing = Error.NONE
        self.next_id = 1000

    def run(self, operation: Callable[[int | None], Result]) -> dict[str, Any]:
        try:
            result = operation(None)
        except NeedsProducerId:
            self.next_id += 1
            result = operation(self.next_id)
        self.held.append(result)
        if not self.hold:
            self.release()
        return result.response or {}

    def release(self) -> None:
        held, self.held = self.held, []
        for result in held:
            if self.failing is Error.NONE:
                for record in result.records:
                    self.log.append(encode(record))
                    self.shard.replay(record)
            if result.done is not None:
                result.done(self.failing)

    def init(self, expected: tuple[int, int] | None = None, timeout: int = 60_000) -> dict[str, Any]:
        return self.run(lambda new_id: self.shard.init_producer("x", timeout, expected, new_id))

    def add(self, producer: tuple[int, int], *partitions: tuple[str, int], version: int = 2) -> None:
        self.run(lambda _: self.shard.add_partitions("x", *producer, frozenset(partitions or {P0}), version))

    def end(self, producer: tuple[int, int], commit: bool, version: int = 2) -> tuple[int, int]:
        response = self.run(lambda new_id: self.shard.end_transaction("x", *producer, commit=commit, client_version=version, new_id=new_id))
        return response["producer_id"], response["producer_epoch"]

    def finish(self) -> None:
        """All markers are written."""
        decided, self.decided[:] = list(self.decided), []
        for entry in decided:
            self._complete(entry)

    def _complete(self, entry: Entry) -> None:
        self.run(lambda _: self.shard.complete(entry))

    def new(self, timeout: int = 60_000) -> tuple[int, int]:
        response = self.init(timeout=timeout)
        assert response["error_code"] == Error.NONE
        return response["producer_id"], response["producer_epoch"]

    @property
    def value(self) -> Transaction:
        return self.shard.entries["x"].value

    @property
    def state(self) -> State:
        return self.value.state

    def put(self, **fields: Any) -> tuple[int, int]:
        """Puts the id into a state, as if it had been loaded."""
        base = Transaction(1, 1, -1, 5, -1, 60_000, State.EMPTY, frozenset(), -1, EPOCH_MS, 2)
        self.shard.replay(TransactionRecord("x", base._replace(**fields)))
        return self.value.producer_id, self.value.epoch

    def restarted(self) -> Bench:
        bench = Bench()
        bench.clock = self.clock
        for key, value in self.log:
            record = decode(key, value)
            assert record is not None
            bench.shard.replay(record)
        bench.shard.on_loaded()
        return bench


def refused(error: Error) -> Any:
    return pytest.raises(KafkaError, match=f"^{error.name}")


# -- InitProducerId -----------------------------------------------------------------------------------------------------------------


def test_a_producer_gets_an_id_and_then_epochs() -> None:
    bench = Bench()
    assert bench.new() == (1001, 0)
    assert bench.new() == (1001, 1)
    assert bench.state is State.EMPTY
    assert bench.value.last_epoch == -1


def test_a_retry_with_the_epoch_before_gets_the_same_answer() -> None:
    bench = Bench()
    producer = bench.new()
    first = bench.init(producer)
    assert (first["producer_id"], first["producer_epoch"]) == (1001, 1)
    again = bench.init(producer)
    assert (again["producer_id"], again["producer_epoch"]) == (1001, 1)


def test_a_fenced_producer_gets_no_new_epoch() -> None:
    bench = Bench()
    old = bench.new()
    bench.new()
    with refused(Error.PRODUCER_FENCED):
        bench.init(old)
    with refused(Error.PRODUCER_FENCED):
        bench.init((77, 1))


def test_used_up_epochs_bring_a_new_producer_id() -> None:
    bench = Bench()
    bench.put(producer_id=1, epoch=EPOCH_MAX - 1, state=State.COMPLETE_COMMIT)
    answer = bench.init((1, EPOCH_MAX - 1))
    assert (answer["producer_id"], answer["producer_epoch"]) == (1001, 0)
    assert (bench.value.previous_producer_id, bench.value.last_epoch) == (1, EPOCH_MAX - 1)
    again = bench.init((1, EPOCH_MAX - 1))  # it did not hear of it
    assert (again["producer_id"], again["producer_epoch"]) == (1001, 0)


def test_a_new_producer_aborts_what_the_one_before_left_open() -> None:
    bench = Bench()
    old = bench.new()
    bench.add(old)
    assert bench.init()["error_code"] == Error.CONCURRENT_TRANSACTIONS
    assert bench.state is State.PREPARE_ABORT
    assert bench.value.epoch == old[1] + 1
    with refused(Error.CONCURRENT_TRANSACTIONS):
        bench.init()
    bench.finish()
    assert bench.new() == (1001, old[1] + 2)
    with refused(Error.PRODUCER_FENCED):
        bench.add(old)
    with refused(Error.PRODUCER_FENCED):
        bench.end(old, True, 0)


def test_a_failed_append_leaves_nothing() -> None:
    bench = Bench()
    bench.failing = Error.KAFKA_STORAGE_ERROR
    bench.init()
    assert bench.shard.entries == {}
    bench.failing = Error.NONE
    producer = bench.new()
    bench.failing = Error.KAFKA_STORAGE_ERROR
    bench.add(producer)
    assert not bench.value.partitions
    bench.failing = Error.NONE
    bench.add(producer)
    assert bench.state is State.ONGOING


# -- partitions ---------------------------------------------------------------------------------------------------------------------


def test_partitions_are_added() -> None:
    bench = Bench()
    producer = bench.new()
    bench.add(producer, P0)
    bench.clock.at_ms += 5
    bench.add(producer, P1, OFFSETS)
    assert bench.value.partitions == {P0, P1, OFFSETS}
    assert (bench.value.start_ms, bench.value.update_ms) == (EPOCH_MS, EPOCH_MS + 5)
    records = len(bench.log)
    bench.add(producer, P1)
    assert len(bench.log) == records, "what is in it already is not written again"


def test_one_change_at_a_time() -> None:
    bench = Bench()
    producer = bench.new()
    bench.hold = True
    bench.add(producer, P0)
    for operation in (
        lambda: bench.add(producer, P1),
        lambda: bench.end(producer, True),
        lambda: bench.end(producer, True, 0),
        bench.init,
    ):
        with refused(Error.CONCURRENT_TRANSACTIONS):
            operation()
    bench.release()
    woken: list[int] = []
    bench.shard.entries["x"].waiters.append(lambda: woken.append(1))
    bench.end(producer, True)
    bench.release()
    with refused(Error.CONCURRENT_TRANSACTIONS):
        bench.add((producer[0], producer[1] + 1))
    assert not woken
    bench.finish()
    bench.release()
    assert woken == [1]
    bench.add((producer[0], producer[1] + 1))


def test_who_may_add_partitions() -> None:
    bench = Bench()
    with refused(Error.INVALID_PRODUCER_ID_MAPPING):
        bench.add((1, 0))
    producer_id, epoch = bench.new()
    with refused(Error.INVALID_PRODUCER_ID_MAPPING):
        bench.add((producer_id + 1, epoch))
    for other in (epoch - 1, epoch + 1):
        with refused(Error.PRODUCER_FENCED):
            bench.add((producer_id, other))


def test_verification() -> None:
    bench = Bench()
    with refused(Error.INVALID_PRODUCER_ID_MAPPING):
        bench.shard.verify_partitions("x", 1, 0, [P0])
    producer = bench.new()
    assert bench.shard.verify_partitions("x", *producer, [P0]) == [Error.TRANSACTION_ABORTABLE]
    bench.add(producer, P0)
    assert bench.shard.verify_partitions("x", *producer, [P0, P1]) == [Error.NONE, Error.TRANSACTION_ABORTABLE]
    with refused(Error.PRODUCER_FENCED):
        bench.shard.verify_partitions("x", producer[0], 9, [P0])
    bench.end(producer, True, 0)
    with refused(Error.CONCURRENT_TRANSACTIONS):
        bench.shard.verify_partitions("x", *producer, [P0])
    bench.finish()
    assert bench.shard.verify_partitions("x", *producer, [P0]) == [Error.TRANSACTION_ABORTABLE], "the marker ends what was verified"


# -- EndTxn -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_keeps_the_epoch_before_version_2(commit: bool) -> None:
    bench = Bench()
    producer = bench.new()
    bench.add(producer, version=0)
    assert bench.end(producer, commit, 0) == (-1, -1)
    assert bench.state.shown == ("PrepareCommit" if commit else "PrepareAbort")
    for again in (commit, not commit):
        with refused(Error.CONCURRENT_TRANSACTIONS):  # as there is one on its way, whatever it says
            bench.end(producer, again, 0)
    bench.finish()
    assert bench.state.shown == ("CompleteCommit" if commit else "CompleteAbort")
    assert bench.value.epoch == producer[1]
    assert bench.end(producer, commit, 0) == (-1, -1), "a retry"
    with refused(Error.INVALID_TXN_STATE):
        bench.end(producer, not commit, 0)
    bench.add(producer, version=0)
    assert bench.value.partitions == {P0}


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_bumps_the_epoch_from_version_2_on(commit: bool) -> None:
    bench = Bench()
    producer = bench.new()
    bench.add(producer)
    assert bench.end(producer, commit) == (1001, 1)
    with refused(Error.CONCURRENT_TRANSACTIONS):
        bench.end(producer, commit)
    with refused(Error.PRODUCER_FENCED):
        bench.end((1001, 1), commit)
    bench.finish()
    assert bench.end(producer, commit) == (1001, 1), "a retry"
    with refused(Error.INVALID_TXN_STATE):
        bench.end(producer, not commit)
    with refused(Error.INVALID_TXN_STATE):
        bench.end((1001, 1), True)
    assert bench.end((1001, 1), False) == (1001, 2), "an abort without a transaction bumps the epoch"
    bench.finish()
    assert bench.state is State.COMPLETE_ABORT


def test_ends_without_a_transaction() -> None:
    bench = Bench()
    producer = bench.new()
    for commit in (True, False):
        with refused(Error.INVALID_TXN_STATE):
            bench.end(producer, commit, 0)
    with refused(Error.INVALID_TXN_STATE):
        bench.end(producer, True)
    bench.clock.at_ms += 9
    assert bench.end(producer, False) == (1001, 1)
    assert bench.value.start_ms == EPOCH_MS + 9
    bench.finish()
    with refused(Error.PRODUCER_FENCED):
        bench.end((1001, 5), False)
    with refused(Error.INVALID_PRODUCER_ID_MAPPING):
        bench.end((1, 1), False)


def test_epochs_are_used_up_in_an_end() -> None:
    bench = Bench()
    last = EPOCH_MAX - 1
    producer = bench.put(epoch=last, state=State.ONGOING, partitions=frozenset({P0}), start_ms=EPOCH_MS)
    assert bench.end(producer, True) == (1001, 0), "the producer is given the id that takes over"
    assert (bench.value.producer_id, bench.value.epoch, bench.value.next_producer_id) == (1, EPOCH_MAX, 1001)
    with refused(Error.CONCURRENT_TRANSACTIONS):
        bench.add((1001, 0))
    bench.finish()
    assert (bench.value.producer_id, bench.value.epoch, bench.value.last_epoch) == (1001, 0, last)
    assert bench.end(producer, True) == (1001, 0), "a retry"
    bench.add((1001, 0))
    with refused(Error.INVALID_PRODUCER_ID_MAPPING):
        bench.end(producer, True)


# -- time ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [5, EPOCH_MAX - 1, EPOCH_MAX])
def test_a_transaction_that_takes_too_long_is_aborted(epoch: int) -> None:
    bench = Bench()
    producer = bench.put(epoch=epoch, state=State.ONGOING, partitions=frozenset({P0}), start_ms=EPOCH_MS, timeout_ms=1000)
    bench.clock.at_ms += 1000
    assert bench.shard.timed_out() == []
    bench.clock.at_ms += 1
    (entry,) = bench.shard.timed_out()
    bench.run(lambda new_id: bench.shard.abort(entry, new_id))
    assert (bench.state, bench.value.epoch) == (State.PREPARE_ABORT, min(epoch + 1, EPOCH_MAX))
    assert bench.shard.timed_out() == []
    bench.finish()
    assert bench.state is State.COMPLETE_ABORT
    assert (bench.value.producer_id, bench.value.epoch) == ((1, 6) if epoch == 5 else (1001, 0))
    with pytest.raises(KafkaError) as failure:
        bench.add(producer)
    assert failure.value.code in {Error.PRODUCER_FENCED, Error.INVALID_PRODUCER_ID_MAPPING}
    assert bench.metrics.transactions_timed_out == 1


def test_a_time_out_that_comes_too_late() -> None:
    bench = Bench()
    producer = bench.new(timeout=10)
    bench.add(producer)
    bench.clock.at_ms += 11
    (entry,) = bench.shard.timed_out()
    bench.end(producer, True)
    bench.run(lambda new_id: bench.shard.abort(entry, new_id))
    assert bench.state is State.PREPARE_COMMIT


@pytest.mark.parametrize("state", [state for state in State if state < State.DEAD])  # the others are never in a log
def test_transactional_ids_that_nobody_uses_go(state: State) -> None:
    bench = Bench(expiration_ms=1000)
    bench.put(state=state)
    bench.clock.at_ms += 999
    assert bench.shard.sweep().records == []
    bench.clock.at_ms += 1
    bench.failing = Error.KAFKA_STORAGE_ERROR
    bench.run(lambda _: bench.shard.sweep())
    assert "x" in bench.shard.entries
    bench.failing = Error.NONE
    bench.run(lambda _: bench.shard.sweep())
    goes = state in {State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT}
    assert ("x" not in bench.shard.entries) == goes
    assert bench.metrics.ids_expired == goes
    if goes:
        assert bench.restarted().shard.entries == {}


# -- the log ------------------------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_where_it_was() -> None:
    bench = Bench()
    producer = bench.new()
    bench.add(producer, P0, P1)
    assert bench.restarted().value == bench.value._replace(last_epoch=-1)
    bench.end(producer, True)
    again = bench.restarted()
    (entry,) = again.decided
    assert entry.unmarked == {P0, P1}
    with refused(Error.CONCURRENT_TRANSACTIONS):
        again.add((1001, 1))
    again.finish()
    assert again.state is State.COMPLETE_COMMIT
    assert again.value.epoch == 1


@pytest.mark.parametrize("state", State)
def test_names_are_those_that_kafka_shows(state: State) -> None:
    assert STATE_OF_NAME[state.shown] is state
    assert State.PREPARE_EPOCH_FENCE.shown == "PrepareEpochFence"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [(b"\0", None, "less than two"), (b"\0\0\0\1x", b"\0", "less than two"), (b"\0\0\0\1x", b"\0\2", "version 2")],
)
def test_records_that_can_not_be_read(key: bytes, value: bytes | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(key, value)


def test_records_of_unknown_kinds_are_left_alone() -> None:
    assert decode(b"\0\1\0\1x", b"\0\0") is None
