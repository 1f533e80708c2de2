"""Runs Java: Kafka's own classes, and test programs compiled on the spot."""

import subprocess
from pathlib import Path

LOGGING = Path(__file__).parents[1] / "clients/java/log4j2.properties"
# Short runs: the interpreter and the small collector start faster than they would pay.
FAST_START = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}"]


def java(classpath: str, *args: str | Path, given: bytes = b"", timeout_s: float = 100.0) -> str:
    """Runs one program, returns its standard output; another exit status than 0 fails the test with what it said."""
    command = ["java", *FAST_START, "-cp", classpath, *map(str, args)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=timeout_s, check=False)
    said = f"{done.stdout.decode()}\n{done.stderr.decode()[-6000:]}"
    assert done.returncode == 0, f"{' '.join(map(str, args))}: exit {done.returncode}\n{said}"
    return done.stdout.decode()


def compile_program(classpath: str, source: Path, to: Path) -> str:
    """Compiles one source file; returns the class path to run it with."""
    done = subprocess.run(["javac", "-cp", classpath, "-d", to, source], capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return f"{to}:{classpath}"
