"""Metrics in Prometheus' text format over a tiny HTTP responder.

Of our own, in place of prometheus_client: all values are counted elsewhere already (in the shards, without a lock), so what is left is
to print them; the library would cost 40 ms of start and 5 MB for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BYTES_MAX: Final = 8192
REQUEST_SECONDS: Final = 5.0
_GAUGES: Final = frozenset(
    (
        "conns",
        "requests_live",
        "memory_buffers",
        "sessions",
        "ring_backlog_max",
        "store_chunks",
        "store_chunks_free",
        "store_chunks_pinned",
        "store_partitions",
        "store_offline",
        "store_unchecked_bytes",
    )
)
"""What of a shard's numbers may also fall; the others only grow."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    counter: bool = False


def shard_samples(stats: Mapping[str, Any]) -> Iterator[Sample]:
    """From `Plane.stats()`: {"shards": a mapping of name to number for each}; other top-level numbers are the plane's own."""
    for shard, values in enumerate(stats.get("shards", ())):
        for name, value in values.items():
            if isinstance(value, int | float):
                counter = name not in _GAUGES
                yield Sample(f"fastlog_{name}{'_total' if counter else ''}", value, (("shard", str(shard)),), counter)
    for name, value in stats.items():
        if isinstance(value, int | float):
            yield Sample(f"fastlog_{name}", value)


def counter_samples(prefix: str, counters: Any) -> Iterator[Sample]:
    """Every number of a dataclass of counters."""
    for field in dataclasses.fields(counters):
        yield Sample(f"{prefix}{field.name}_total", getattr(counters, field.name), (), counter=True)


def process_samples() -> Iterator[Sample]:
    """Under the names that Prometheus' own clients use."""
    times = os.times()
    yield Sample("process_cpu_seconds_total", times.user + times.system, (), counter=True)
    with contextlib.suppress(OSError, IndexError, ValueError), open("/proc/self/statm") as file:  # noqa: PTH123 - no object for one read
        yield Sample("process_resident_memory_bytes", int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError):
        yield Sample("process_open_fds", len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names only


def render(samples: Iterator[Sample]) -> str:
    """The text format: samples of one name stand together, under their type."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    lines = []
    for name, group in groups.items():
        lines.append(f"# TYPE {name} {'counter' if group[0].counter else 'gauge'}")
        for sample in group:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels)
            lines.append(f"{name}{{{labels}}} {sample.value}" if labels else f"{name} {sample.value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsServer:
    """Answers GET /metrics."""

    def __init__(self, collect: Callable[[], Iterator[Sample]]) -> None:
        self._collect = collect
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Returns the port. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                if method != "GET":
                    status, body = "405 Method Not Allowed", "only GET\n"
                elif path.partition("?")[0] != "/metrics":
                    status, body = "404 Not Found", "there is /metrics\n"
                else:
                    status, body = "200 OK", render(self._collect())
                content = body.encode()
                fields = [f"Content-Type: {CONTENT_TYPE}", f"Content-Length: {len(content)}", "Connection: close"]
                writer.write("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + content)
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks like that gets no answer
        finally:
            writer.close()
