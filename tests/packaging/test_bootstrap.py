"""ci/bootstrap: what makes it work, what it asks for, and what it says when it can't."""

import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, over a checkout of its own."""
    loader = importlib.machinery.SourceFileLoader("bootstrap", str(ROOT / "ci/bootstrap"))
    spec = importlib.util.spec_from_loader("bootstrap", loader)
    assert spec is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    for name in ("pyproject.toml", "ci/constraints.txt", "src/fastlog/native/room.pyx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    for name, value in (("ROOT", tmp_path), ("VENV", tmp_path / ".venv"), ("PYTHON", tmp_path / ".venv/bin/python")):
        monkeypatch.setattr(module, name, value)
    return module


def test_up_to_date_until_something_that_matters_changes(bootstrap: Any, tmp_path: Path) -> None:
    assert not bootstrap.up_to_date("run")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "fastlog"):
        (tmp_path / ".venv/bin" / name).touch()
    (tmp_path / ".venv/.bootstrap-test").write_text(bootstrap.stamp("test"))
    assert not bootstrap.up_to_date("run"), "the room is not built"
    (tmp_path / "src/fastlog/native/room").with_suffix(bootstrap.sysconfig.get_config_var("EXT_SUFFIX")).touch()
    assert bootstrap.up_to_date("test")
    assert bootstrap.up_to_date("run"), "what the tests need includes what the demo needs"
    (tmp_path / "src/fastlog/python.py").write_text("Python files are not built")
    assert bootstrap.up_to_date("run")
    (tmp_path / "src/fastlog/native/room.pyx").write_text("changed")
    assert not bootstrap.up_to_date("run")


def test_run_profile_is_not_enough_for_tests(bootstrap: Any, tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "fastlog"):
        (tmp_path / ".venv/bin" / name).touch()
    (tmp_path / "src/fastlog/native/room").with_suffix(bootstrap.sysconfig.get_config_var("EXT_SUFFIX")).touch()
    (tmp_path / ".venv/.bootstrap-run").write_text(bootstrap.stamp("run"))
    assert bootstrap.up_to_date("run")
    assert not bootstrap.up_to_date("test")


def test_an_ordinary_user_without_sudo_gets_one_line(bootstrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None if name == "sudo" else f"/usr/bin/{name}")
    with pytest.raises(SystemExit) as said:
        bootstrap.install_packages(["gcc", "zlib1g-dev"])
    assert str(said.value).count("\n") == 0
    assert "apt-get install gcc zlib1g-dev" in str(said.value)


def test_sudo_never_asks_where_nobody_can_answer(bootstrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    monkeypatch.setattr(bootstrap.sys.stdin, "isatty", lambda: False)
    assert bootstrap.as_root() is None
    assert asked == [["sudo", "-n", "true"]]


def test_missing_headers_are_named_by_package(bootstrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.Path, "exists", lambda _: False)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda _: None)
    missing = set(bootstrap.missing_packages("test"))
    assert missing >= {"gcc", "make", "zlib1g-dev", "liblz4-dev", "libzstd-dev", "libsnappy-dev", "python3-dev", "python3-venv"}
    assert missing >= {"kcat", "maven", "default-jdk-headless"}
    assert not set(bootstrap.missing_packages("run")) & {"kcat", "maven", "default-jdk-headless"}
