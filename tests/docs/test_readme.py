"""What README.md shows of the client works by copy and paste."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastlog
from fastlog.client import Admin

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client(blocks: list[str], tmp_path: Path) -> None:
    (program,) = (b for b in blocks if "127.0.0.1:9092" in b)
    with fastlog.embedded() as broker:
        with Admin(broker.bootstrap_servers) as admin:
            admin.create_topic("orders", 8)  # as the quick tour did before
        (tmp_path / "program.py").write_text(program.replace("127.0.0.1:9092", broker.bootstrap_servers))
        said = run("program.py", cwd=tmp_path)
    assert set(re.findall(r"b'([a-z ]+)'", said)) <= {"a pear", "a plum", "a fig"}
    assert re.search(r"^\d 0 \[b'a ", said, re.MULTILINE)


def test_the_test(blocks: list[str], tmp_path: Path) -> None:
    (test,) = (b for b in blocks if "def test_" in b)
    (tmp_path / "test_orders.py").write_text(test)
    # found by its entry point, as it is where the package is installed
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py", cwd=tmp_path)
