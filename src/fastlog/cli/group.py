"""`fastlog group`: list, describe, reset and delete consumer groups."""

import argparse

from fastlog.cli import output
from fastlog.cli.options import (
    WHERE_HELP,
    Commands,
    add_command,
    add_connection,
    add_json,
    confirmed,
    guarded,
    topic_partitions,
    where,
)


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "group",
        "list, describe, reset and delete consumer groups",
        """\
  fastlog group list
  fastlog group describe audit
  fastlog group reset audit --topic orders --to start
  fastlog group delete audit""",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = add_command(actions, "list", "list groups and their state", "  fastlog group list --json")
    listing.set_defaults(run=guarded(_list))

    describe = add_command(actions, "describe", "show a group's members, offsets and lag", "  fastlog group describe audit")
    describe.add_argument("group")
    describe.set_defaults(run=guarded(_describe))

    reset = add_command(
        actions,
        "reset",
        "move a group that has no members to another place",
        """\
  fastlog group reset audit --topic orders --to start
  fastlog group reset audit --topic orders:0,1 --to 2026-05-01T00:00Z --dry-run"""
        "\n\n" + WHERE_HELP,
    )
    reset.add_argument("group")
    reset.add_argument("--to", metavar="WHERE", type=where, required=True, help="the record to read next")
    reset.add_argument(
        "--topic",
        metavar="TOPIC[:P,P]",
        type=topic_partitions,
        action="append",
        default=[],
        help="which topic or partitions (default: all that the group has committed in); repeatable",
    )
    reset.add_argument("--dry-run", action="store_true", help="only show what would change")
    reset.set_defaults(run=guarded(_reset))

    delete = add_command(actions, "delete", "delete groups that have no members, with their offsets", "  fastlog group delete audit --yes")
    delete.add_argument("group", nargs="+")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")
    delete.set_defaults(run=guarded(_delete))

    for action in (listing, describe, reset, delete):
        add_connection(action)
        add_json(action)


def _list(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    groups = Admin(args.bootstrap, timeout_s=args.timeout).groups()
    if args.json:
        output.print_json([{"name": name, "type": kind, "state": state} for name, kind, state in groups])
    elif groups:
        output.print_table(["GROUP", "TYPE", "STATE"], groups)
    else:
        output.note("no groups")
    return output.OK


def _describe(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    group = admin.group(args.group)
    committed = admin.group_offsets(args.group)
    owners = {p: m for m in group.members for p in m.partitions}
    existing = {(t.name, p.number) for t in admin.topics() for p in t.partitions if p.leader >= 0}
    partitions = sorted(set(committed) | set(owners))
    ends = admin.end_offsets([p for p in partitions if p in existing])
    if args.json:
        rows = [
            {
                "topic": p[0],
                "partition": p[1],
                "committed": committed.get(p),
                "end": ends.get(p),
                "lag": ends[p] - committed[p] if p in ends and p in committed else None,
                "member": owners[p].id if p in owners else None,
            }
            for p in partitions
        ]
        members = [{"id": m.id, "client_id": m.client_id, "host": m.host, "instance_id": m.instance_id} for m in group.members]
        described = {
            "name": group.name,
            "type": group.kind,
            "state": group.state,
            "assignor": group.protocol,
            "coordinator": group.coordinator,
        }
        output.print_json({**described, "members": members, "partitions": rows})
        return output.OK
    assignor = f", assignor {group.protocol}" if group.protocol else ""
    print(f"{group.kind} group {group.name}: {group.state}, {len(group.members)} members{assignor}")
    if partitions:
        print()
        cells = [
            (
                *p,
                f"{committed[p]:,}" if p in committed else "-",
                f"{ends[p]:,}" if p in ends else "(gone)",
                f"{ends[p] - committed[p]:,}" if p in ends and p in committed else "-",
                f"{owners[p].client_id} {owners[p].host}" if p in owners else "-",
            )
            for p in partitions
        ]
        output.print_table(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"], cells)
    return output.OK


def _reset(args: argparse.Namespace) -> int:
    from fastlog.client import Admin, UnknownGroupError

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    committed = admin.group_offsets(args.group)
    partitions = []
    for name, numbers in args.topic:
        every = [p.number for p in admin.topic(name).partitions]
        if absent := set(numbers) - set(every):
            output.complain(f"topic {name} has partitions 0 to {len(every) - 1}, not {min(absent)}")
            return output.NOT_FOUND
        partitions += [(name, n) for n in numbers or every]
    if not args.topic:
        existing = {(t.name, p.number) for t in admin.topics() for p in t.partitions}
        partitions = [p for p in committed if p in existing]
        if not partitions:
            states = admin.group_states()
            if args.group not in states:
                raise UnknownGroupError(args.group, states)
            output.complain(f"group {args.group} has committed nothing; say which --topic")
            return output.FAILED
    wanted = args.to.offsets(admin, partitions)
    if not args.dry_run:
        admin.set_group_offsets(args.group, wanted)
    if args.json:
        rows = [{"topic": p[0], "partition": p[1], "before": committed.get(p), "after": wanted[p]} for p in partitions]
        output.print_json({"group": args.group, "changed": not args.dry_run, "partitions": rows})
    else:
        cells = [(*p, f"{committed[p]:,}" if p in committed else "-", f"{wanted[p]:,}") for p in partitions]
        output.print_table(["TOPIC", "PARTITION", "BEFORE", "AFTER"], cells)
        if args.dry_run:
            output.note("nothing changed (--dry-run)")
    return output.OK


def _delete(args: argparse.Namespace) -> int:
    from fastlog.client import Admin, UnknownGroupError

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    states = admin.group_states()
    for name in args.group:
        if name not in states:
            raise UnknownGroupError(name, states)
    if not args.yes and not confirmed(f"delete {', '.join(args.group)} and the offsets committed?"):
        return output.FAILED
    for name in args.group:
        admin.delete_group(name)
        if not args.json:
            print(f"deleted group {name}")
    if args.json:
        output.print_json({"deleted": args.group})
    return output.OK
