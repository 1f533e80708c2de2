"""What every error of the client derives from, and those that are the client's own. A class for each of Kafka's codes: `errors`."""

from collections.abc import Iterable


class ClientError(Exception):
    """An operation that failed. `code`: Kafka's name of the error (`TOPIC_ALREADY_EXISTS`), or one of ours (`UNREACHABLE`).

    `retriable`: the same call, made again, may succeed.
    """

    retriable = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(ClientError):
    """No broker answers at the address."""

    retriable = True

    def __init__(self, bootstrap: str, why: str) -> None:
        super().__init__("UNREACHABLE", f"no broker answers at {bootstrap}: {why}")
        self.why = why


def _near(name: str, existing: Iterable[str]) -> tuple[list[str], str]:
    """Those of the existing names that look like it, and what to say of them."""
    import difflib

    near = difflib.get_close_matches(name, list(existing), n=3)
    return near, f"; did you mean {' or '.join(near)}?" if near else ""


class UnknownTopicError(ClientError):
    """The topic does not exist; `near` are existing names that look like it."""

    def __init__(self, topic: str, existing: Iterable[str]) -> None:
        self.near, hint = _near(topic, existing)
        super().__init__("UNKNOWN_TOPIC_OR_PARTITION", f"no topic named {topic!r}{hint}")


class UnknownGroupError(ClientError):
    """The consumer group does not exist."""

    def __init__(self, group: str, existing: Iterable[str]) -> None:
        self.near, hint = _near(group, existing)
        super().__init__("GROUP_ID_NOT_FOUND", f"no consumer group named {group!r}{hint}")


class ClientTimeoutError(ClientError, TimeoutError):
    """No answer within the time that was given; what was asked for may still happen."""

    retriable = True

    def __init__(self, message: str) -> None:
        super().__init__("TIMED_OUT", message)


class BufferFullError(ClientTimeoutError):
    """buffer_memory stayed used up for max_block_ms: records come faster than the brokers take them, or no broker takes any."""


class ClosedError(ClientError):
    """The object was closed, or its process is a fork of the one that made it: make a new one."""

    def __init__(self, message: str) -> None:
        super().__init__("CLOSED", message)


class ProtocolError(ClientError):
    """A broker, or whatever listens at its address, answered what is not Kafka's protocol."""

    def __init__(self, message: str) -> None:
        super().__init__("PROTOCOL", message)


class ConfigError(ClientError, ValueError):
    """A setting that is unknown, or has a value that it can't have."""

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_CONFIG", message)
