"""`fastlog status`: is the broker up, and what does it hold."""

import argparse
import time

from fastlog.cli import output
from fastlog.cli.options import Commands, add_command, add_connection, add_json, guarded


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "status",
        "show whether a broker is up, what it holds, and how far behind its groups are",
        "  fastlog status\n  fastlog status --json --bootstrap 10.0.0.5:9092",
    )
    add_connection(parser)
    add_json(parser)
    parser.set_defaults(run=guarded(_status))


def _status(args: argparse.Namespace) -> int:
    from fastlog.client import Admin

    begun = time.monotonic()
    admin = Admin(args.bootstrap, timeout_s=args.timeout)
    cluster = admin.cluster()
    answered_ms = (time.monotonic() - begun) * 1000
    topics = admin.topics()
    counts = admin.counts(topics)
    own = [t for t in topics if not t.internal]
    offline = [(t.name, p.number) for t in topics for p in t.partitions if p.leader < 0]
    ends = admin.end_offsets([(t.name, p.number) for t in topics for p in t.partitions if p.leader >= 0])
    groups = []
    for name, state in admin.group_states().items():
        committed = admin.group_offsets(name)
        lag = sum(max(0, ends[p] - offset) for p, offset in committed.items() if p in ends)
        groups.append((name, state, len({topic for topic, _ in committed}), lag))
    if args.json:
        output.print_json(
            {
                "cluster_id": cluster.id,
                "controller": cluster.controller,
                "brokers": [{"id": b.id, "host": b.host, "port": b.port} for b in cluster.brokers],
                "topics": [{"name": t.name, "partitions": len(t.partitions), "records": counts.get(t.name, 0)} for t in own],
                "offline": [{"topic": name, "partition": number} for name, number in offline],
                "groups": [{"name": name, "state": state, "topics": count, "lag": lag} for name, state, count, lag in groups],
            }
        )
        return output.FAILED if offline else output.OK
    up = output.paint("up", "green")
    nodes = ", ".join(f"{b.id} at {b.host}:{b.port}" for b in cluster.brokers)
    print(f"broker {nodes}: {up}, answered in {answered_ms:.0f} ms, cluster {cluster.id}")
    partitions = sum(len(t.partitions) for t in own)
    print(f"{len(own)} topics, {partitions} partitions, {sum(counts.get(t.name, 0) for t in own):,} records")
    if own:
        print()
        output.print_table(["TOPIC", "PARTITIONS", "RECORDS"], [(t.name, len(t.partitions), counts.get(t.name, 0)) for t in own])
    if groups:
        print()
        output.print_table(["GROUP", "STATE", "TOPICS", "LAG"], groups)
    for name, number in offline:
        output.complain(f"partition {number} of {name} is offline")
    return output.FAILED if offline else output.OK
