"""Which core a disk's interrupts go to."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bench import machine as processes
from bench.__main__ import choose_cores
from fastlog.loadgen import machine

TABLE = """           CPU0       CPU1
 28:          9          0 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
 36:          {}         {} PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          {}         {} PCI-MSIX-0000:00:05.0   1-edge      nvme0q1
NMI:          0          0 Non-maskable interrupts
"""
VIRTIO = "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda"
NVME = "/sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1/nvme0n1p2"


@pytest.mark.parametrize(
    ("place", "counts", "core"),
    [
        (VIRTIO, (3, 1000, 0, 0), 1),
        (VIRTIO, (600, 400, 0, 0), None),
        (VIRTIO, (0, 0, 5, 0), None),
        (NVME, (0, 1000, 1000, 0), 0),
        ("/sys/devices/virtual/block/loop0", (0, 1000, 0, 0), None),
    ],
)
def test_one_core_takes_a_disks_interrupts(monkeypatch: pytest.MonkeyPatch, place: str, counts: tuple[int, ...], core: int | None) -> None:
    monkeypatch.setattr(Path, "resolve", lambda _: Path(place))
    assert machine.interrupts_core("disk", TABLE.format(*counts)) == core


def test_no_device_has_no_core() -> None:
    assert machine.interrupts_core("") is None


@pytest.mark.parametrize(
    ("given", "taken", "cores", "chosen"),
    [
        ((None, None), 1, [0, 1], (1, 0)),
        ((None, None), None, [0, 1], (0, 1)),
        ((None, None), 7, [2, 3], (2, 3)),
        ((None, 1), 1, [0, 1], (0, 1)),
        ((0, None), 1, [0, 1], (0, 1)),
        ((None, None), 0, [0], (0, 0)),
    ],
)
def test_brokers_run_where_the_interrupts_go(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: tuple[int | None, int | None],
    taken: int | None,
    cores: list[int],
    chosen: tuple[int, int],
) -> None:
    monkeypatch.setattr("bench.__main__.interrupts_core", lambda _: taken)
    asked = argparse.Namespace(broker_core=given[0], load_core=given[1], directory=tmp_path)
    choose_cores(asked, cores)
    assert (asked.broker_core, asked.load_core) == chosen


def test_a_run_waits_until_the_other_brokers_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, used = [0.0], {1: 0.0, 2: 0.0}

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        used[1] += seconds * (0.5 if clock[0] < 3 else 0.01)
        used[2] += seconds * 0.01

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(processes, "cpu_seconds", used.__getitem__)
    assert processes.wait_for_idle([1, 2], 60) == pytest.approx(0.02)
    assert 3 <= clock[0] <= 4
    used[2] = clock[0] = 0.0
    assert processes.wait_for_idle([1, 2], 2) > 0.5, "not for ever"
