"""fastlog: an event-streaming broker for bare-metal Linux that speaks the Kafka protocol."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlog.embedding import embedded as embedded


def __getattr__(name: str) -> Any:
    """`fastlog.embedded`, a broker for a test, is imported when it is first named."""
    if name != "embedded":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastlog.embedding import embedded

    return embedded
