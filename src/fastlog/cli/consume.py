"""`fastlog consume`: prints records, from anywhere in a topic, alone or as a member of a group."""

import argparse
import base64
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastlog.cli import output
from fastlog.cli.options import (
    WHERE_HELP,
    Commands,
    Where,
    add_client_settings,
    add_command,
    add_connection,
    add_json,
    guarded,
    positive,
    where,
)

if TYPE_CHECKING:
    from fastlog.client import Consumer, Record
    from fastlog.client.admin import Partition

FIELDS = ("partition", "offset", "time", "key", "value", "headers")


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "consume",
        "print records, and stop at the end of what is there unless told to follow",
        """\
  fastlog consume orders                       all that is there, values only
  fastlog consume orders --from end --follow   what comes from now on, until Ctrl-C
  fastlog consume orders --from -10 --json     the last ten of each partition, as JSON
  fastlog consume orders --from 15m --print time,key,value
  fastlog consume orders --from 2026-05-01T00:00Z --until 2026-05-02T00:00Z
  fastlog consume orders --group audit --follow  as a member of a group, committing as it goes"""
        "\n\n" + WHERE_HELP,
    )
    parser.add_argument("topic")
    parser.add_argument("-p", "--partition", metavar="N", type=int, action="append", help="this partition only; repeatable")
    parser.add_argument(
        "--from", dest="start", metavar="WHERE", type=where, help="where to begin (default: start; in a group: what it committed)"
    )
    parser.add_argument("--until", metavar="WHERE", type=where, help="where to stop (default: the end as it is now)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on waiting for new records at the end")
    parser.add_argument("-n", "--count", metavar="N", type=positive, help="stop after so many records")
    parser.add_argument("-g", "--group", help="read as a member of this group and commit what was printed")
    parser.add_argument(
        "--print", metavar="FIELDS", type=_fields, default=["value"], help=f"of {','.join(FIELDS)} (default: value), tabs between"
    )
    parser.add_argument("--raw", action="store_true", help="values only, byte for byte, with nothing between them")
    add_client_settings(parser)
    add_connection(parser)
    add_json(parser)
    parser.set_defaults(run=guarded(_consume))


def _fields(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [n for n in names if n not in FIELDS]:
        raise argparse.ArgumentTypeError(f"no field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    return names


def _consume(args: argparse.Namespace) -> int:
    from fastlog.client import Admin, Consumer

    if args.group and (args.partition or args.until):
        output.complain("--partition and --until do not go with --group, which shares the partitions out")
        return output.USAGE
    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    topic = admin.topic(args.topic)
    numbers = [p.number for p in topic.partitions]
    if absent := set(args.partition or []) - set(numbers):
        output.complain(f"topic {topic.name} has partitions 0 to {len(numbers) - 1}, not {min(absent)}")
        return output.NOT_FOUND
    partitions = [(topic.name, n) for n in args.partition or numbers]
    if args.group:
        start = "latest" if args.start and args.start.kind == "end" else "earliest"
        if args.start and args.start.kind not in ("start", "end"):
            output.complain("in a group, --from is start or end, where nothing is committed yet; `fastlog group reset` moves a group")
            return output.USAGE
        with Consumer(_settings(args), group_id=args.group, auto_offset_reset=start) as consumer:
            consumer.subscribe([topic.name])
            return _print_all(consumer, args, {})
    starts = (args.start or Where("start")).offsets(admin, partitions)
    ends = {} if args.follow and not args.until else (args.until or Where("end")).offsets(admin, partitions)
    wanted = {p: offset for p, offset in starts.items() if p not in ends or offset < ends[p]}
    if not wanted:
        return output.OK
    with Consumer(_settings(args)) as consumer:
        consumer.assign(wanted)
        return _print_all(consumer, args, ends)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Offsets are committed when records were printed; what is asked for with -X counts before what is set here."""
    return {"bootstrap_servers": args.bootstrap, "enable_auto_commit": False, "fetch_max_wait_ms": 250} | {
        name.replace(".", "_"): value for name, value in args.client_set
    }


def _print_all(consumer: "Consumer", args: argparse.Namespace, ends: "dict[Partition, int]") -> int:
    """Prints until the ends given, the count, or (without --follow) the end of every partition."""
    left = args.count
    try:
        while left != 0:
            records = consumer.poll(min(left or 500, 500), 0.25)
            finished = {_at(r) for r in records if r.offset + 1 >= ends.get(_at(r), sys.maxsize)}
            records = [r for r in records if r.offset < ends.get(_at(r), sys.maxsize)]
            for record in records:
                _print(record, args)
            if records:
                sys.stdout.flush()
                left = left - len(records) if left is not None else None
                if args.group:
                    consumer.commit()
            if finished:
                consumer.pause(finished)
            if consumer.at_end and not (args.follow and not args.until):
                break
    except KeyboardInterrupt:
        if not args.follow:
            raise
    return output.OK


def _at(record: "Record") -> "Partition":
    return record.topic, record.partition


def _print(record: "Record", args: argparse.Namespace) -> None:
    out = sys.stdout.buffer
    if args.raw:
        out.write(record.value or b"")
    elif args.json:
        out.write(json.dumps(as_json(record), ensure_ascii=False).encode() + b"\n")
    else:
        out.write(b"\t".join(_cell(record, name) for name in args.print) + b"\n")


def _cell(record: "Record", name: str) -> bytes:
    if name == "time":
        return datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
    if name == "headers":
        return b",".join(k.encode() + b"=" + (v or b"") for k, v in record.headers)
    found = {"partition": record.partition, "offset": record.offset, "key": record.key, "value": record.value}[name]
    return found if isinstance(found, bytes) else b"" if found is None else str(found).encode()


def as_json(record: "Record") -> dict[str, Any]:
    """A record as an object: text where key, value and headers are UTF-8, `..._base64` where they are not, null where there is none."""
    made: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **_text("key", record.key),
        **_text("value", record.value),
    }
    if record.headers:
        made["headers"] = [{"name": name, **_text("value", value)} for name, value in record.headers]
    return made


def _text(name: str, value: bytes | None) -> dict[str, str | None]:
    try:
        return {name: value.decode() if value is not None else None}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value or b"").decode()}
