"""A node of Apache Kafka itself, broker and controller in one, as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.java import FAST_START, java
from tests.support.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 120.0


@dataclass
class Kafka:
    """`start` waits until it listens; `stop` ends it in order."""

    classpath: str
    data: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        } | self.settings
        properties = self.data.with_suffix(".properties")
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if not (self.data / "meta.properties").exists():
            java(self.classpath, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties)
        with self.data.with_suffix(".log").open("ab") as log:
            command = ["java", *FAST_START, "-cp", self.classpath, "kafka.Kafka", str(properties)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, self.data.with_suffix(".log").read_text()[-4000:]
            assert time.monotonic() < deadline, "Kafka does not listen"
            time.sleep(0.1)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(TIMEOUT_S)
            self.process = None
