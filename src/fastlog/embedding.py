"""A real broker for a program or a test: a process of its own beside it, on a free port, its data in a directory that goes with it."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

READY_S = 30.0
# A consumer group would wait three seconds for its second member.
SETTINGS = {"group.initial.rebalance.delay.ms": "0"}


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """`bootstrap_servers`: HOST:PORT, for any Kafka client."""

    bootstrap_servers: str
    data: Path
    process: "subprocess.Popen[bytes]"


class EmbeddedBrokerError(RuntimeError):
    """The broker did not start; the message ends with what it said."""


@contextlib.contextmanager
def embedded(settings: Mapping[str, str] | None = None, *, memory: str = "128M") -> Iterator[EmbeddedBroker]:
    """Runs a broker while the block runs. `settings`: the broker's, by Kafka's names. Raises EmbeddedBrokerError."""
    place = Path(tempfile.mkdtemp(prefix="fastlog-"))
    said = place / "log"
    command = [sys.executable, "-m", "fastlog.cli.main", "serve", "--data", str(place / "data"), "--listen", "127.0.0.1:0"]
    command += ["--memory", memory, "--arena", "off", "--until-eof"]
    for name, value in (SETTINGS | dict(settings or {})).items():
        command += ["--set", f"{name}={value}"]
    with said.open("wb") as log:
        # A Ctrl-C is for the program: its clients still have to send what waits.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, process_group=0)
    try:
        yield EmbeddedBroker(_address(process, said), place / "data", process)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()
        shutil.rmtree(place, ignore_errors=True)


def _address(process: "subprocess.Popen[bytes]", said: Path) -> str:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        text = said.read_text(errors="replace")
        if "\nready in " in text and (found := re.search(r"127\.0\.0\.1:([1-9]\d*)", text)):
            return found[0]
        if process.poll() is not None:
            raise EmbeddedBrokerError(f"the broker ended, exit {process.returncode}\n{text[-4000:]}")
        time.sleep(0.005)
    raise EmbeddedBrokerError(f"the broker is not ready after {READY_S:.0f} s\n{said.read_text(errors='replace')[-4000:]}")
