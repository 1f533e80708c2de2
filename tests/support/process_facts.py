"""What the kernel says of a broker's process (proc(5))."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.process import Broker


def descriptors_of(broker: Broker) -> int:
    """Open files."""
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def resident(broker: Broker) -> int:
    """Bytes of anonymous memory in use; a tmpfs arena is not counted."""
    lines = Path(f"/proc/{broker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
