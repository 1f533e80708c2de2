"""`fastlog topic`: create, list, describe, alter and delete topics."""

import argparse

from fastlog.cli import output
from fastlog.cli.options import Commands, add_command, add_connection, add_json, add_settings, confirmed, guarded, positive


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "topic",
        "create, list, describe, alter and delete topics",
        """\
  fastlog topic create orders --partitions 8 --set retention.ms=604800000
  fastlog topic list
  fastlog topic describe orders
  fastlog topic alter orders --partitions 16 --set compression.type=zstd --unset retention.ms
  fastlog topic delete orders""",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    create = add_command(actions, "create", "create a topic", "  fastlog topic create orders --partitions 8 --set cleanup.policy=compact")
    create.add_argument("topic")
    create.add_argument("-p", "--partitions", metavar="N", type=positive, default=-1, help="number of partitions (default: the broker's)")
    add_settings(create)
    create.add_argument("--if-not-exists", action="store_true", help="a topic that is there already is no error")
    create.set_defaults(run=guarded(_create))

    listing = add_command(actions, "list", "list topics", "  fastlog topic list --json | jq -r '.[].name'")
    listing.add_argument("--internal", action="store_true", help="the broker's own topics too")
    listing.set_defaults(run=guarded(_list))

    describe = add_command(actions, "describe", "show a topic's partitions and settings", "  fastlog topic describe orders --all")
    describe.add_argument("topic")
    describe.add_argument("--all", action="store_true", help="settings at their default too")
    describe.set_defaults(run=guarded(_describe))

    alter = add_command(
        actions, "alter", "add partitions, change settings", "  fastlog topic alter orders --partitions 16 --unset retention.ms"
    )
    alter.add_argument("topic")
    alter.add_argument("-p", "--partitions", metavar="N", type=positive, help="the new, larger number of partitions")
    add_settings(alter)
    alter.add_argument("--unset", metavar="KEY", action="append", default=[], help="return a setting to its default; repeatable")
    alter.set_defaults(run=guarded(_alter))

    delete = add_command(actions, "delete", "delete topics and their records", "  fastlog topic delete orders --yes")
    delete.add_argument("topic", nargs="+")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")
    delete.set_defaults(run=guarded(_delete))

    for action in (create, listing, describe, alter, delete):
        add_connection(action)
        add_json(action)


def _create(args: argparse.Namespace) -> int:
    from fastlog.client import Admin, ClientError

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    created = True
    try:
        admin.create_topic(args.topic, args.partitions, dict(args.set))
    except ClientError as error:
        if not (args.if_not_exists and error.code == "TOPIC_ALREADY_EXISTS"):
            raise
        created = False
    if args.json:
        output.print_json({"topic": args.topic, "created": created})
    else:
        print(f"created topic {args.topic}" if created else f"topic {args.topic} was there already")
    return output.OK


def _list(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    topics = [t for t in admin.topics() if args.internal or not t.internal]
    counts = admin.counts(topics)
    if args.json:
        output.print_json(
            [{"name": t.name, "partitions": len(t.partitions), "records": counts.get(t.name, 0), "internal": t.internal} for t in topics]
        )
    elif topics:
        output.print_table(["TOPIC", "PARTITIONS", "RECORDS"], [(t.name, len(t.partitions), counts.get(t.name, 0)) for t in topics])
    else:
        output.note("no topics yet; make one with: fastlog topic create NAME")
    return output.OK


def _describe(args: argparse.Namespace) -> int:
    from fastlog.client import Admin
    from fastlog.config.durability import describe_durability

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    topic = admin.topic(args.topic)
    effective = list(admin.topic_settings(args.topic))
    durability = describe_durability({s.name: s.value for s in effective})
    settings = [s for s in effective if args.all or s.source.startswith("dynamic topic")]
    online = [(topic.name, p.number) for p in topic.partitions if p.leader >= 0]
    starts, ends = admin.start_offsets(online), admin.end_offsets(online)
    if args.json:
        partitions = [
            {
                "partition": p.number,
                "leader": p.leader,
                "replicas": p.replicas,
                "in_sync": p.in_sync,
                "start": starts.get((topic.name, p.number)),
                "end": ends.get((topic.name, p.number)),
            }
            for p in topic.partitions
        ]
        described = [{"name": s.name, "value": s.value, "source": s.source} for s in settings]
        document = {"name": topic.name, "internal": topic.internal, "durability": durability}
        output.print_json(document | {"partitions": partitions, "settings": described})
        return output.OK
    rows = []
    for p in topic.partitions:
        key = (topic.name, p.number)
        if key in ends:
            rows.append((p.number, p.leader, starts[key], ends[key], ends[key] - starts[key]))
        else:
            rows.append((p.number, p.leader, -1, -1, 0))
            output.complain(f"partition {p.number} is offline: {p.error or 'no leader'}")
    output.print_table(["PARTITION", "LEADER", "START", "END", "RECORDS"], rows)
    print()
    print(f"durability: {durability}")
    if settings:
        print()
        output.print_table(["SETTING", "VALUE", "FROM"], [(s.name, "(hidden)" if s.value is None else s.value, s.source) for s in settings])
    elif not args.all:
        output.note("all settings at their default (--all shows them)")
    return output.OK


def _alter(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    if not (args.partitions or args.set or args.unset):
        output.complain("nothing to change: give --partitions, --set or --unset")
        return output.USAGE
    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    topic = admin.topic(args.topic)
    if args.set or args.unset:
        admin.alter_topic_settings(topic.name, dict(args.set), args.unset)
    if args.partitions:
        admin.set_partitions(topic.name, args.partitions)
    if args.json:
        output.print_json({"topic": topic.name, "altered": True})
    else:
        print(f"altered topic {topic.name}")
        if args.partitions and args.partitions > len(topic.partitions):
            output.note("records with a key may go to another partition from now on")
    return output.OK


def _delete(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    topics = [admin.topic(name) for name in args.topic]
    if not args.yes:
        counts = admin.counts(topics)
        what = ", ".join(f"{t.name} ({counts.get(t.name, 0):,} records)" for t in topics)
        if not confirmed(f"delete {what}?"):
            return output.FAILED
    for topic in topics:
        admin.delete_topic(topic.name)
        if not args.json:
            print(f"deleted topic {topic.name}")
    if args.json:
        output.print_json({"deleted": [t.name for t in topics]})
    return output.OK
