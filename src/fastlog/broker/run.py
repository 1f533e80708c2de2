"""Runs a broker as a process: its log, its signals, what it says when it is ready, and its exit code."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from fastlog.broker import machine
from fastlog.broker.notify import notify
from fastlog.broker.plane import host_and_port
from fastlog.broker.server import Broker, StartError

if TYPE_CHECKING:
    from fastlog.broker.options import ServeOptions
    from fastlog.broker.server import Facts

log = logging.getLogger("fastlog")
GC_THRESHOLD: Final = 20_000
"""Objects made before the collector looks at them. Next to none here are in cycles: looking at every 700th, as is usual, took 9 % of a
busy control plane's time (offset commits)."""
OK: Final = 0
FAILED: Final = 1
LOOPBACK: Final = ("localhost", "::1")


def serve(options: ServeOptions, *, level: str = "info", json_lines: bool = False, until_eof: bool = False) -> int:
    """Serves until SIGTERM, SIGINT or SIGHUP (its terminal is gone), or, `until_eof`, the end of standard input; returns the exit code."""
    set_up_log(level, json_lines=json_lines)
    descriptors = machine.raise_descriptor_limit()
    try:
        asyncio.run(_serve(options, descriptors, json_lines=json_lines, until_eof=until_eof))
    except StartError as error:
        if json_lines:
            log.error("%s", error)
        else:
            print(f"fastlog serve: {error}", file=sys.stderr)
        return FAILED
    return OK


async def _serve(options: ServeOptions, descriptors: int, *, json_lines: bool, until_eof: bool) -> None:
    from fastlog.broker.shards import ShardedPlane

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            log.error("%s again: ending at once", signal.Signals(number).name)
            os._exit(FAILED)
        stop.set()

    def on_input() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    if until_eof:
        try:
            loop.add_reader(0, on_input)
        except PermissionError:  # epoll_ctl(2) takes no files
            raise StartError("--until-eof: standard input is a file, which nobody holds open") from None
    broker = Broker(options, ShardedPlane())
    starting = asyncio.ensure_future(broker.start())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    facts = await starting  # a signal during the start is obeyed after it: partitions are closed in order then
    report(facts, descriptors, json_lines=json_lines)
    for listener in facts.listeners:
        if listener.path is None and not (listener.host in LOOPBACK or (listener.host or "").startswith("127.")):
            log.warning(
                "%s is not a loopback address, and there is no authentication: whoever reaches it can read and write", listener.name
            )
    if descriptors < machine.DESCRIPTORS_FEW:
        log.warning(
            "only %d open files are allowed: a connection needs one, a partition several; raise the limit (ulimit -n, LimitNOFILE=)",
            descriptors,
        )
    # what the start made stays: the collector need not look at it again and again
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    notify("READY=1")
    await stopped
    notify("STOPPING=1")
    log.info("stopping: requests in progress may take %d ms; another signal ends at once", _timeout_ms(broker))
    began = time.monotonic()
    await broker.stop()
    log.info("stopped in order in %.2f s", time.monotonic() - began)


def _timeout_ms(broker: Broker) -> int:
    assert broker.context is not None
    return int(broker.context.configs.get("fastlog.shutdown.timeout.ms"))


def report(facts: Facts, descriptors: int, *, json_lines: bool) -> None:
    """What was decided: for a person on standard output, for a machine as one log line."""
    from fastlog._version import version

    rows = describe(facts, descriptors)
    if json_lines:
        log.info("ready", extra={"fields": {"version": version, **dict(rows)}})
        return
    print(f"fastlog {version}")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"  {name.ljust(width)}  {text}")
    print(f"ready in {facts.seconds:.2f} s", flush=True)


def describe(facts: Facts, descriptors: int) -> list[tuple[str, str]]:
    """(what, text) rows."""
    opened = facts.opened
    rows = []
    for listener in facts.listeners:
        told = facts.endpoints[listener.name]
        rows.append(("listening", f"{listener}, clients are told {host_and_port(told.host, told.port)}"))
    cores = ",".join(map(str, facts.cores))
    rows += [
        ("engine", f"{facts.plane.io} ({facts.plane.io_why})"),
        ("cores", f"{cores}: {len(facts.cores)} shard{'s' if len(facts.cores) > 1 else ''}"),
        ("memory", f"{facts.memory.value >> 20} MiB ({facts.memory.why})"),
        ("arena", f"{facts.arena or 'off'} ({facts.arena_why})"),
        ("flushes", f"{'one for many logs' if facts.flushes.allowed else 'each write by itself'} ({facts.flushes.why})"),
        ("descriptors", str(descriptors)),
    ]
    rows += [("data", f"{directory.path} ({directory.free_bytes() >> 20} MiB free)") for directory in facts.directories]
    found = f"{opened.topics} topics, {opened.partitions} partitions"
    if opened.recovered:
        found += f"; {opened.recovered} searched for their end, {opened.cut} cut by {opened.lost_bytes} bytes together"
    if opened.arena_bytes:
        found += f"; {opened.arena_bytes} bytes taken over from the memory of a killed broker"
    if opened.offline:
        found += f"; {opened.offline} offline"
    rows += [("found", found), ("durability", facts.durability)]
    if facts.metrics_port is not None:
        rows.append(("metrics", f"port {facts.metrics_port}, /metrics"))
    return rows


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a record's `fields` are added to it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_log(level: str, *, json_lines: bool) -> None:
    """All loggers to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if json_lines:
        handler.setFormatter(JsonFormatter())
        logging.Formatter.converter = time.gmtime
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
