"""What a broker is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fastlog.broker.context import Endpoint
    from fastlog.broker.plane import ListenAddress

AUTO = "auto"
OFF = "off"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    data: Sequence[Path]
    """The data directories; metadata lie in the first."""
    listen: Sequence[ListenAddress]
    advertise: Mapping[str, Endpoint] = field(default_factory=dict)
    """What clients are told to connect to, by the name of a listener; "" for all others."""
    cores: Sequence[int] = ()
    """One shard on each; empty: all that the process may use."""
    memory: int | None = None
    """Bytes; None: by what the machine has."""
    io: str = AUTO
    arena: str = AUTO
    """A directory, "off", or "auto": where it outlives the process."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Broker settings by Kafka's name, checked."""
    metrics: tuple[str, int] | None = None
    """Host and port of the HTTP server for /metrics."""
