"""`fastlog serve` as a process: options, what it prints, signals, exit codes, systemd, logs."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker.context import Endpoint
from fastlog.broker.plane import ListenAddress
from fastlog.cli.main import build_parser, main
from fastlog.cli.serve import UsageError, make_options, parse_cores, parse_listen, parse_size, split_address
from tests.support.process import fastlog_command, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class Serve:
    """One process; `lines` until it said that it is ready."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, under: tuple[str, ...] = ()) -> None:
        command = [*under, *fastlog_command(), "serve", "--memory", "64M", "--cores", str(min(os.sched_getaffinity(0))), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | (env or {}), stdin=subprocess.DEVNULL
        )
        self.lines: list[str] = []

    def until(self, word: str) -> str:
        assert self.process.stdout is not None
        alarm = threading.Timer(30, self.process.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                if word in line:
                    return line
        finally:
            alarm.cancel()
        raise AssertionError(f"ended ({self.process.wait()}) without saying {word!r}:\n{''.join(self.lines)}")

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, "".join(self.lines) + output


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[Serve] = []

    def start(*arguments: str, **how: Any) -> Serve:
        started.append(Serve(*arguments, **how))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def test_it_says_what_it_decided_and_ends_in_order(serve: Any, tmp_path: Path) -> None:
    port = free_port()
    sock = tmp_path / "s"
    broker = serve("--data", f"{tmp_path}/a", "--data", f"{tmp_path}/b", "--listen", f"127.0.0.1:{port}", "--listen", f"unix:{sock}")
    broker.until("ready in")
    text = "".join(broker.lines)
    for word in (
        f"127.0.0.1:{port}",
        f"unix:{sock}",
        "engine",
        "cores",
        "64 MiB (--memory)",
        "arena",
        f"{tmp_path}/a",
        "acks=all is on stable",
    ):
        assert word in text
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(bytes.fromhex("0000000a 0012 0000 00000007 ffff".replace(" ", "")))
        assert client.recv(4)
    assert sock.is_socket()
    broker.process.send_signal(signal.SIGTERM)
    status, output = broker.end()
    assert (status, "stopped in order" in output) == (0, True)
    assert (tmp_path / "a" / ".kafka_cleanshutdown").exists()
    assert not sock.exists()


def test_a_second_broker_on_the_same_address_or_data(serve: Any, tmp_path: Path) -> None:
    port = free_port()
    serve("--data", f"{tmp_path}/a", "--listen", f"127.0.0.1:{port}").until("ready in")
    status, output = serve("--data", f"{tmp_path}/b", "--listen", f"127.0.0.1:{port}").end()
    assert (status, f"can't listen on 127.0.0.1:{port}: Address already in use" in output) == (1, True)
    status, output = serve("--data", f"{tmp_path}/a", "--listen", "127.0.0.1:0").end()
    assert (status, "is locked by process" in output) == (1, True)


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("nobody.invalid:9092", "can't listen on nobody.invalid:9092: Name or service not known: give another address with --listen"),
        ("192.0.2.1:9092", "can't listen on 192.0.2.1:9092: Cannot assign requested address: give another address with --listen"),
    ],
)
def test_an_address_that_is_not_here(serve: Any, tmp_path: Path, listen: str, said: str) -> None:
    status, output = serve("--data", f"{tmp_path}/a", "--listen", listen).end()
    assert (status, said in output) == (1, True), output


def test_an_ipv6_address_is_shown_in_brackets(serve: Any, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    line = serve("--data", f"{tmp_path}/a", "--listen", "[::1]:0").until("listening")
    assert re.search(r"listening +\[::1\]:[0-9]+, clients are told \[::1\]:[0-9]+\n", line)


def test_until_eof_needs_a_pipe(tmp_path: Path) -> None:
    command = [*fastlog_command(), "serve", "--data", f"{tmp_path}/a", "--listen", "127.0.0.1:0", "--until-eof"]
    with Path(__file__).open() as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "fastlog serve: --until-eof: standard input is a file, which nobody holds open\n")


def test_few_descriptors_are_warned_of(serve: Any, tmp_path: Path) -> None:
    broker = serve("--data", f"{tmp_path}/a", "--listen", "127.0.0.1:0", under=("prlimit", "--nofile=500"))
    assert "only 500 open files are allowed" in broker.until("raise the limit")


def test_a_second_signal_ends_at_once(serve: Any, tmp_path: Path) -> None:
    port = free_port()
    broker = serve("--data", str(tmp_path), "--listen", f"127.0.0.1:{port}", "--set", "group.initial.rebalance.delay.ms=60000")
    broker.until("ready in")
    with socket.create_connection(("127.0.0.1", port)) as client:
        # a fetch that waits for 60 s keeps the end in order from coming: v4, replica -1, max_wait 60000, min_bytes 1, no topics
        client.sendall(bytes.fromhex("0000001f 0001 0004 00000007 ffff ffffffff 0000ea60 00000001 00100000 00 00000000".replace(" ", "")))
        time.sleep(0.2)
        broker.process.send_signal(signal.SIGTERM)
        broker.until("another signal ends at once")
        began = time.monotonic()
        broker.process.send_signal(signal.SIGTERM)
        status, output = broker.end()
    if "stopped in order" not in output:  # it may have been quick enough
        assert status == 1
    assert time.monotonic() - began < 5


