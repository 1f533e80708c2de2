"""`fastlog bench`: what this host's disk, network and cores can do, and what the broker does beside that."""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastlog.cli import output
from fastlog.cli.options import Commands, add_command, add_json, guarded, positive
from fastlog.client import ClientError

GIB = 1 << 30
READY_S = 30.0


def register(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "bench",
        "measure what this host can do, and a broker on it beside that",
        """\
  fastlog bench --data /var/lib/fastlog                  on the disk to be used; about two minutes, 4 GB
  fastlog bench --data /mnt/nvme --memory 4G --seconds 30 --output nvme.json
  fastlog bench --far-end 0.0.0.0:9600                   on another host, then here:
  fastlog bench --network other.example.net:9600         its network beside loopback

It starts a broker of its own on a core of its own, with its data in a new directory inside --data that is removed at the end, and loads it
from another core. Figures of a run this short are bursts: --seconds 30 and more, with --gigabytes well above --memory, show what is
sustained. Close other programs; a virtual machine's figures move with its neighbours'.""",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, default=Path(), help="a directory on the disk to measure (default: this one)")
    parser.add_argument("--seconds", metavar="S", type=float, default=5.0, help="of each load (default: 5)")
    parser.add_argument("--gigabytes", metavar="N", type=positive, default=2, help="at most so much for each load (default: 2)")
    parser.add_argument("--memory", metavar="SIZE", help="of the broker, as for fastlog serve")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a broker setting by Kafka's name; repeatable")
    parser.add_argument("--broker-core", metavar="N", type=int, help="the broker's (default: where the disk's interrupts go, or the first)")
    parser.add_argument("--load-core", metavar="N", type=int, help="the load generator's (default: the last other one)")
    parser.add_argument("--limits-only", action="store_true", help="start no broker")
    parser.add_argument("--network", metavar="HOST:PORT", help="measure the network to another host's --far-end too")
    parser.add_argument("--far-end", metavar="HOST:PORT", help="only answer another host's --network, until Ctrl-C")
    parser.add_argument("--output", metavar="FILE", type=Path, help="save machine, limits and results as JSON")
    add_json(parser)
    parser.set_defaults(run=guarded(_bench))


