"""What the demo's processes have in common: they tell their parent how they do in JSON lines, and end when they are asked to."""

import ctypes
import json
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


class Worker:
    """The inside of one process. `stopping` turns true on SIGTERM; SIGINT is left to the parent, which the terminal sends it to as well."""

    def __init__(self) -> None:
        self.stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # never outlive the parent
        if os.getppid() == 1:
            self.stopping = True

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def tell(self, what: str, **details: Any) -> None:
        """One line to the parent, out at once: a process may be killed right after it."""
        os.write(sys.stdout.fileno(), json.dumps({"what": what, **details}).encode() + b"\n")
