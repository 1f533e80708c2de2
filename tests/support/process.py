"""`fastlog serve` as a process of its own, on a free port, in a directory of its own."""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
# Small enough that several brokers fit on a small machine beside the tests.
MEMORY = "256M"


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def uring_missing() -> str | None:
    """Why io_uring cannot be used here, or None: io_uring_setup(2) is asked for a ring of four entries."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(425, 4, ctypes.create_string_buffer(120))
    if descriptor < 0:
        return f"io_uring is off here ({errno.errorcode.get(ctypes.get_errno(), '?')})"
    os.close(descriptor)
    return None


def raise_descriptor_limit() -> int:
    """Raises this process's limit of open files to the hard limit, which brokers inherit; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fastlog_command() -> list[str]:
    """The command line of the environment that the tests run in."""
    return [sys.executable, "-m", "fastlog.cli.main"]


class BrokerFailedError(Exception):
    """The broker did not start, or did not stop as it should; the message ends with its log."""


@dataclass
class Broker:
    """One broker. `start` waits until it is ready; `stop` ends it cleanly, `kill` at once; the data stays for a next `start`."""

    data: Path
    io: str | None = None
    args: Sequence[str] = ()
    prefix: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log_path(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def command(self) -> list[str]:
        made = [*self.prefix, *fastlog_command(), "serve", "--data", str(self.data), "--listen", self.bootstrap, "--memory", MEMORY]
        made += ["--set", "group.initial.rebalance.delay.ms=0"]  # three seconds by default, for each new group
        if self.io:
            made += ["--io", self.io]
        return [*made, *os.environ.get("FASTLOG_TEST_SERVE_ARGS", "").split(), *self.args]

    def start(self) -> "Broker":
        assert self.process is None or self.process.poll() is not None, "already running"
        self.data.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        before = self._log.tell()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=os.environ | self.env
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BrokerFailedError(f"exit {self.process.returncode}\n{self.log[-4000:]}")
            # its own word, as a killed predecessor's socket can answer for some milliseconds more
            if b"\nready in " in self.log_path.read_bytes()[before:]:
                return self
            time.sleep(0.01)
        self.kill()
        raise BrokerFailedError(f"not ready on {self.bootstrap} in {START_TIMEOUT_S:.0f} s\n{self.log[-4000:]}")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, and exit status 0 within the time. Raises BrokerFailedError."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailedError(f"still running {timeout_s:.0f} s after SIGTERM\n{self.log[-4000:]}") from None
        self._closed()
        if status:
            raise BrokerFailedError(f"exit {status} after SIGTERM\n{self.log[-4000:]}")

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._closed()

    def forget(self) -> None:
        """Removes the memory that a killed broker left for a successor, as there will be none."""
        noted = self.data / "fastlog-arenas.json"
        with contextlib.suppress(OSError, ValueError):  # none noted, or a test has damaged the note
            for each in json.loads(noted.read_bytes()):
                Path(each["spent"] if isinstance(each, dict) else each).unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _closed(self) -> None:
        if self._log:
            self._log.close()
        self.process = None