def _bench(args: argparse.Namespace) -> int:
    from fastlog.loadgen import limits
    from fastlog.loadgen.job import split_address
    from fastlog.loadgen.machine import describe, device_of, interrupts_core

    if args.far_end:
        with socket.create_server(split_address(args.far_end)) as listener:
            output.note(f"answering at {args.far_end}; Ctrl-C ends")
            limits.serve(listener)
        return output.OK
    if not args.data.is_dir():
        raise ClientError("NO_SUCH_DIRECTORY", f"{args.data} is not a directory")
    cores = sorted(os.sched_getaffinity(0))
    broker_core, load_core = args.broker_core, args.load_core
    if broker_core is None:
        taken = interrupts_core(device_of(args.data))  # what its I/O costs is there, and the load keeps no completion waiting
        broker_core = taken if taken in cores and taken != load_core else cores[0]
    if load_core is None:
        load_core = next((core for core in reversed(cores) if core != broker_core), broker_core)
    if not {broker_core, load_core} <= set(cores):
        raise ClientError("NO_SUCH_CORE", f"cores {broker_core} and {load_core} are not both among {cores}")
    say = (lambda _: None) if args.json else output.note
    place = Path(tempfile.mkdtemp(prefix="fastlog-bench-", dir=args.data))
    try:
        found: dict[str, Any] = {"made": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "machine": describe(args.data), "limits": {}, "loads": {}}
        say("measuring disk, loopback and processor ...")
        figures = found["limits"]
        seconds = min(1.0, args.seconds / 5)
        figures["disk"] = limits.disk(place, seconds, limits.FILE_BYTES if seconds > 0.2 else limits.FILE_BYTES // 8)
        figures["loopback"] = limits.loopback(broker_core, load_core, max(seconds, 0.5))
        figures["processor"] = limits.processor(broker_core, seconds)
        if args.network:
            figures["network"] = limits.network(split_address(args.network), max(seconds, 0.5))
        if not args.json:
            _print_limits(figures)
        if not args.limits_only:
            _measure(args, place, broker_core, load_core, found)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if args.output:
        args.output.write_text(json.dumps(found))
    if args.json:
        output.print_json(found)
    unsound = [name for name, each in found["loads"].items() if not each["sound"]]
    for name in unsound:
        output.complain(f"{name}: {found['loads'][name]['trouble'] or 'not all was acknowledged or read as it was sent'}")
    return output.FAILED if unsound else output.OK


def _measure(args: argparse.Namespace, place: Path, broker_core: int, load_core: int, found: dict[str, Any]) -> None:
    """Starts a broker, runs each load, and prints what it reached as it comes."""
    from fastlog.loadgen import host

    room = int(shutil.disk_usage(place).free - GIB) // 2
    if room < GIB // 4:
        raise ClientError("DISK_FULL", f"{place} has too little space: two loads and a GB are needed")
    with _broker(args, place, broker_core) as (address, pid):
        if not args.json:
            print()
        for load in host.LOADS:
            bytes_max = min(args.gigabytes * 10**9, room)
            result = host.measure(load, address, pid, core=load_core, seconds=args.seconds, bytes_max=bytes_max)
            reached = host.share(load, result, found["limits"])
            kept = {name: value for name, value in result.items() if name not in ("series", "fetch")}
            for name in ("ack", "end_to_end"):
                kept[name] = {key: value for key, value in kept[name].items() if key != "buckets"}
            limit = {"name": reached[0], "value": reached[1], "share": round(reached[2], 3)} if reached else None
            found["loads"][load.name] = {**kept, "metric": load.metric, "limit": limit}
            if not args.json:
                _print_load(load, result, reached)


def _print_load(load: Any, result: dict[str, Any], reached: tuple[str, float, float] | None) -> None:
    value = result[load.metric]
    unit = {"MB_per_s": "MB/s", "read_MB_per_s": "MB/s", "batches_per_s": "a second"}.get(load.metric, "us p50")
    shown = "-" if value is None else f"{value:,.0f} {unit}"
    if load.less_is_better:
        shown += f", {result[load.metric.replace('p50', 'p99')]:,.0f} us p99"
    against = ""
    if reached:
        name, limit, share = reached
        against = f"{share:.2f} times {name} ({limit:,.0f} us)" if load.less_is_better else f"{share:.0%} of {name} ({limit:,.0f} MB/s)"
    print(f"{load.title:52}  {shown:28}  {against}", flush=True)


def _print_limits(figures: dict[str, dict[str, dict[str, Any]]]) -> None:
    rows = []
    for kind, each in figures.items():
        for name, found in each.items():
            cells = [f"{found[key]:,.0f}" if key in found else "" for key in ("MB_per_s", "p50_us", "p99_us")]
            rows.append((kind, name, *cells))
    output.print_table(["", "WHAT THE HOST CAN DO", "MB/s", "P50 us", "P99 us"], rows)


@contextlib.contextmanager
def _broker(args: argparse.Namespace, place: Path, core: int) -> Iterator[tuple[str, int]]:
    """A broker of this installation on one core: its address and process id. Raises ClientError when it does not start."""
    said = place / "broker.log"
    command = [sys.executable, "-m", "fastlog.cli.main", "serve", "--data", str(place / "data"), "--listen", "127.0.0.1:0"]
    command += ["--cores", str(core), *(["--memory", args.memory] if args.memory else [])]
    for setting in args.set:
        command += ["--set", setting]
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            text = said.read_text(errors="replace")
            if "\nready in " in text and (listening := re.search(r"127\.0\.0\.1:[1-9]\d*", text)):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise ClientError("NOT_STARTED", f"the broker did not start:\n{text[-4000:]}")
            time.sleep(0.01)
        yield listening[0], process.pid
    finally:
        process.terminate()
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
