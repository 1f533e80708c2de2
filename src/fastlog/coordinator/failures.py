"""How a failure of the log behind the coordinator looks to a client."""

from __future__ import annotations

from typing import Final

from fastlog.protocol.errors import Error

_SHOWN: Final[dict[Error, Error]] = {
    Error.UNKNOWN_TOPIC_OR_PARTITION: Error.COORDINATOR_NOT_AVAILABLE,
    Error.NOT_ENOUGH_REPLICAS: Error.COORDINATOR_NOT_AVAILABLE,
    Error.REQUEST_TIMED_OUT: Error.COORDINATOR_NOT_AVAILABLE,
    Error.NOT_LEADER_OR_FOLLOWER: Error.NOT_COORDINATOR,
    Error.KAFKA_STORAGE_ERROR: Error.NOT_COORDINATOR,
    Error.MESSAGE_TOO_LARGE: Error.UNKNOWN_SERVER_ERROR,
    Error.RECORD_LIST_TOO_LARGE: Error.UNKNOWN_SERVER_ERROR,
    Error.INVALID_FETCH_SIZE: Error.UNKNOWN_SERVER_ERROR,
    # Offset and group requests of older clients do not know these and would not try again.
    Error.NETWORK_EXCEPTION: Error.COORDINATOR_LOAD_IN_PROGRESS,
}


def shown(error: Error) -> Error:
    """The error that a group or offset request is answered with when its operation ended with `error` (as Kafka maps it)."""
    return _SHOWN.get(error, error)


def shown_to_fetch(error: Error) -> Error:
    """The same for OffsetFetch: consumers before 3.9 give up on COORDINATOR_NOT_AVAILABLE there, but look for the coordinator again on
    NOT_COORDINATOR."""
    mapped = shown(error)
    return Error.NOT_COORDINATOR if mapped is Error.COORDINATOR_NOT_AVAILABLE and error is not mapped else mapped
