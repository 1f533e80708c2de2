"""What the demo shows: lines, a live block on a terminal, a table at the end."""

import os
import sys
import time

PLAIN_EVERY_S = 2.0
LIVE_EVERY_S = 0.1


class Screen:
    """Lines scroll; on a terminal the live block below them is drawn again and again, elsewhere it is a line every two seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.terminal and not os.environ.get("NO_COLOR")
        self._block = 0  # lines of the live block on the screen now
        self._shown = 0.0

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def line(self, text: str = "") -> None:
        self._clear()
        print(text, flush=True)

    def step(self, text: str) -> None:
        self.line(f"{self.paint('==>', '1;36')} {self.paint(text, '1')}")

    def live(self, rows: list[tuple[str, int, int, str]], *, now: bool = False) -> None:
        """Rows of (name, count, total, note)."""
        since = time.monotonic() - self._shown
        if not now and since < (LIVE_EVERY_S if self.terminal else PLAIN_EVERY_S):
            return
        self._shown = time.monotonic()
        if not self.terminal:
            parts = (f"{name} {count:,}/{total:,} {note}".rstrip() for name, count, total, note in rows)
            print("    " + " · ".join(parts), flush=True)
            return
        self._clear()
        for name, count, total, note in rows:
            filled = 30 * count // total if total else 0
            bar = self.paint("█" * filled, "36") + self.paint("░" * (30 - filled), "2")
            print(f"    {name:<12} {bar} {count:>9,} {self.paint(note, '2')}")
        sys.stdout.flush()
        self._block = len(rows)

    def done(self) -> None:
        """Leaves the live block as it is."""
        self._block = 0

    def _clear(self) -> None:
        if self._block:
            sys.stdout.write(f"\x1b[{self._block}A\x1b[J")
            self._block = 0

    def table(self, rows: list[tuple[str, int, int]]) -> bool:
        """Rows of (what, expected, found); returns whether all are equal."""
        width = max(len(what) for what, _, _ in rows)
        self.line(self.paint(f"    {'':<{width}} {'expected':>20} {'found':>20}", "1"))
        for what, expected, found in rows:
            verdict = self.paint("ok", "32") if expected == found else self.paint("DIFFERS", "1;31")
            self.line(f"    {what:<{width}} {expected:>20,} {found:>20,}  {verdict}")
        return all(expected == found for _, expected, found in rows)
