"""Each command against a broker."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from fastlog.cli import output
from tests.support.process import fastlog_command

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(bootstrap: str) -> Run:
    """Runs a command against the broker; another exit status than `status` fails the test."""

    def command(*args: str, given: bytes = b"", status: int = output.OK) -> "subprocess.CompletedProcess[bytes]":
        done = subprocess.run([*fastlog_command(), *args, "-b", bootstrap], input=given, capture_output=True, timeout=90, check=False)
        assert done.returncode == status, f"exit {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done

    return command


def as_json(done: "subprocess.CompletedProcess[bytes]") -> Any:
    return json.loads(done.stdout)


def test_life_of_a_topic(run: Run, fresh_name: str) -> None:
    created = as_json(run("topic", "create", fresh_name, "-p", "2", "--set", "retention.ms=-1", "--json"))
    assert created == {"topic": fresh_name, "created": True}
    assert b"TOPIC_ALREADY_EXISTS" in run("topic", "create", fresh_name, status=output.FAILED).stderr
    assert as_json(run("topic", "create", fresh_name, "--if-not-exists", "--json"))["created"] is False
    run("topic", "alter", fresh_name, "-p", "3", "--set", "max.message.bytes=2000000", "--unset", "retention.ms")
    found = as_json(run("topic", "describe", fresh_name, "--json"))
    assert [p["partition"] for p in found["partitions"]] == [0, 1, 2]
    assert {s["name"]: s["value"] for s in found["settings"]} == {"max.message.bytes": "2000000"}
    assert found["durability"].startswith("acks=all is on stable storage")
    every = {s["name"]: s["value"] for s in as_json(run("topic", "describe", fresh_name, "--all", "--json"))["settings"]}
    assert every["retention.ms"] == "604800000"
    assert {"name": fresh_name, "partitions": 3, "records": 0, "internal": False} in as_json(run("topic", "list", "--json"))
    assert fresh_name.encode() in run("topic", "list").stdout
    assert b"--yes" in run("topic", "delete", fresh_name, status=output.FAILED).stderr
    run("topic", "delete", fresh_name, "--yes")
    assert fresh_name not in {t["name"] for t in as_json(run("topic", "list", "--json"))}
    assert b"no topic named" in run("topic", "describe", fresh_name, status=output.NOT_FOUND).stderr


def test_an_unknown_topic_gets_a_name_near_it(run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name)
    done = run("consume", fresh_name[:-1], status=output.NOT_FOUND)
    assert f"did you mean {fresh_name}".encode() in done.stderr
    assert fresh_name[:-1] not in {t["name"] for t in as_json(run("topic", "list", "--json"))}, "asking for a topic made it"


def test_produce_and_consume_lines(run: Run, fresh_name: str) -> None:
    lines = [b"key%d:value %d" % (i % 5, i) for i in range(1000)]
    run("topic", "create", fresh_name, "-p", "3")
    done = run("produce", fresh_name, "-K", ":", "-z", "lz4", "--json", given=b"\n".join(lines))
    assert as_json(done)["records"] == 1000
    read = run("consume", fresh_name, "--print", "key,value").stdout.splitlines()
    for key in range(5):
        mine = b"key%d" % key
        assert [r for r in read if r.startswith(mine)] == [line.replace(b":", b"\t") for line in lines if line.startswith(mine)]
    assert len(run("consume", fresh_name, "-n", "10").stdout.splitlines()) == 10
    assert len(run("consume", fresh_name, "--from", "-2").stdout.splitlines()) == 6
    assert run("consume", fresh_name, "--from", "end").stdout == b""


def test_places(run: Run, fresh_name: str) -> None:
    lines = b"".join(b'{"value": "%d", "timestamp": %d}\n' % (i, 1_700_000_000_000 + i * 1000) for i in range(100))
    run("topic", "create", fresh_name, "-p", "1")
    run("produce", fresh_name, "--input", "json", given=lines)
    for args, expected in (
        (["--from", "90"], range(90, 100)),
        (["--from", "@1700000050000"], range(50, 100)),
        (["--from", "2023-11-14T22:14:20Z", "--until", "2023-11-14T22:14:30Z"], range(60, 70)),
        (["--until", "5"], range(5)),
        (["--until", "-95"], range(5)),
        (["--from", "10", "--until", "3"], range(0)),
        (["--partition", "0", "--from", "-1"], range(99, 100)),
    ):
        assert [int(v) for v in run("consume", fresh_name, *args).stdout.split()] == list(expected), args
    assert b"not 7" in run("consume", fresh_name, "-p", "7", status=output.NOT_FOUND).stderr


def test_json_and_raw_keep_every_byte(run: Run, fresh_name: str, tmp_path: Path) -> None:
    picture = bytes(range(256)) * 300
    (tmp_path / "picture").write_bytes(picture)
    run("topic", "create", fresh_name, "-p", "1")
    run("produce", fresh_name, str(tmp_path / "picture"), "--input", "whole", "-k", "p", "-H", "kind=picture")
    run("produce", fresh_name, "-K", ":", "--empty-as-null", given=b"gone:\n")
    assert run("consume", fresh_name, "--raw", "-n", "1").stdout == picture
    copy = fresh_name + "-copy"
    run("topic", "create", copy, "-p", "1")
    run("produce", copy, "--input", "json", given=run("consume", fresh_name, "--json").stdout)
    first, second = (run("consume", name, "--json").stdout.replace(b"-copy", b"") for name in (fresh_name, copy))
    assert first == second


def test_follow_prints_what_comes_and_ends_on_interrupt(bootstrap: str, run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "1")
    command = [*fastlog_command(), "consume", fresh_name, "--follow", "-b", bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        for word in (b"first", b"second"):
            run("produce", fresh_name, given=word + b"\n")
            assert follower.stdout.readline() == word + b"\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(15) == output.OK


def test_a_member_that_is_told_to_end_leaves_its_group(bootstrap: str, run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "1")
    run("produce", fresh_name, given=b"first\n")
    command = [*fastlog_command(), "consume", fresh_name, "--follow", "-g", fresh_name, "-b", bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == b"first\n"
        member.send_signal(signal.SIGTERM)
        assert member.wait(15) == output.OK
    assert as_json(run("group", "describe", fresh_name, "--json"))["members"] == []


def test_groups(run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "2")
    for p in range(2):
        run("produce", fresh_name, "-p", str(p), given=b"".join(b"%d\n" % i for i in range(p * 100, p * 100 + 100)))
    first = run("consume", fresh_name, "-g", fresh_name, "-n", "80").stdout.split()
    rest = run("consume", fresh_name, "-g", fresh_name).stdout.split()
    assert sorted(int(v) for v in first + rest) == list(range(200))
    found = as_json(run("group", "describe", fresh_name, "--json"))
    assert sum(p["lag"] for p in found["partitions"]) == 0
    assert fresh_name in {g["name"] for g in as_json(run("group", "list", "--json"))}
    run("group", "reset", fresh_name, "--to", "start", "--dry-run")
    assert run("consume", fresh_name, "-g", fresh_name).stdout == b""
    moved = as_json(run("group", "reset", fresh_name, "--to", "-5", "--topic", f"{fresh_name}:1", "--json"))
    assert moved["changed"]
    assert len(run("consume", fresh_name, "-g", fresh_name).stdout.split()) == 5
    status = as_json(run("status", "--json"))
    assert {"name": fresh_name, "state": "Empty", "topics": 1, "lag": 0} in status["groups"]
    assert b"--yes" in run("group", "delete", fresh_name, status=output.FAILED).stderr
    run("group", "delete", fresh_name, "-y")
    assert b"no consumer group" in run("group", "describe", fresh_name, status=output.NOT_FOUND).stderr


def test_groups_of_both_protocols(bootstrap: str, run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "2")
    run("produce", fresh_name, given=b"".join(b"%d\n" % i for i in range(20)))
    run("consume", fresh_name, "-g", f"{fresh_name}-classic")
    settings = {"bootstrap.servers": bootstrap, "group.protocol": "consumer", "auto.offset.reset": "earliest"}
    member = confluent_kafka.Consumer({**settings, "group.id": fresh_name})
    member.subscribe([fresh_name])
    deadline = time.monotonic() + 45
    while len(member.assignment()) != 2:
        assert time.monotonic() < deadline
        member.poll(0.1)
    found = as_json(run("group", "describe", fresh_name, "--json"))
    assert (found["type"], found["state"], len(found["members"])) == ("consumer", "Stable", 1)
    assert {p["member"] for p in found["partitions"]} == {found["members"][0]["id"]}
    assert b"consumer group " + fresh_name.encode() in run("group", "describe", fresh_name).stdout
    run("group", "reset", fresh_name, "--topic", fresh_name, "--to", "start", status=output.FAILED)
    member.close()
    types = {g["name"]: g["type"] for g in as_json(run("group", "list", "--json"))}
    assert (types[fresh_name], types[f"{fresh_name}-classic"]) == ("consumer", "classic")
    assert as_json(run("group", "reset", fresh_name, "--topic", fresh_name, "--to", "start", "--json"))["changed"]
    run("group", "delete", fresh_name, f"{fresh_name}-classic", "-y")
    assert not {fresh_name, f"{fresh_name}-classic"} & {g["name"] for g in as_json(run("group", "list", "--json"))}


def test_status(run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "2")
    run("produce", fresh_name, given=b"a\nb\nc\n")
    found = as_json(run("status", "--json"))
    assert found["cluster_id"]
    assert {"name": fresh_name, "partitions": 2, "records": 3} in found["topics"]
    assert b"\x1b" not in run("status").stdout, "colour where there is no terminal"


def test_a_closed_pipe_is_no_error(bootstrap: str, run: Run, fresh_name: str) -> None:
    run("topic", "create", fresh_name, "-p", "1")
    run("produce", fresh_name, given=b"x" * 100 + b"\n" + b"".join(b"%d\n" % i for i in range(50_000)))
    command = [*fastlog_command(), "consume", fresh_name, "-b", bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.readline()
        reader.stdout.close()
        deadline = time.monotonic() + 30
        while reader.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reader.poll() == output.OK
        assert reader.stderr.read() == b""
