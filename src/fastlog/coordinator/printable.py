"""What clients choose (group ids, client ids, reasons) as it may stand in a line of a log."""

from __future__ import annotations

_LENGTH_MAX = 300


def printable(text: str) -> str:
    """The text on one line, of bounded length, with what is not printable escaped."""
    if len(text) > _LENGTH_MAX:
        text = text[:_LENGTH_MAX] + "…"
    return text if text.isprintable() else ascii(text)[1:-1]
