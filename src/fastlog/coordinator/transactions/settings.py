"""What an operator can set about transactions, under Kafka's names (Kafka 4.3's defaults), and what is counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastlog.coordinator.settings import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMIT_MS: Final = 30_000  # how long the log may take: Kafka's request.timeout.ms


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in milliseconds, sizes in bytes unless a name says otherwise."""

    timeout_max_ms: int = 900_000
    expiration_ms: int = 7 * 24 * 60 * 60_000
    expiration_check_ms: int = 60 * 60_000
    timeout_check_ms: int = 10_000
    wait_max_ms: int = 100  # how long a producer that adds partitions waits for the transaction before to be complete
    commit_ms: int = COMMIT_MS
    load_buffer_size: int = 5 * 1024 * 1024
    topic_partitions: int = 50
    topic_segment_size: int = 100 * 1024 * 1024
    batch_size_max: int = 1_048_588  # of a record batch in __transaction_state

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """From broker configs by Kafka's name; those that `values` has not keep Kafka's default."""
        number = partial(number_of, values)
        d = cls()
        return cls(
            timeout_max_ms=number("transaction.max.timeout.ms", d.timeout_max_ms),
            expiration_ms=number("transactional.id.expiration.ms", d.expiration_ms),
            expiration_check_ms=number("transaction.remove.expired.transaction.cleanup.interval.ms", d.expiration_check_ms),
            timeout_check_ms=number("transaction.abort.timed.out.transaction.cleanup.interval.ms", d.timeout_check_ms),
            wait_max_ms=number("add.partitions.to.txn.retry.backoff.max.ms", d.wait_max_ms),
            load_buffer_size=number("transaction.state.log.load.buffer.size", d.load_buffer_size),
            topic_partitions=number("transaction.state.log.num.partitions", d.topic_partitions),
            topic_segment_size=number("transaction.state.log.segment.bytes", d.topic_segment_size),
            batch_size_max=number("message.max.bytes", d.batch_size_max),
        )


@dataclass(slots=True)
class Metrics:
    """Counts of events since start: plain integers that anyone may read at any time."""

    producers_initialized: int = 0
    producers_fenced: int = 0  # because of a newer one or a time-out
    transactions_committed: int = 0
    transactions_aborted: int = 0  # those that timed out and those of fenced producers included
    transactions_timed_out: int = 0
    ids_expired: int = 0
    markers_written: int = 0
    marker_errors: int = 0
    append_batches: int = 0
    append_records: int = 0
    append_bytes: int = 0
    append_errors: int = 0
    loads: int = 0  # partitions of __transaction_state
    load_errors: int = 0
    load_records: int = 0
    load_records_skipped: int = 0  # of kinds this coordinator does not know, or unreadable
    load_ms: int = 0  # time of all loads together
