"""Starts the demo's processes and gathers what they tell."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queue import SimpleQueue


class Child:
    """One process of the demo. What it tells goes to the shared queue as (child, message), and at its end as (child, {"what": "ended"})."""

    def __init__(self, name: str, module: str, args: list[str], log: Path, told: "SimpleQueue[tuple[Child, dict[str, Any]]]") -> None:
        self.name = name
        self.log = log
        self.killed = False
        self._told = told
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"examples.flights.{module}", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):  # a killed process may leave half a line
                self._told.put((self, json.loads(line)))
        self.process.wait()
        self._told.put((self, {"what": "ended"}))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: no goodbye to the broker."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    @property
    def failed(self) -> bool:
        return self.process.poll() not in (None, 0) and not self.killed
