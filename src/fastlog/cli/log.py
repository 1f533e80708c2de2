"""`fastlog log`: looks at the files of logs, for people in trouble. Needs no broker, and does not disturb one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastlog.cli import output
from fastlog.cli.options import add_command, add_json, guarded

if TYPE_CHECKING:
    import argparse

    from fastlog.cli.options import Commands

MEGABYTE = 1_000_000


def register(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "log",
        "check, dump and copy the files of logs",
        """\
  fastlog log check /var/lib/fastlog --rate 50
  fastlog log dump /var/lib/fastlog/orders-0/00000000000000000000.log
  fastlog log snapshot /var/lib/fastlog/orders-0 /tmp/orders-0""",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = add_command(
        actions, "check", "find damage: in batches, indexes, snapshots, checkpoints", "  fastlog log check /var/lib/fastlog --rate 50"
    )
    check.add_argument("directory", type=Path, help="a data directory, or that of one partition; a broker may be running on it")
    check.set_defaults(run=guarded(_check))
    dump = add_command(actions, "dump", "print the batches of a segment", "  fastlog log dump orders-0/00000000000000000000.log --records")
    dump.add_argument("file", type=Path, help="a segment's .log file")
    dump.add_argument("--records", action="store_true", help="the records too")
    dump.set_defaults(run=guarded(_dump))
    copy = add_command(
        actions, "snapshot", "copy a partition's segments, trimmed to whole batches", "  fastlog log snapshot orders-0 /tmp/orders-0"
    )
    copy.add_argument("directory", type=Path, help="a partition's directory; a broker may be writing to it")
    copy.add_argument("target", type=Path, help="a directory that is made")
    copy.set_defaults(run=guarded(_snapshot))
    for action in (check, dump, copy):
        add_json(action)
        if action is not dump:
            action.add_argument("--rate", metavar="MB/S", type=float, default=0.0, help="read no faster (default: as fast as it goes)")


def _check(args: argparse.Namespace) -> int:
    from fastlog.storage.inspect import Pace, check

    pace = Pace(args.rate * MEGABYTE)
    problems = []
    for problem in check(args.directory, pace):
        problems.append(problem)
        if not args.json:
            topic, _, number = problem.partition.rpartition("-")
            place = f"topic {topic} partition {number}" if problem.partition else f"{args.directory}"
            where = f"offset {problem.offset}, " if problem.offset >= 0 else ""
            print(f"{place}: {where}{problem.file} byte {problem.byte}: {problem.what}")
    if args.json:
        fields = ("partition", "file", "byte", "offset", "what")
        output.print_json({"bytes": pace.bytes, "problems": [{name: getattr(p, name) for name in fields} for p in problems]})
    else:
        output.note(f"{output.human_bytes(pace.bytes)} read, {len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''} found")
    return output.FAILED if problems else output.OK


def _dump(args: argparse.Namespace) -> int:
    from fastlog.protocol.records import iter_batches
    from fastlog.storage.inspect import Pace, Reader, batches, first_byte_set

    reader = Reader(args.file, Pace())
    end = 0
    for found in batches(reader):
        end = found.at + found.size
        line = {
            "position": found.at,
            "bytes": found.size,
            "base_offset": found.base_offset,
            "last_offset": found.last_offset,
            "leader_epoch": found.leader_epoch,
            "max_timestamp": found.max_timestamp,
            "crc_ok": found.crc_ok,
        }
        records = []
        if args.records and found.crc_ok:
            for batch in iter_batches(reader.get(found.at, found.size)):
                records = [
                    {"offset": r.offset, "timestamp": r.timestamp, "key": _text(r.key), "value": _text(r.value)} for r in batch.records
                ]
        if args.json:
            output.print_json(line | ({"records": records} if args.records else {}))
            continue
        print(" ".join(f"{name}={value}" for name, value in line.items()))
        for record in records:
            print("  " + " ".join(f"{name}={value}" for name, value in record.items()))
    stray = first_byte_set(reader, end)
    reader.close()
    if stray >= 0:
        output.complain(f"{args.file}: no record batch begins at byte {end}, where the last one ended, and there are more bytes")
        return output.FAILED
    return output.OK


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")


def _snapshot(args: argparse.Namespace) -> int:
    from fastlog.storage.inspect import Pace, snapshot

    end = snapshot(args.directory, args.target, Pace(args.rate * MEGABYTE))
    if args.json:
        output.print_json({"end": end})
    else:
        output.note(f"{args.target}: all records below offset {end}")
    return output.OK
