"""The blocks of one partition's removed segments become another's, at the same offsets: the worst that recycled blocks can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.native.logtool import LogError

if TYPE_CHECKING:
    from tests.storage.crash.machine import Machine

BATCH = 16384
SETTINGS = {"segment_bytes": 4 * BATCH + 5000, "recycle_bytes": 1 << 20}
SEGMENTS = 2
"""That are handed on."""
TURNS = 400
"""Enough of them for whatever is under way."""


def run(machine: Machine) -> None:
    """Has the pool hold segments of the first partition that begin where the others' next ones will."""
    try:
        _run(machine)
    except LogError:
        if not machine.broken:
            raise


def _run(machine: Machine) -> None:
    assert machine.store is not None
    (log, model), *others = machine.pairs()
    machine.submit(log, model, machine.next_batch(model))
    log.roll()
    for _ in range(4 * SEGMENTS + 1):
        machine.submit(log, model, machine.next_batch(model))
    _settle(machine)
    if machine.pending:
        return  # a call failed
    model.starts.append((machine.now, model.end))
    log.delete_records(model.end)
    _settle(machine)
    for log, model in others:
        machine.submit(log, model, machine.next_batch(model))
        log.roll()


def _settle(machine: Machine) -> None:
    assert machine.store is not None
    for _ in range(TURNS):
        machine.store.run()
    machine.look()
