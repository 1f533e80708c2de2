"""What the admin sees and does of transactions (KIP-664): those of a cluster, the producers of a partition, and how either is ended."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from fastlog.client import checks
from fastlog.client.cluster import COORDINATOR_ERRORS, TRANSACTION, Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClientTimeoutError, UnreachableError
from fastlog.client.records import TopicPartition
from fastlog.protocol.messages import Message

# What is refused for a moment only: the coordinator moves, or ends the transaction before.
PASSING = (*COORDINATOR_ERRORS, 51)
UNSUPPORTED_VERSION = 35
STATES = ("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "PrepareEpochFence", "Dead")
# Nobody begins a transaction with what fencing returns: any timeout will do that brokers take (transaction.max.timeout.ms, 15 minutes).
FENCING_TIMEOUT_MS = 60_000
PAUSE_S = 0.1


class TransactionalId(NamedTuple):
    """A transactional id, as `Admin.transactions` lists it."""

    id: str
    producer_id: int
    state: str  # Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit or CompleteAbort
    coordinator: int  # broker id


class Transaction(NamedTuple):
    """A transactional id and its transaction, as `Admin.transaction` tells."""

    id: str
    producer_id: int
    producer_epoch: int
    state: str  # as of TransactionalId
    timeout_ms: int  # the producer's transaction_timeout_ms
    start_ms: int | None  # of the transaction that is open, or was last; milliseconds since the epoch; None: there was none
    partitions: list[TopicPartition]  # of the open one, by name and number


class PartitionProducer(NamedTuple):
    """An idempotent or transactional producer that wrote to a partition, as the partition's leader knows it."""

    producer_id: int
    producer_epoch: int
    last_sequence: int  # of its last record; -1: not known
    last_timestamp: int  # of its last batch, milliseconds since the epoch; -1: not known
    coordinator_epoch: int | None  # of the last marker; None: none was written yet
    start_offset: int | None  # of the first record of its open transaction; None: none is open


class Fenced(NamedTuple):
    """What a transactional id has now; the next producer's epoch is higher."""

    producer_id: int
    producer_epoch: int


