"""`fastlog bench`: limits, then a broker beside them; every result sound, with its share of the limit that bounds it."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastlog.cli import main
from fastlog.loadgen import host, limits


def test_a_host_and_a_broker_on_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastlog.cli.main", "bench", "--data", str(tmp_path), "--output", str(tmp_path / "found.json")]
    command += ["--seconds", "0.3", "--memory", "64M", "--set", "log.segment.bytes=67108864"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["loads"]) == {load.name for load in host.LOADS}
    for load in host.LOADS:
        result = found["loads"][load.name]
        assert result["sound"], load.name
        assert result[load.metric] > 0, load.name
        assert load.title in done.stdout
        if load.bound:
            name, value = load.bound(found["limits"])
            assert result["limit"]["name"] == name
            assert result["limit"]["share"] == pytest.approx(result[load.metric] / value, abs=0.001)
    assert found["machine"]["kernel"] == os.uname().release
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"], "nothing is left"


def test_the_network_is_measured_against_another_hosts_far_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = threading.Thread(target=limits.serve, args=(listener,))
        far.start()
        try:
            with socket.create_connection(listener.getsockname()) as stranger:
                stranger.sendall(b"\xff" * 8)
                assert stranger.recv(1) == b"", "who asks for what there is not is sent away"
            found = limits.network(listener.getsockname()[:2], 0.05, "network: ")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            far.join()
    assert found["network: echo of 1 KiB, one after the other"]["p50_us"] > 0
    assert found["network: receive 64 KiB and CRC-32C"]["MB_per_s"] > 0


def test_wrong_directories_and_cores_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["bench", "--data", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a directory" in capsys.readouterr().err
    assert main.main(["bench", "--data", str(tmp_path), "--broker-core", "4095"]) == 1
    assert "4095" in capsys.readouterr().err
