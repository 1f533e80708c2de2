"""A wheel, installed where there is neither a compiler nor the sources, serves."""

import json
import os
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.process import free_port
from tests.support.wire import roundtrip

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_wheel_serves_in_an_environment_of_its_own(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    subprocess.run(["cp", "-r", "--parents", "src", "setup.py", "pyproject.toml", "README.md", "LICENSE", tmp_path], cwd=ROOT, check=True)
    tmp_path.joinpath("build").mkdir()
    for archive in (ROOT / "build").glob("liburing-*.tar.gz"):
        (tmp_path / "build" / archive.name).write_bytes(archive.read_bytes())
    for built in (tmp_path / "src").rglob("*.so"):
        built.unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(tmp_path)]
    subprocess.run(pip, check=True, timeout=500)
    (wheel,) = wheels.glob("fastlog_broker-*.whl")
    with zipfile.ZipFile(wheel) as inside:
        names = inside.namelist()
    assert not [n for n in names if n.split("/")[0] != "fastlog" and ".dist-info/" not in n], "nothing but the package and its metadata"
    assert [n for n in names if n.endswith(".so")]

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    pinned: list[str | Path] = ["--only-binary=:all:", "--constraint", ROOT / "ci/constraints.txt"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned, wheel], check=True, timeout=200)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"PATH": "/nowhere"}
    command = [str(tmp_path / "venv/bin/fastlog"), "serve", "--data", "data", "--listen", f"127.0.0.1:{port}", "--memory", "256M"]
    with subprocess.Popen(command, cwd=tmp_path / "venv", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as broker:
        assert broker.stdout is not None
        deadline = time.monotonic() + 30
        while b"ready in " not in (line := broker.stdout.readline()):
            assert line, "the broker ended"
            assert time.monotonic() < deadline
        assert roundtrip(f"127.0.0.1:{port}", 18, 0, b"")[:2] == b"\0\0", "ApiVersions answers without an error"
        broker.send_signal(signal.SIGTERM)
        broker.stdout.read()
        assert broker.wait(30) == 0
    bench = [str(tmp_path / "venv/bin/fastlog"), "bench", "--seconds", "0.5", "--memory", "128M", "--json"]
    said = subprocess.run(bench, cwd=tmp_path / "venv", env=environment, capture_output=True, text=True, check=True, timeout=200)
    assert all(load["sound"] for load in json.loads(said.stdout)["loads"].values())
