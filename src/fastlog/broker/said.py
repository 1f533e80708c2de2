"""What a failure says to the client, in a length that fits the response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastlog.protocol.errors import KafkaError

LENGTH_MAX: Final = 2000
"""Characters. A message that repeats what the client sent could be longer than a string of the protocol may be (32,767 bytes)."""


def said(failure: KafkaError) -> str | None:
    text = failure.message
    return (text if len(text) <= LENGTH_MAX else text[:LENGTH_MAX] + "...") or None
