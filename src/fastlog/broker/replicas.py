"""What may be asked of replicas while there is one node (Kafka's words)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_replication_factor(factor: int) -> None:
    """1, or -1 for the default. Raises KafkaError."""
    if factor == 0 or factor < -1:
        raise KafkaError(Error.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0, or -1 to use the default value.")
    if factor > 1:
        raise KafkaError(
            Error.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because "
            "only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        )


def check_replicas(broker_ids: Sequence[int], node_id: int) -> None:
    """A partition's replicas, as assigned by hand. Raises KafkaError."""
    if not broker_ids:
        raise KafkaError(Error.INVALID_REPLICA_ASSIGNMENT, "The manual partition assignment includes an empty replica list.")
    seen: set[int] = set()
    for broker_id in sorted(broker_ids):
        if broker_id in seen:
            raise KafkaError(
                Error.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes the broker {broker_id} more than once."
            )
        if broker_id != node_id:
            raise KafkaError(
                Error.INVALID_REPLICA_ASSIGNMENT,
                f"The manual partition assignment includes broker {broker_id}, but no such broker is registered.",
            )
        seen.add(broker_id)
