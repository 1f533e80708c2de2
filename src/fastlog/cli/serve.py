"""`fastlog serve`: runs a broker."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastlog.broker.context import Endpoint
    from fastlog.broker.options import ServeOptions
    from fastlog.broker.plane import ListenAddress
    from fastlog.cli.options import Commands

DEFAULT_LISTEN = "127.0.0.1:9092"
DEFAULT_PORT = 9092
LEVELS = ("debug", "info", "warning", "error")
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
EPILOG = """\
examples:
  fastlog serve                                          on 127.0.0.1:9092, data in ./fastlog-data
  fastlog serve --data /var/lib/fastlog
  fastlog serve --data /disk1/fastlog --data /disk2/fastlog --cores 0-3 --memory 8G
  fastlog serve --listen 127.0.0.1:9092 --listen unix:/run/fastlog.sock
  fastlog serve --listen 10.0.0.5:9092 --advertise broker.example.net:9092
  fastlog serve --set num.partitions=8 --set log.retention.hours=24 --metrics 127.0.0.1:9644
  fastlog serve --config /etc/fastlog.toml

the TOML file has the options by their names, lists where an option may be repeated, and broker settings in a table:
  data = ["/disk1/fastlog", "/disk2/fastlog"]
  listen = ["127.0.0.1:9092"]
  memory = "8G"
  [set]
  "num.partitions" = 8
What the command line says counts before it.

signals: SIGTERM and SIGINT end in order, within fastlog.shutdown.timeout.ms (10 s) for requests in progress; a second one ends at once.
exit codes: 0 ended in order · 1 could not start, or ended at once · 2 wrong usage"""


def register(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="run a broker",
        description="Runs a broker that Kafka clients can produce to and consume from.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="a TOML file with any of these options")
    add("--data", metavar="DIR", action="append", help="data directory; repeatable, one per disk (default: ./fastlog-data)")
    add(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help=f"HOST:PORT or unix:PATH to listen on; repeatable, port 0 is any free one (default: {DEFAULT_LISTEN})",
    )
    add(
        "--advertise",
        metavar="[LISTENER=]HOST[:PORT]",
        action="append",
        help="what clients are told to connect to, for all listeners or for one (as given to --listen); repeatable",
    )
    add("--cores", metavar="LIST", help="cores to run on, one shard each, such as 0,1 or 0-3 (default: all that the process may use)")
    add("--memory", metavar="SIZE", help="memory for buffers, cache and arena, such as 512M or 2G (default: a quarter, at most 1G)")
    add("--io", choices=("auto", "uring", "epoll"), help="I/O engine (default: io_uring where it works)")
    add("--arena", metavar="DIR|off", help="tmpfs directory for memory that outlives a kill, or off (default: /dev/shm where safe)")
    add("--set", metavar="KEY=VALUE", action="append", help="a broker setting by Kafka's name; repeatable")
    add("--metrics", metavar="HOST:PORT", help="serve Prometheus metrics at http://HOST:PORT/metrics")
    add("--log-level", choices=LEVELS, help="what to log (default: info)")
    add(
        "--until-eof",
        action="store_true",
        help="end in order when standard input, a pipe, ends: whoever holds its other end leaves no broker behind, however it ends",
    )
    add("--log-json", action="store_true", default=None, help="log one JSON object a line")
    parser.set_defaults(run=run)


class UsageError(Exception):
    """What was given can't be used."""


def run(args: argparse.Namespace) -> int:
    """Serves until a signal comes; returns the exit code."""
    try:
        given = _merged(args)
        options = make_options(given)
        level = given.get("log-level", "info")
        if level not in LEVELS:
            raise UsageError(f"log-level {level!r} is none of {', '.join(LEVELS)}")
    except UsageError as error:
        print(f"fastlog serve: {error}", file=sys.stderr)
        return 2
    from fastlog.broker.run import serve

    return serve(options, level=level, json_lines=bool(given.get("log-json", False)), until_eof=args.until_eof)


