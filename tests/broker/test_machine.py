"""Where memory outlives the process: on a machine, and not in a container, by the namespaces and the marks that it leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastlog.broker import machine

FIRST_PID, FIRST_MOUNT = machine.PID_NAMESPACE_FIRST, machine.MOUNT_NAMESPACE_FIRST


@pytest.mark.parametrize(
    ("pid", "mount", "mount_of_1", "contained"),
    [
        (FIRST_PID, FIRST_MOUNT, None, False),  # a virtual machine made from a container's image; process 1 may not be looked at
        (FIRST_PID, 4026531841, 4026531841, False),  # an older kernel
        (FIRST_PID, 4026532500, 4026531841, True),  # a container that sees the machine's processes
        (FIRST_PID, 4026531841, None, True),
        (4026532600, 4026532500, 4026532500, True),  # a container, its process 1 in the same namespaces
    ],
)
def test_a_container_is_told_from_a_machine_made_of_its_image(
    monkeypatch: pytest.MonkeyPatch, pid: int, mount: int, mount_of_1: int | None, contained: bool
) -> None:
    numbers = {("self", "pid"): pid, ("self", "mnt"): mount, ("1", "mnt"): mount_of_1}
    monkeypatch.setattr(machine, "_namespace", lambda process, kind: numbers[process, kind])
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/.dockerenv")
    assert machine.in_container() is contained


def test_a_machine_without_marks_is_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_in_first_namespaces", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(machine, "_read", lambda _: "0::/init.scope")
    monkeypatch.delenv("container", raising=False)
    assert not machine.in_container()
    monkeypatch.setitem(os.environ, "container", "podman")
    assert machine.in_container()
