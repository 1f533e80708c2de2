"""`fastlog log`: looks at the files of logs, repairs them, takes over those of Kafka. Needs no broker."""

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
        "check, dump, copy and repair the files of logs; take over those of Kafka",
        """\
  fastlog log check /var/lib/fastlog --rate 50
  fastlog log dump /var/lib/fastlog/orders-0/00000000000000000000.log
  fastlog log snapshot /var/lib/fastlog/orders-0 /tmp/orders-0
  fastlog log repair /var/lib/fastlog
  fastlog log adopt /var/lib/kafka --data /var/lib/fastlog""",
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
    adopt = add_command(
        actions,
        "adopt",
        "make data directories of Apache Kafka (4.x, KRaft) ones of fastlog",
        """\
  fastlog log adopt /var/lib/kafka --data /var/lib/fastlog --dry-run
  fastlog log adopt /disk1/kafka /disk2/kafka --data /disk1/fastlog --data /disk2/fastlog --move""",
    )
    adopt.add_argument("source", type=Path, nargs="+", help="a data directory (log.dirs) of a Kafka that is stopped")
    adopt.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="the directory to be made; one for each source"
    )
    adopt.add_argument("--metadata", type=Path, metavar="DIR", help="Kafka's metadata.log.dir, if that is none of the sources")
    adopt.add_argument("--move", action="store_true", help="move the partitions' directories (same file system) instead of copying them")
    adopt.add_argument("--dry-run", action="store_true", help="only say what would be taken over")
    adopt.set_defaults(run=guarded(_adopt))
    repair = add_command(
        actions,
        "repair",
        "make damaged logs usable again; without --write only say what that would cost",
        """\
  fastlog log repair /var/lib/fastlog
  fastlog log repair /var/lib/fastlog --write --keep /backup/damaged
  fastlog log repair /disk1/fastlog /disk2/fastlog --metadata --write""",
    )
    repair.add_argument(
        "directory", type=Path, nargs="+", help="a data directory, or that of one partition; no broker may be running on it"
    )
    repair.add_argument("--write", action="store_true", help="do it")
    repair.add_argument("--keep", type=Path, metavar="DIR", help="copy each file there before it is changed or removed")
    repair.add_argument(
        "--metadata",
        action="store_true",
        help="make the metadata database anew from the directories, all of which are given, the first one first",
    )
    repair.set_defaults(run=guarded(_repair))
    for action in (check, dump, copy, adopt, repair):
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


def _adopt(args: argparse.Namespace) -> int:
    from fastlog.broker.adoption import carry_out, entries
    from fastlog.metadata.store import StoreError
    from fastlog.storage.adopt import AdoptError, make_plan, same_file_system
    from fastlog.storage.directory import DirectoryError
    from fastlog.storage.inspect import Pace
    from fastlog.storage.kraft import KraftError

    if len(args.source) != len(args.data):
        output.complain(f"{len(args.source)} directories of Kafka, but --data was given {len(args.data)} times")
        return output.USAGE
    try:
        plan = make_plan(list(zip(args.source, args.data, strict=True)), args.metadata, Pace(args.rate * MEGABYTE))
    except (AdoptError, KraftError, DirectoryError) as error:
        output.complain(str(error))
        return output.FAILED
    try:
        if args.move and not same_file_system(plan):
            output.complain("moving needs a --data on the same file system as its source: leave --move out to copy")
            return output.FAILED
        if args.dry_run:
            list(entries(plan, dict.fromkeys((source.target for source in plan.sources), "")))  # says which settings stay
        else:
            carry_out(plan, move=args.move)
    except (AdoptError, StoreError) as error:
        output.complain(str(error))
        return output.FAILED
    finally:
        plan.close()
    if args.json:
        topics = {topic.name: len(topic.partitions) for topic in plan.topics}
        output.print_json({"cluster": plan.cluster_id, "node": plan.node_id, "topics": topics, "bytes": plan.bytes, "left": plan.left})
    else:
        for line in plan.left:
            print(f"left: {line}")
        output.note(
            f"{len(plan.topics)} topics, {len(plan.places)} partitions, {output.human_bytes(plan.bytes)} of records "
            f"{'would be' if args.dry_run else 'are'} taken over; {len(plan.left)} things are left"
        )
        if not args.dry_run:
            data = " ".join(f"--data {source.target}" for source in plan.sources)
            output.note(f"fastlog serve {data} --set node.id={plan.node_id}")
            unclean = [str(source.path) for source in plan.sources if not source.clean]
            if unclean:
                output.note(
                    f"Kafka was not stopped in order ({', '.join(unclean)}): the ends of its logs are searched for at the first start"
                )
    return output.FAILED if any(line.startswith("topic ") for line in plan.left) else output.OK


def _repair(args: argparse.Namespace) -> int:
    import os
    from contextlib import ExitStack

    from fastlog.metadata.store import StoreError
    from fastlog.storage.directory import DirectoryError
    from fastlog.storage.inspect import Pace
    from fastlog.storage.repair import carry_out, find_repairs, hold

    with ExitStack() as held:
        try:
            for directory in args.directory:
                held.callback(os.close, hold(directory))
            if args.metadata:
                return _rebuild(args)
        except (DirectoryError, StoreError) as error:
            output.complain(str(error))
            return output.FAILED
        pace = Pace(args.rate * MEGABYTE)
        repairs = [repair for directory in args.directory for repair in find_repairs(directory, pace)]
        if args.write:
            carry_out(repairs, args.keep)
    if args.json:
        found = [{"file": str(repair.path), "what": repair.what, "lost_offsets": repair.lost} for repair in repairs]
        output.print_json({"bytes": pace.bytes, "written": args.write, "repairs": found})
    else:
        for repair in repairs:
            print(f"{repair.path}: {repair.what}")
        lost = sum(repair.lost for repair in repairs)
        said = (
            f"{len(repairs) or 'no'} files {'were repaired' if args.write else 'are to be repaired'}, {lost} offsets without their records"
        )
        output.note(said if args.write or not repairs else f"{said}; nothing was changed (--write does it)")
    return output.OK if args.write or not repairs else output.FAILED


def _rebuild(args: argparse.Namespace) -> int:
    from fastlog.broker.rebuilding import find_topics, write_metadata

    found = find_topics(args.directory)
    if args.write:
        write_metadata(found, args.directory)
    if args.json:
        output.print_json({"written": args.write, "topics": found.counts(), "said": found.said})
    else:
        for line in found.said:
            print(line)
        output.note(
            f"{len(found.topics)} topics {'are' if args.write else 'would be'} in {found.path}"
            + ("" if args.write else " (--write does it)")
        )
    return output.OK
