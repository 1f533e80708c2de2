"""What the command line understands, and how it prints, without a broker."""

import argparse
import io
import json
import subprocess
from datetime import UTC, datetime

import pytest

from fastlog.cli import consume, main, options, output, produce
from fastlog.client import Record
from tests.support.process import fastlog_command, free_port


def run(*args: str, given: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*fastlog_command(), *args], input=given, capture_output=True, timeout=60, check=False, env=env)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("start", "start", 0),
        ("end", "end", 0),
        ("0", "offset", 0),
        ("1500", "offset", 1500),
        ("-100", "last", 100),
        ("@1700000000000", "time", 1_700_000_000_000),
        ("2026-05-01T12:30Z", "time", int(datetime(2026, 5, 1, 12, 30, tzinfo=UTC).timestamp() * 1000)),
        ("2026-05-01T14:30+02:00", "time", int(datetime(2026, 5, 1, 12, 30, tzinfo=UTC).timestamp() * 1000)),
        ("2026-05-01", "time", int(datetime(2026, 5, 1).astimezone().timestamp() * 1000)),
    ],
)
def test_where(text: str, kind: str, value: int) -> None:
    assert options.where(text) == options.Where(kind, value)


def test_where_ago() -> None:
    now = datetime.now(UTC).timestamp() * 1000
    for text, seconds in (("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)):
        assert abs(now - seconds * 1000 - options.where(text).value) < 5000


@pytest.mark.parametrize("text", ["", "yesterday", "-", "1.5", "5x", "@now", "2026-13-01"])
def test_where_refuses(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        options.where(text)


def test_topic_partitions() -> None:
    assert options.topic_partitions("orders") == ("orders", [])
    assert options.topic_partitions("orders:0,7") == ("orders", [0, 7])
    with pytest.raises(argparse.ArgumentTypeError):
        options.topic_partitions("orders:x")


def _arguments(*args: str) -> argparse.Namespace:
    return main.build_parser("produce").parse_args(["produce", "t", *args])


def test_lines_become_records() -> None:
    stream = io.BytesIO(b"a:1\nb:\nc:x:y\n:no key\nlast:without newline")
    made = list(produce._from_stream(stream, "stdin", _arguments("-K", ":")))
    assert [(r.key, r.value) for r in made] == [(b"a", b"1"), (b"b", b""), (b"c", b"x:y"), (b"", b"no key"), (b"last", b"without newline")]


def test_empty_as_null() -> None:
    made = list(produce._from_stream(io.BytesIO(b"a:\n"), "stdin", _arguments("-K", ":", "--empty-as-null")))
    assert [(r.key, r.value) for r in made] == [(b"a", None)]


def test_whole_file_is_one_record() -> None:
    made = list(produce._from_stream(io.BytesIO(b"a\nb\n"), "stdin", _arguments("--input", "whole", "-k", "key")))
    assert [(r.key, r.value) for r in made] == [(b"key", b"a\nb\n")]


def test_json_goes_round() -> None:
    """What consume prints, produce takes: text, binary, null, headers."""
    for key, value, headers in (
        (b"k", b"text", []),
        (None, None, []),
        (b"", bytes(range(256)), [("a", b"1"), ("a", None), ("bin", b"\xff")]),
        ("ключ".encode(), "🚀".encode(), []),
    ):
        record = Record("t", 3, 7, 1_700_000_000_000, key, value, headers)
        line = json.dumps(consume.as_json(record)).encode()
        (made,) = produce._from_stream(io.BytesIO(line + b"\n"), "stdin", _arguments("--input", "json"))
        assert (made.key, made.value, made.headers, made.timestamp) == (key, value, headers, record.timestamp)


@pytest.mark.parametrize(
    ("args", "given", "said"),
    [
        (["-K", ":"], b"no separator\n", b"line 1: no ':'"),
        (["--input", "json"], b'{"value": "a"}\nnot json\n', b"line 2:"),
        (["--input", "json"], b"[]\n", b"line 1: not an object"),
    ],
)
def test_bad_input_names_the_line(args: list[str], given: bytes, said: bytes) -> None:
    with pytest.raises(Exception, match=said.decode()):
        list(produce._from_stream(io.BytesIO(given), "standard input", _arguments(*args)))


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["NAME", "N"], [("a", 1), ("longer", 1_234_567)])
    assert capsys.readouterr().out == "NAME            N\na               1\nlonger  1,234,567\n"


def test_no_broker_is_told_at_once_with_its_own_exit_code() -> None:
    done = run("topic", "list", "-b", f"127.0.0.1:{free_port()}")
    assert done.returncode == output.UNREACHABLE
    assert b"no broker answers" in done.stderr
    assert b"fastlog serve" in done.stderr


def test_wrong_address() -> None:
    done = run("topic", "list", "-b", "nonsense")
    assert done.returncode == output.FAILED
    assert b"HOST:PORT" in done.stderr


@pytest.mark.parametrize("command", list(main.COMMANDS))
def test_help_has_examples_and_exit_codes(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert b"fastlog " + command.encode() in done.stdout
    assert b"exit codes" in done.stdout


@pytest.mark.parametrize("args", [[], ["nonsense"], ["topic"], ["topic", "create"], ["consume", "t", "--from", "yesterday"]])
def test_wrong_usage(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == output.USAGE
    assert b"usage:" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr.decode()
    for word in (*main.COMMANDS, "describe", "bootstrap"):
        assert word.encode() in done.stdout
