"""Runs Java: Kafka's own classes, and test programs compiled on the spot, one after another in one warm virtual machine per process."""

from __future__ import annotations

import atexit
import os
import selectors
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LOGGING = Path(__file__).parents[1] / "clients/java/log4j2.properties"
# Short runs: the interpreter and the small collector start faster than they would pay.
FAST_START = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx384m", f"-Dlog4j2.configurationFile={LOGGING}"]
HOST: Final = Path(__file__).parent / "JavaHost.java"


@dataclass(frozen=True)
class _Done:
    status: int
    out: bytes
    err: bytes


class _Host:
    """A virtual machine that runs programs by request; see JavaHost.java."""

    def __init__(self, libraries: str) -> None:
        self.libraries = libraries
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the machine runs
        command = ["java", *FAST_START, "-cp", libraries, str(HOST)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0)

    def run(self, afresh: str, program: str, args: tuple[str, ...], given: bytes, timeout_s: float) -> _Done:
        """Raises TimeoutError, or EOFError when the machine ended under the program; it is of no use afterwards."""
        strings = [text.encode() for text in (afresh, program, *args)]
        request = struct.pack(">i", len(strings)) + b"".join(struct.pack(">i", len(text)) + text for text in strings)
        assert self._process.stdin is not None
        deadline = time.monotonic() + timeout_s
        self._write(request + struct.pack(">i", len(given)) + given)
        (status,) = struct.unpack(">i", self._read(4, deadline))
        return _Done(status, self._sized(deadline), self._sized(deadline))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-6000:]

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _sized(self, deadline: float) -> bytes:
        (size,) = struct.unpack(">i", self._read(4, deadline))
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        found = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while len(found) < size:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                data = os.read(self._process.stdout.fileno(), size - len(found))
                if not data:
                    raise EOFError
                found += data
        return bytes(found)


def _jars(libraries: str, pattern: str) -> list[str]:
    return [str(path) for path in Path(libraries.removesuffix("*")).glob(pattern)]


_hosts: dict[str, _Host] = {}


def _run(classpath: str, program: str, args: tuple[str, ...], given: bytes, timeout_s: float) -> _Done:
    *own, libraries = classpath.split(":")
    host = _hosts.get(libraries)
    if host is None:
        host = _hosts[libraries] = _Host(libraries)
        atexit.register(host.close)
    afresh = [*own, *_jars(libraries, "kafka-tools-[0-9]*.jar")]
    try:
        return host.run(":".join(afresh), program, args, given, timeout_s)
    except (TimeoutError, EOFError, BrokenPipeError) as error:
        del _hosts[libraries]
        host.close()
        why = f"not done within {timeout_s:g} s" if isinstance(error, TimeoutError) else "it ended its virtual machine"
        raise AssertionError(f"{program} {' '.join(args)}: {why}\n{host.said()}") from None


def java(classpath: str, *args: str | Path, given: bytes = b"", timeout_s: float = 100.0) -> str:
    """Runs one program, returns its standard output; another exit status than 0 fails the test with what it said."""
    program, *rest = map(str, args)
    done = _run(classpath, program, tuple(rest), given, timeout_s)
    said = f"{done.out.decode()}\n{done.err.decode()[-6000:]}"
    assert done.status == 0, f"{' '.join(map(str, args))}: exit {done.status}\n{said}"
    return done.out.decode()


def outcome(classpath: str, program: str, args: tuple[str, ...], given: bytes = b"", timeout_s: float = 100.0) -> tuple[int, str]:
    """Runs one program; its exit status and all that it said. AssertionError when it does not end in time."""
    done = _run(classpath, program, args, given, timeout_s)
    return done.status, done.out.decode() + done.err.decode()


def dump_segments(classpath: str, files: Iterable[str | Path], *options: str) -> str:
    """What Kafka's DumpLogSegments says of each file, down to its records, complaints included."""
    names = ",".join(map(str, files))
    done = _run(classpath, "org.apache.kafka.tools.DumpLogSegments", (*options, "--deep-iteration", "--files", names), b"", 250)
    said = done.out.decode() + done.err.decode()
    assert done.status == 0, said[-6000:]
    return said


def compile_program(classpath: str, source: Path, to: Path) -> str:
    """Compiles one source file; returns the class path to run it with."""
    to.mkdir(parents=True, exist_ok=True)
    *own, libraries = classpath.split(":")
    found = ":".join([*own, *_jars(libraries, "*.jar")])  # only the compiler's own command would look for them itself
    done = _run(classpath, "javac", ("-cp", found, "-d", str(to), str(source)), b"", 100)
    assert done.status == 0, done.err.decode()
    return f"{to}:{classpath}"
