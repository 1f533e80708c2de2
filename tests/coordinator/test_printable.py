"""What clients choose can't write lines of its own into a log."""

import pytest

from fastlog.coordinator.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [("orders", "orders"), ("größe", "größe"), ("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("x" * 1000, "x" * 300 + "…")],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