class TransactionCalls:
    """The calls, which `Admin` describes. `timeout_s`: of each."""

    def __init__(self, cluster: Cluster, timeout_s: float) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s

    def listed(self, states: Iterable[str], producer_ids: Iterable[int], duration_ms: int | None) -> list[TransactionalId]:
        request: Message = {"state_filters": _checked_states(states), "producer_id_filters": _checked_ids(producer_ids)}
        if duration_ms is not None:
            request["duration_filter"] = checks.checked_number(duration_ms, "duration_ms", bits=64)
        self._cluster.metadata([])
        made = []
        for node in list(self._cluster.nodes):
            said = self._until_done(partial(self._list, request, node), _code, "list transactions")
            made += [
                TransactionalId(t["transactional_id"], t["producer_id"], t["transaction_state"], node) for t in said["transaction_states"]
            ]
        return sorted(made)

    def _list(self, request: Message, node: int) -> Message:
        if "duration_filter" in request and self._cluster.connection(node).version("ListTransactions") == 0:
            raise error_for(UNSUPPORTED_VERSION, "list transactions", "a broker before Kafka 3.8 can't look for them by duration_ms")
        return self._cluster.call("ListTransactions", request, node=node, timeout_s=self._timeout_s)

    def described(self, name: str) -> Transaction:
        request = {"transactional_ids": [checks.checked_name(name, "transactional_id")]}
        said = self._at_coordinator(name, "DescribeTransactions", request, _first_code, f"describe transactional id {name!r}")
        found = said["transaction_states"][0]
        return Transaction(
            name,
            found["producer_id"],
            found["producer_epoch"],
            found["transaction_state"],
            found["transaction_timeout_ms"],
            found["transaction_start_time_ms"] if found["transaction_start_time_ms"] >= 0 else None,
            sorted(TopicPartition(t["topic"], n) for t in found["topics"] for n in t["partitions"]),
        )

    def producers(self, topic: str, partition: int) -> list[PartitionProducer]:
        at = checks.checked_one((topic, partition))
        found = self._cluster.call_by_leader(
            "DescribeProducers",
            {at: at.partition},
            {},
            "describe the producers of",
            timeout_s=self._timeout_s,
            entries_are="partition_indexes",
        )
        made = []
        for p in found[at]["active_producers"]:
            epoch, start = p["coordinator_epoch"], p["current_txn_start_offset"]
            made.append(
                PartitionProducer(
                    p["producer_id"],
                    p["producer_epoch"],
                    p["last_sequence"],
                    p["last_timestamp"],
                    epoch if epoch >= 0 else None,
                    start if start >= 0 else None,
                )
            )
        return sorted(made, key=lambda p: p.producer_id)

    def abort(self, topic: str, partition: int, producer_id: int, producer_epoch: int, coordinator_epoch: int | None) -> None:
        at = checks.checked_one((topic, partition))
        marker = {
            "producer_id": checks.checked_number(producer_id, "producer_id", bits=64),
            "producer_epoch": checks.checked_number(producer_epoch, "producer_epoch", bits=16),
            # Where none is known, the least there is: higher ones would shut out the coordinator.
            "coordinator_epoch": 0 if coordinator_epoch is None else checks.checked_number(coordinator_epoch, "coordinator_epoch", bits=32),
            "transaction_result": False,
        }
        self._cluster.call_by_leader(
            "WriteTxnMarkers",
            {at: at.partition},
            marker,
            f"abort the transaction of producer {producer_id} in",
            timeout_s=self._timeout_s,
            inside="markers",
            entries_are="partition_indexes",
        )

    def fence(self, names: Iterable[str]) -> dict[str, Fenced]:
        made = {}
        for name in checks.checked_names(names, "transactional_id"):
            request = {"transactional_id": name, "transaction_timeout_ms": FENCING_TIMEOUT_MS}
            said = self._at_coordinator(name, "InitProducerId", request, _code, f"fence the producers of {name!r}")
            made[name] = Fenced(said["producer_id"], said["producer_epoch"])
        return made

    def _at_coordinator(self, key: str, name: str, request: Message, code_of: Callable[[Message], int], what: str) -> Message:
        """Asks the broker that coordinates a transactional id."""

        def ask() -> Message:
            node = self._cluster.coordinator(key, TRANSACTION)
            return self._cluster.call(name, request, node=node, timeout_s=self._timeout_s)

        return self._until_done(ask, code_of, what)

    def _until_done(self, ask: Callable[[], Message], code_of: Callable[[Message], int], what: str) -> Message:
        """Asks again while the refusal is a passing one. Raises ClientTimeoutError."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                said = ask()
                code = code_of(said)
                if code == 0:
                    return said
                error: ClientError = error_for(code, what)
                if code not in PASSING and not error.retriable:
                    raise error
            except UnreachableError as failed:
                error = failed
            if time.monotonic() > deadline:
                raise ClientTimeoutError(f"{what}: not done in time: {error}") from error
            time.sleep(PAUSE_S)


def _checked_states(states: Iterable[str]) -> list[str]:
    given = checks.checked_names(states, "state")
    for one in given:
        if one not in STATES:
            raise ValueError(f"state {one!r}: expected one of {', '.join(STATES)}")
    return given


def _checked_ids(producer_ids: Iterable[int]) -> list[int]:
    if isinstance(producer_ids, (str, bytes)) or not isinstance(producer_ids, Iterable):
        raise TypeError(f"producer_ids: expected a list of integers, not {producer_ids!r}")
    return [checks.checked_number(one, "producer_id", bits=64) for one in producer_ids]


def _code(said: Message) -> int:
    return int(said["error_code"])


def _first_code(said: Message) -> int:
    return int(said["transaction_states"][0]["error_code"])
