"""What every command prints with: tables, colour on a terminal only, JSON, exit codes."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

OK = 0
FAILED = 1  # the broker refused, or the operation did not end well
USAGE = 2  # argparse's
UNREACHABLE = 3
NOT_FOUND = 4
INTERRUPTED = 130  # 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM

EXIT_CODES = "exit codes: 0 done · 1 failed · 2 wrong usage · 3 no broker there · 4 no such topic or group · 130, 143 interrupted"

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def colour_wanted(stream: TextIO) -> bool:
    """A terminal that can, and no wish against it (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colour_wanted(stream or sys.stdout) else text


def print_json(value: Any) -> None:
    """One JSON document: indented for a reader, on one line for a pipe."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns padded to the widest cell; numbers to the right, with thousands apart. `columns` may be empty strings."""
    cells = [[f"{c:,}" if isinstance(c, int) and not isinstance(c, bool) else str(c) for c in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)).rstrip()

    print(paint(line(columns), "bold"))
    for row in cells:
        print(line(row))


def complain(text: str) -> None:
    print(f"{paint('fastlog:', 'red', sys.stderr)} {text}", file=sys.stderr)


def note(text: str) -> None:
    """A line for a person, kept out of what is piped on."""
    print(paint(text, "dim", sys.stderr), file=sys.stderr, flush=True)


def human_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
