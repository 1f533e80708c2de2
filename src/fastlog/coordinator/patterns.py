"""Regular expressions that consumers subscribe by (KIP-848), in RE2's syntax: matching takes time linear in the text, whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIZE_MAX = 1 << 20  # bytes that a compiled expression may take


def compiled(regex: str) -> Any:
    """The expression, ready to `fullmatch`. Raises KafkaError INVALID_REGULAR_EXPRESSION."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _SIZE_MAX
    try:
        return re2.compile(regex, options=options)
    except re2.error as failure:
        why = failure.args[0] if failure.args else "invalid"
        why = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        message = f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}."
        raise KafkaError(Error.INVALID_REGULAR_EXPRESSION, message) from failure


def matching(regex: str, names: Iterable[str]) -> frozenset[str]:
    """The names that match as a whole; none for an expression that was valid once and is not any more."""
    try:
        pattern = compiled(regex)
    except KafkaError:
        return frozenset()
    return frozenset(name for name in names if pattern.fullmatch(name))
