"""What an acknowledgement of a topic promises, in words for its operator (docs/durability.md has all of it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastlog.config.keys import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Final = ("flush.messages", "flush.ms", "write.caching")
"""Of a topic, that it depends on."""


def describe_durability(settings: Mapping[str, str | None]) -> str:
    """One line for a topic with these settings (Kafka's names, as text; what is missing is at its default)."""
    messages = int(settings.get("flush.messages") or INT64_MAX)
    interval_ms = int(settings.get("flush.ms") or INT64_MAX)
    if settings.get("write.caching") == "true":
        line = "acks=all and acks=1 survive a killed broker, not a power cut (write.caching=true)"
    elif messages <= 1:
        return "acks=all and acks=1 are on stable storage (flush.messages=1); acks=0 is not waited for"
    else:
        line = "acks=all is on stable storage; acks=1 survives a killed broker, not a power cut"
    flushed = []
    if messages < INT64_MAX:
        flushed.append(f"every {messages} messages")
    if interval_ms < INT64_MAX:
        flushed.append(f"after {interval_ms} ms")
    if flushed:
        line += f"; flushed {' or '.join(flushed)}"
    return line + "; acks=0 is not waited for"
