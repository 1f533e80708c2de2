"""`fastlog produce`: sends records from standard input or files."""

import argparse
import base64
import binascii
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastlog.cli import output
from fastlog.cli.options import Commands, add_client_settings, add_command, add_connection, add_json, guarded, key_value
from fastlog.client import ClientError

if TYPE_CHECKING:
    from fastlog.client import Delivery

COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(slots=True)
class Outgoing:
    """One record to send. `partition` -1: chosen by the key; `timestamp` 0: now (milliseconds since the epoch)."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    partition: int = -1
    timestamp: int = 0


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "produce",
        "send records, one per line of standard input or of files",
        """\
  echo hello | fastlog produce greetings
  fastlog produce orders --key-separator : < orders.txt
  fastlog produce images --input whole --compression none photo.jpg
  fastlog consume orders --json | fastlog produce copy --input json""",
    )
    parser.add_argument("topic")
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="what to send (default: standard input)")
    parser.add_argument(
        "--input",
        choices=("lines", "json", "whole"),
        default="lines",
        help="lines: a record each (default); json: an object a line, as `consume --json` prints; whole: each file is one record",
    )
    parser.add_argument("-K", "--key-separator", metavar="TEXT", help="what stands between key and value in a line")
    parser.add_argument("-k", "--key", help="the key of all records")
    parser.add_argument("--empty-as-null", action="store_true", help="an empty value deletes its key in a compacted topic")
    parser.add_argument("-H", "--header", metavar="KEY=VALUE", action="append", default=[], type=key_value, help="a header; repeatable")
    parser.add_argument("-p", "--partition", metavar="N", type=int, default=-1, help="the partition (default: by key, or spread)")
    parser.add_argument("--timestamp", metavar="MILLISECONDS", type=int, default=0, help="of all records (default: now)")
    parser.add_argument("--acks", choices=("all", "1", "0"), default="all", help="what makes a record sent (default: all)")
    parser.add_argument("-z", "--compression", choices=COMPRESSIONS, default="none", help="of batches (default: none)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no closing line")
    add_client_settings(parser)
    add_connection(parser)
    add_json(parser)
    parser.set_defaults(run=guarded(_produce))


def _produce(args: argparse.Namespace) -> int:
    from fastlog.client import Admin, Producer

    Admin(args.bootstrap, timeout_s=args.timeout).close()  # says at once where no broker is; a producer would wait for one
    config = {"bootstrap_servers": args.bootstrap, "acks": args.acks, "compression_type": args.compression}
    producer = Producer(config | {name.replace(".", "_"): value for name, value in args.client_set})
    headers = [(name, value.encode()) for name, value in args.header]
    begun = time.monotonic()
    with producer:
        waiting: deque[Delivery] = deque()
        for record in _records(args):
            waiting.append(
                producer.send(
                    args.topic,
                    record.value,
                    record.key,
                    headers=headers + record.headers,
                    partition=None if max(record.partition, args.partition) < 0 else max(record.partition, args.partition),
                    timestamp=args.timestamp or record.timestamp or None,
                )
            )
            while waiting and waiting[0].done():
                waiting.popleft().result()
        producer.flush(max(args.timeout, 15.0))
        for one in waiting:
            one.result()
        said = producer.metrics()
    took = time.monotonic() - begun
    count, size = said["records_acknowledged"], said["bytes_acknowledged"]
    if args.json:
        output.print_json({"topic": args.topic, "records": count, "bytes": size, "seconds": round(took, 3)})
    elif not args.quiet:
        output.note(f"{count:,} records, {output.human_bytes(size)} to {args.topic} in {took:.2f} s")
    return output.OK


def _records(args: argparse.Namespace) -> Iterator[Outgoing]:
    for path in args.files or [None]:
        if path is None:
            yield from _from_stream(sys.stdin.buffer, "standard input", args)
        else:
            with path.open("rb") as stream:
                yield from _from_stream(stream, str(path), args)


def _from_stream(stream: BinaryIO, name: str, args: argparse.Namespace) -> Iterator[Outgoing]:
    key = args.key.encode() if args.key is not None else None
    if args.input == "whole":
        yield Outgoing(stream.read(), key)
        return
    separator = args.key_separator.encode() if args.key_separator else None
    for number, line in enumerate(stream, 1):
        text = line.removesuffix(b"\n")
        if args.input == "json":
            record = _from_json(text, f"{name}, line {number}")
        else:
            record = Outgoing(text, key)
            if separator is not None:
                before, found, after = text.partition(separator)
                if not found:
                    raise ClientError("INVALID_INPUT", f"{name}, line {number}: no {args.key_separator!r} between key and value")
                record = Outgoing(after, before)
        if args.empty_as_null and record.value == b"":
            record.value = None
        yield record


def _from_json(line: bytes, place: str) -> Outgoing:
    """An object as `consume --json` prints it; what says where the record was read from is ignored. Raises ClientError."""
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise TypeError("not an object")
        headers = [(str(h["name"]), _bytes_of(h, "value")) for h in found.get("headers", [])]
        return Outgoing(_bytes_of(found, "value"), _bytes_of(found, "key"), headers, timestamp=max(0, int(found.get("timestamp", 0))))
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise ClientError("INVALID_INPUT", f"{place}: {error}") from error


def _bytes_of(found: dict[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in found:
        return base64.b64decode(found[f"{name}_base64"], validate=True)
    value = found.get(name)
    if value is None or isinstance(value, str):
        return value.encode() if value is not None else None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
