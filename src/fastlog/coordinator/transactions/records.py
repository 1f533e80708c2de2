"""What the coordinator writes to `__transaction_state`, in Kafka's own key and value formats, as Kafka 4.3 writes them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from fastlog.coordinator.transactions.state import NO_EPOCH, Partition, State, Transaction
from fastlog.protocol.messages import decode_data, encode_data

_KEY: Final = 0
_VALUE: Final = 1  # the flexible version, which transaction.version 1 and above write
_INT16 = struct.Struct(">h")
_KEY_PREFIX: Final = _INT16.pack(_KEY)
_VALUE_PREFIX: Final = _INT16.pack(_VALUE)


class TransactionRecord(NamedTuple):
    """A transactional id's state; `value` None: it expired."""

    transactional_id: str
    value: Transaction | None


def encode(record: TransactionRecord) -> tuple[bytes, bytes | None]:
    """Key and value of a record."""
    key = _KEY_PREFIX + encode_data("transaction_log_key", _KEY, {"transactional_id": record.transactional_id})
    txn = record.value
    if txn is None:
        return key, None
    fields = {
        "producer_id": txn.producer_id,
        "previous_producer_id": txn.previous_producer_id,
        "next_producer_id": txn.next_producer_id,
        "producer_epoch": txn.epoch,
        "transaction_timeout_ms": txn.timeout_ms,
        "transaction_status": txn.state,
        "transaction_partitions": None if txn.state is State.EMPTY else by_topic(txn.partitions),
        "transaction_last_update_timestamp_ms": txn.update_ms,
        "transaction_start_timestamp_ms": txn.start_ms,
        "client_transaction_version": txn.client_version,
    }
    return key, _VALUE_PREFIX + encode_data("transaction_log_value", _VALUE, fields)


def by_topic(partitions: frozenset[Partition]) -> list[dict[str, object]]:
    """`topic` and `partition_ids` of each topic, in order."""
    topics: dict[str, list[int]] = {}
    for topic, index in sorted(partitions):
        topics.setdefault(topic, []).append(index)
    return [{"topic": topic, "partition_ids": indexes} for topic, indexes in topics.items()]


def decode(key: bytes, value: bytes | None) -> TransactionRecord | None:
    """The record of a key and value from the log; None for a kind that is not known. Raises ValueError for one that can't be read."""
    if len(key) < _INT16.size:
        raise ValueError("a key of less than two bytes")
    if not key.startswith(_KEY_PREFIX):
        return None
    transactional_id: str = decode_data("transaction_log_key", _KEY, key[2:])["transactional_id"]
    if value is None:
        return TransactionRecord(transactional_id, None)
    if len(value) < _INT16.size:
        raise ValueError("a value of less than two bytes")
    (version,) = _INT16.unpack_from(value)
    if not 0 <= version <= _VALUE:
        raise ValueError(f"a value of version {version}")
    fields = decode_data("transaction_log_value", version, value[2:])
    state = State(fields["transaction_status"])
    topics = fields["transaction_partitions"] or ()
    return TransactionRecord(
        transactional_id,
        Transaction(
            producer_id=fields["producer_id"],
            previous_producer_id=fields["previous_producer_id"],
            next_producer_id=fields["next_producer_id"],
            epoch=fields["producer_epoch"],
            last_epoch=NO_EPOCH,
            timeout_ms=fields["transaction_timeout_ms"],
            state=state,
            partitions=frozenset((topic["topic"], index) for topic in topics for index in topic["partition_ids"]),
            start_ms=fields["transaction_start_timestamp_ms"],
            update_ms=fields["transaction_last_update_timestamp_ms"],
            client_version=fields["client_transaction_version"],
        ),
    )
