"""Instruction counts that are kept say when a room has become slower."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from bench.micro import instructions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept.json"
    monkeypatch.setattr(instructions, "KEPT", path)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/valgrind")
    return path


def compared(monkeypatch: pytest.MonkeyPatch, count: int, *words: str) -> int:
    monkeypatch.setattr(instructions, "count", lambda _: count)
    monkeypatch.setattr(sys, "argv", ["instructions", "crc", *words])
    return instructions.main()


def test_a_count_that_moved_fails(kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(monkeypatch, 1000, "--save") == 0
    assert compared(monkeypatch, 1029) == 0
    assert compared(monkeypatch, 1031) == 1
    assert "MOVED" in capsys.readouterr().out
    assert compared(monkeypatch, 900) == 1, "fewer is to be kept, too"
    held = json.loads(kept.read_text())
    kept.write_text(json.dumps(held | {"made_with": "another compiler"}))
    assert compared(monkeypatch, 2000) == 0
    assert "can't be held against" in capsys.readouterr().out


def test_every_kept_count_has_its_case_and_each_case_works() -> None:
    assert json.loads(instructions.KEPT.read_text())["instructions"].keys() == instructions.CASES.keys()
    for name in instructions.CASES:
        instructions.run(name, 1)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
def test_callgrind_counts_the_same_twice() -> None:
    first, second = instructions.count("validate"), instructions.count("validate")
    assert 10_000 < first < 1_000_000
    assert second == pytest.approx(first, rel=instructions.TOLERANCE)
