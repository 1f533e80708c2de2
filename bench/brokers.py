"""The brokers that are compared: how each is started, found ready, asked what it is, and stopped.

Both listen on loopback, keep their data under one directory and run on one core. Each process dies with this one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench import machine, sustained
from fastlog.loadgen import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.rows import Row

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
# Both look for segments to delete every second, so that a run at the disk's speed stays within the space that its row names.
RETENTION_LOOK, RETENTION_LOOK_MS = "log.retention.check.interval.ms", "1000"
SESSION, SESSION_MS = "broker.session.timeout.ms", "60000"
STOP_SECONDS = 60


class StartError(Exception):
    """A broker did not come up; the message holds the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One broker process. `start` may follow `stop`: the data stay until `wipe`."""

    name = ""
    kind = ""  # whose rows it runs; its name, but for two commits of one broker
    speaks_kafka = True
    durable_configs: ClassVar[dict[str, str]] = {}  # of a topic whose acks=all is to mean stable storage
    generator: tuple[str, ...] = ("fastlog.loadgen", "--raw", "--job", "-")  # the module that loads it, which takes a Job as JSON

    def __init__(self, directory: Path, core: int | str, options: list[str] | None = None) -> None:
        self.directory = directory / self.name
        self.core = core
        self.options = options or []
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / f"{self.name}.log"

    def elsewhere(self, directory: Path) -> Broker:
        """A second one with the same settings, not started, its data under another directory."""
        return type(self)(directory, self.core, self.options)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def runs(self, row: Row) -> bool:
        """Whether the row is for this broker."""
        return self.kind in row.brokers if row.brokers else self.speaks_kafka

    def holds(self, row: Row, memory_bytes: int) -> int:
        """Bytes of a row's load that the broker can have acknowledged before the disk has taken any."""
        return 0 if row.stable else machine.dirty_limit()

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """What comes before the first start."""

    def version(self) -> str:
        raise NotImplementedError

    def settings(self) -> str:
        """How it is run, for the report."""
        return " ".join(self.command())

    def launch(self) -> float:
        """Starts the process without waiting for it; the moment before (monotonic seconds)."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.prepare()
        begun = time.monotonic()
        with self.log.open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(self.core), *self.command()]
            environment = {**os.environ, **self.environment()}
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        return begun

    def start(self) -> None:
        """Raises StartError."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.check()
            try:
                self.probe()
                return
            except (OSError, wire.BrokerError, ValueError) as problem:
                if time.monotonic() > deadline:
                    raise StartError(f"{self.name} is not ready after {START_SECONDS} s ({problem}):\n{self.tail()}") from problem
                time.sleep(0.05)

    def environment(self) -> dict[str, str]:
        """Variables of the process beside this one's."""
        return {}

    def probe(self) -> None:
        """Asks something that a broker which is ready answers. Raises OSError, BrokerError, ValueError."""
        with wire.Connection("127.0.0.1", self.port, timeout=5) as control:
            control.producer_id()

    def make_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        """Returns when each partition answers."""
        with wire.Connection("127.0.0.1", self.port) as control:
            control.create_topic(name, partitions, configs)
            control.wait_for_topic(name)

    def delete_topic(self, name: str) -> None:
        with wire.Connection("127.0.0.1", self.port) as control:
            control.delete_topic(name)

    def check(self) -> None:
        """Raises StartError when the process has ended."""
        if self.process is None or self.process.poll() is not None:
            raise StartError(f"{self.name} has ended:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def wipe(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


class Fastlog(Broker):
    name = kind = "fastlog"

    def __init__(self, directory: Path, core: int | str, options: list[str] | None = None, memory_bytes: int = 0) -> None:
        super().__init__(directory, core, options)
        self.memory_bytes = memory_bytes

    def elsewhere(self, directory: Path) -> Broker:
        return Fastlog(directory, self.core, self.options, self.memory_bytes)

    def words(self) -> list[str]:
        """What the command line begins with."""
        return [os.environ.get("FASTLOG_COMMAND", str(ROOT / ".venv/bin/fastlog"))]

    def command(self) -> list[str]:
        memory = ["--memory", str(self.memory_bytes)] if self.memory_bytes else []
        where = ["--data", str(self.directory), "--listen", self.address, "--cores", str(self.core)]
        where += ["--set", "group.initial.rebalance.delay.ms=0"]  # as Kafka below
        return [*self.words(), "serve", *where, *memory, "--set", f"{RETENTION_LOOK}={RETENTION_LOOK_MS}", *self.options]

    def holds(self, row: Row, memory_bytes: int) -> int:
        return memory_bytes + sustained.runway(row)

    def version(self) -> str:
        done = subprocess.run([*self.words(), "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "?"


class Kafka(Broker):
    """Apache Kafka in KRaft mode, broker and controller in one process, with the JVM settings of its own start script."""

    name = kind = "kafka"
    durable_configs: ClassVar[dict[str, str]] = {"flush.messages": "1"}
    jvm = (
        "-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent"
        " -Djava.awt.headless=true -Xmx1G -Xms1G"
    )

    def __init__(self, directory: Path, core: int | str, options: list[str] | None = None) -> None:
        super().__init__(directory, core, options)
        self.controller_port = free_port()
        self.properties = directory / "kafka.properties"
        self.logging = directory / "kafka-log4j2.properties"

    def libraries(self) -> Path:
        """Where the jars are. Raises StartError when they are not."""
        home = Path(os.environ.get("FASTLOG_KAFKA_HOME", str(ROOT / ".venv/share/kafka"))) / "libs"
        if not any(home.glob("kafka_*.jar")):
            raise StartError(f"no Kafka in {home}: ci/bootstrap --profile test brings it, or FASTLOG_KAFKA_HOME names another place")
        return home

    def java(self, *words: str) -> list[str]:
        return ["java", *words[:-1], "-cp", f"{self.libraries()}/*", f"-Dlog4j2.configurationFile={self.logging}", *words[-1].split(" ")]

    def command(self) -> list[str]:
        return self.java(*self.jvm.split(), f"kafka.Kafka {self.properties}")

    def write_logging(self) -> None:
        """What every Java program of Kafka's is told about its log."""
        self.logging.write_text(
            "status = error\nrootLogger.level = warn\nrootLogger.appenderRef.c.ref = C\n"
            "appender.c.type = Console\nappender.c.name = C\nappender.c.target = SYSTEM_ERR\n"
            "appender.c.layout.type = PatternLayout\nappender.c.layout.pattern = [%d] %p %m (%c)%n\n"
        )

    def prepare(self) -> None:
        self.write_logging()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.directory),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # On one core with thousands of partitions to make, its own heartbeats come late: it would be fenced, and lead nothing.
            SESSION: SESSION_MS,
            # Deleted topics give back their disk space before the next run instead of after a minute.
            "log.segment.delete.delay.ms": "1000",
            RETENTION_LOOK: RETENTION_LOOK_MS,
            **dict(option.partition("=")[::2] for option in self.options),
        }
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if not (self.directory / "meta.properties").exists():
            made = subprocess.run(
                self.java(f"kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c {self.properties}"),
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise StartError(f"formatting failed:\n{made.stdout}\n{made.stderr}")

    def version(self) -> str:
        jar = next(iter(self.libraries().glob("kafka_*.jar")))
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
        java = re.search(r'version "([^"]+)"', said)
        return f"Apache Kafka {jar.stem.rpartition('-')[2]}, Java {java.group(1) if java else '?'}"

    def settings(self) -> str:
        changed = f"addresses, one replica, log.segment.delete.delay.ms=1000, {RETENTION_LOOK}={RETENTION_LOOK_MS}, {SESSION}={SESSION_MS}"
        changed += f" {' '.join(self.options)}"
        return f"JVM {self.jvm}; default server settings but for {changed}"


BROKERS: dict[str, type[Broker]] = {"fastlog": Fastlog, "kafka": Kafka}