def test_systemd_is_told(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(20)
        broker = serve("--data", f"{tmp_path}/d", "--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": str(path)})
        assert systemd.recv(100) == b"READY=1"
        broker.process.send_signal(signal.SIGINT)
        assert systemd.recv(100) == b"STOPPING=1"
    assert broker.end()[0] == 0


def test_a_file_with_all_of_it_and_a_log_for_machines(serve: Any, tmp_path: Path) -> None:
    metrics = free_port()
    config = tmp_path / "fastlog.toml"
    config.write_text(f"""
data = ["{tmp_path}/d"]
listen = "127.0.0.1:0"
io = "epoll"
metrics = "127.0.0.1:{metrics}"
log-json = true
log-level = "debug"
[set]
"num.partitions" = 3
auto.create.topics.enable = false
""")
    broker = serve("--config", str(config), "--set", "num.partitions=4", "--set", "write.caching=true")
    ready = json.loads(broker.until('"ready"'))
    assert (ready["level"], ready["logger"], ready["data"].split()[0]) == ("info", "fastlog", f"{tmp_path}/d")
    assert ready["engine"].startswith("epoll")
    assert ready["durability"].startswith("acks=all and acks=1 survive a killed broker, not a power cut (write.caching=true)")
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
        assert b"fastlog_topics 0" in answer.read()
    broker.process.send_signal(signal.SIGTERM)
    status, output = broker.end()
    assert status == 0
    assert all(json.loads(line) for line in output.splitlines())


def test_an_address_that_others_reach_is_warned_about(serve: Any, tmp_path: Path) -> None:
    broker = serve("--data", str(tmp_path), "--listen", "0.0.0.0:0")
    assert "0.0.0.0" in broker.until("no authentication")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--set", "num.partition=1"], "did you mean num.partitions?"),
        (["--set", "num.partitions"], "not KEY=VALUE"),
        (["--set", "num.partitions=0"], "Value must be at least 1"),
        (["--set", "listeners=x"], "listeners is set with --listen"),
        (["--listen", "nonsense"], "'nonsense' is not HOST:PORT"),
        (["--listen", "h:99999"], "is not HOST:PORT"),
        (["--listen", "unix:"], "no path"),
        (["--listen", "unix:/" + "x" * 200], "107 bytes"),
        (["--listen", "h:1", "--listen", "h:1"], "given twice"),
        (["--advertise", "other=h:1"], "there is no such listener"),
        (["--cores", "0-"], "not a list like"),
        (["--cores", "9999"], "may not run on core 9999"),
        (["--memory", "lots"], "not a size like"),
        (["--memory", "1M"], "at least 64M"),
        (["--config", "/nonexistent"], "No such file"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], why: str) -> None:
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.startswith("fastlog serve: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [("data = [", "Invalid"), ("colour = 1", "no option 'colour'"), ("set = 1", "no table"), ('log-level = "loud"', "none of")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str) -> None:
    path = tmp_path / "f.toml"
    path.write_text(text)
    assert main(["serve", "--config", str(path)]) == 2
    assert why in capsys.readouterr().err


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert split_address("h:1") == ("h", 1)
    assert split_address("[::1]:9092") == ("::1", 9092)
    assert split_address("[::1]", 5) == ("::1", 5)
    assert split_address("::1", 5) == ("::1", 5)
    assert split_address("h", 5) == ("h", 5)
    with pytest.raises(UsageError):
        split_address("h")
    assert parse_listen("unix:/a/b") == ListenAddress("unix:/a/b", path="/a/b")
    assert [parse_size(t) for t in ("64M", "2G", "1.5GiB", "100000000", "1T")] == [64 << 20, 2 << 30, 3 << 29, 100_000_000, 1 << 40]
    core = min(os.sched_getaffinity(0))
    assert parse_cores(f"{core}") == parse_cores([core]) == parse_cores(core) == [core]
    given = make_options({"listen": ["h:1", "unix:/s"], "advertise": ["pub", "unix:/s=other:7"], "set": {"num.io.threads": "3"}})
    assert given.advertise == {"": Endpoint("pub", 0), "unix:/s": Endpoint("other", 7)}
    assert given.settings["num.io.threads"] == "3"
    assert "num.io.threads has nothing to act on here and is without effect" in capsys.readouterr().err
    assert given.settings["listeners"] == "PLAINTEXT://h:1,unix:/s"
    assert given.settings["advertised.listeners"] == "PLAINTEXT://pub:1,PLAINTEXT://other:7"


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["serve", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert "examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["nonsense"])
    assert ended.value.code == 2
    assert isinstance(build_parser(), argparse.ArgumentParser)