def _merged(args: argparse.Namespace) -> dict[str, Any]:
    """The options by name: those of the command line over those of the file."""
    names = ("data", "listen", "advertise", "cores", "memory", "io", "arena", "set", "metrics", "log-level", "log-json")
    given = {name: value for name in names if (value := getattr(args, name.replace("-", "_"))) is not None}
    own = dict(_pair(text) for text in given.pop("set", []))
    settings: dict[str, str] = {}
    if args.config is not None:
        found = _read_file(Path(args.config))
        for name in found:
            if name not in names:
                raise UsageError(f"{args.config}: there is no option {name!r}, only {', '.join(names)}")
        table = found.pop("set", {})
        if not isinstance(table, dict):
            raise UsageError(f"{args.config}: set is no table")
        settings = {name: _setting(value) for name, value in _flat(table)}
        given = found | given
    return given | {"set": settings | own}


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings with dots in their names may be written without quotes: TOML makes tables of them."""
    flat: list[tuple[str, Any]] = []
    for name, value in table.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return flat


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: not KEY=VALUE")
    return name.strip(), value


def make_options(given: Mapping[str, Any]) -> ServeOptions:
    """From options by name, as on the command line. Raises UsageError."""
    from fastlog.broker.options import AUTO, ServeOptions
    from fastlog.config.broker import BROKER_KEYS, check_broker_config
    from fastlog.config.keys import ConfigError

    settings = dict(given.get("set", {}))
    try:
        check_broker_config(settings)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    for name in sorted(settings):
        if BROKER_KEYS[name].without_effect:
            print(f"fastlog serve: {name} has nothing to act on here and is without effect", file=sys.stderr)
    listen = [parse_listen(text) for text in _texts(given, "listen") or [DEFAULT_LISTEN]]
    if len({address.name for address in listen}) < len(listen):
        raise UsageError("an address is given twice with --listen")
    advertise = dict(parse_advertise(text) for text in _texts(given, "advertise"))
    unknown = advertise.keys() - {address.name for address in listen} - {""}
    if unknown:
        raise UsageError(f"--advertise {unknown.pop()}=...: there is no such listener; they are {', '.join(a.name for a in listen)}")
    data = [Path(text) for text in _texts(given, "data") or ["fastlog-data"]]
    from fastlog.broker.plane import host_and_port

    shown = {
        "listeners": ",".join(address.name if address.path is not None else f"PLAINTEXT://{address.name}" for address in listen),
        "advertised.listeners": ",".join(f"PLAINTEXT://{host_and_port(at.host, at.port or listen[0].port)}" for at in advertise.values()),
        "log.dirs": ",".join(str(path.absolute()) for path in data),
    }
    for name in shown:
        if name in settings:
            raise UsageError(f"{name} is set with --{ {'listeners': 'listen', 'log.dirs': 'data'}.get(name, 'advertise') }")
    io = given.get("io", AUTO)
    if io not in (AUTO, "uring", "epoll"):
        raise UsageError(f"io {io!r} is none of auto, uring, epoll")
    return ServeOptions(
        data=data,
        listen=listen,
        advertise=advertise,
        cores=parse_cores(given["cores"]) if "cores" in given else (),
        memory=parse_size(given["memory"]) if "memory" in given else None,
        io=io,
        arena=str(given.get("arena", AUTO)),
        settings=settings | {name: text for name, text in shown.items() if text},
        metrics=split_address(str(given["metrics"]), 0) if "metrics" in given else None,
    )


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    return [value] if isinstance(value, str) else [str(text) for text in value]


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT for IPv6; with `default_port` the port may be missing. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")) or (":" in host and not host.startswith("[")):
        host, port = text, ""
    if port == "" and default_port is not None:
        return host.strip("[]"), default_port
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def parse_listen(text: str) -> ListenAddress:
    """HOST:PORT or unix:PATH. Raises UsageError."""
    from fastlog.broker.plane import ListenAddress

    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise UsageError(f"--listen {text}: no path")
        if len(os.fsencode(Path(path).absolute())) > 107:  # sun_path, unix(7)
            raise UsageError(f"--listen {text}: the path of a socket may have 107 bytes")
        return ListenAddress(text, path=str(Path(path).absolute()))
    host, port = split_address(text)
    return ListenAddress(text, host=host, port=port)


def parse_advertise(text: str) -> tuple[str, Endpoint]:
    """[LISTENER=]HOST[:PORT]; the listener is "" for all, the port 0 for the listener's own. Raises UsageError."""
    from fastlog.broker.context import Endpoint

    listener, _, target = text.rpartition("=")
    host, port = split_address(target, 0)
    if not host:
        raise UsageError(f"--advertise {text}: no host")
    return listener, Endpoint(host, port)


def parse_cores(value: Any) -> Sequence[int]:
    """0,1 or 0-3,6, or a list of numbers. Raises UsageError."""
    allowed = os.sched_getaffinity(0)
    cores: list[int] = []
    for part in [str(one) for one in value] if isinstance(value, list) else str(value).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"--cores {value}: not a list like 0,1 or 0-3")
        cores += range(int(first), int(last or first) + 1)
    for core in cores:
        if core not in allowed:
            raise UsageError(f"--cores {value}: this process may not run on core {core}, only on {','.join(map(str, sorted(allowed)))}")
    if len(cores) > 64:
        raise UsageError(f"--cores {value}: at most 64")
    return cores


def parse_size(value: Any) -> int:
    """Bytes, or 512M, 2G, 1.5GiB. Raises UsageError."""
    text = str(value).strip().lower().removesuffix("ib").removesuffix("b")
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS and text[-1:] else (text, "")
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, OverflowError):
        raise UsageError(f"--memory {value}: not a size like 512M or 2G") from None
    from fastlog.broker.machine import MEMORY_MIN

    if size < MEMORY_MIN:
        raise UsageError(f"--memory {value}: at least {MEMORY_MIN >> 20}M")
    return size
