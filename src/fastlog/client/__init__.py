"""The client side of the Kafka protocol, for the command line and the demo. Never imports the broker.

Errors live here, apart from the module that speaks the protocol, so that they can be named without loading a client library.
"""

import difflib
from collections.abc import Iterable


class ClientError(Exception):
    """An operation that failed. `code` is Kafka's name of the error (`TOPIC_ALREADY_EXISTS`), or one of ours in the subclasses."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClientMissingError(ClientError, ImportError):
    """The client library is not installed."""

    def __init__(self) -> None:
        super().__init__("CLIENT_MISSING", "this command needs the client library; install it with: pip install 'fastlog-broker[client]'")


class UnreachableError(ClientError):
    """No broker answers at the address."""

    def __init__(self, bootstrap: str, why: str) -> None:
        super().__init__("UNREACHABLE", f"no broker answers at {bootstrap}: {why}")


class UnknownTopicError(ClientError):
    """The topic does not exist; `near` are existing names that look like it."""

    def __init__(self, topic: str, existing: Iterable[str]) -> None:
        self.near = difflib.get_close_matches(topic, list(existing), n=3)
        hint = f"; did you mean {' or '.join(self.near)}?" if self.near else ""
        super().__init__("UNKNOWN_TOPIC_OR_PARTITION", f"no topic named {topic!r}{hint}")


class UnknownGroupError(ClientError):
    """The consumer group does not exist."""

    def __init__(self, group: str, existing: Iterable[str]) -> None:
        self.near = difflib.get_close_matches(group, list(existing), n=3)
        hint = f"; did you mean {' or '.join(self.near)}?" if self.near else ""
        super().__init__("GROUP_ID_NOT_FOUND", f"no consumer group named {group!r}{hint}")
