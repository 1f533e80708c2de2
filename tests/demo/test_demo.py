"""The README's first command, as `./demo --exit` runs it."""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOWNLOADED = ROOT / "demo-data/source"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory for the demo, with the source data of an earlier run here, if there was one."""
    if DOWNLOADED.exists():
        shutil.copytree(DOWNLOADED, tmp_path / "demo/source")
    return tmp_path / "demo"


@pytest.fixture
def taken_port() -> Iterator[None]:
    """Port 9092 is taken, by this test where it is not already."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", 9092))
            taken.listen()
        yield


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("taken_port")
def test_demo_reconciles_beside_another_broker_and_after_an_earlier_run(home: Path) -> None:
    (home / "broker").mkdir(parents=True)
    (home / "broker/left").write_text("by an earlier run")
    command = [sys.executable, "-m", "examples.flights", "--exit", "--data", str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=280, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, f"{said}\n{done.stderr.decode()}"
    assert "port 9092 is taken" in said
    assert "removed the data of an earlier run" in said
    assert "All counts agree" in said
    assert "\x1b" not in said
    assert sum(p.stat().st_blocks * 512 for p in (home / "broker").rglob("*") if p.is_file()) < 1e9
