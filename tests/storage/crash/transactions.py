"""Transactions over all partitions, as a coordinator ends them: a decision that is durable, in the first partition, then markers in the
others. Whatever a crash leaves, the next process can make it all or nothing: that is what `recover` does, and checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.records import TRANSACTIONAL, Batch, build_end_marker, iter_batches
from tests.storage.build import batch, count_of, split
from tests.storage.committed import committed, is_abort

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlog.native.logtool import LocalLog, Pending
    from tests.storage.crash.machine import Machine
    from tests.storage.crash.model import Model

PRODUCER = 7000
"""Those of transactions have ids above; each has one of its own."""
LATER = 4_102_444_800_000
TURNS = 2000
COMMIT, ABORT = 10, 20
"""Sizes of the decisions' records."""


def run(machine: Machine) -> None:
    """A transaction, up to some step of it."""
    rng = machine.rng
    if len(machine.pairs()) < len(machine.models):
        return  # a partition is in the making, or offline
    (log, model), *parts = machine.pairs()
    producer = 1 + max((one.producer_id for _, part in parts for one in _transactional(part)), default=PRODUCER)
    fields = {"producer_id": producer, "producer_epoch": 0, "base_sequence": 0, "attributes": TRANSACTIONAL, "timestamp": LATER}
    if not _wait(machine, [machine.submit(log, model, batch(1, rng.choice((10, 2000, 6000)), **fields))[0] for log, model in parts]):
        return
    if rng.random() < 0.1:
        return  # nobody ends it
    commit = rng.random() < 0.7
    decision = batch(1, COMMIT if commit else ABORT, timestamp=LATER, producer_id=producer, producer_epoch=0, base_sequence=0)
    if not _wait(machine, [machine.submit(log, model, decision)[0]]):
        return
    for log, model in parts:
        if rng.random() < 0.9:
            _end(machine, log, model, producer, commit=commit)


def _end(machine: Machine, log: LocalLog, model: Model, producer: int, *, commit: bool) -> Pending:
    end = build_end_marker(producer_id=producer, producer_epoch=0, coordinator_epoch=0, commit=commit, timestamp_ms=LATER)
    return machine.submit(log, model, end)[0]


def _wait(machine: Machine, pending: Iterable[Pending]) -> bool:
    """Until they are answered; whether all were taken."""
    assert machine.store is not None
    appends = list(pending)
    for _ in range(TURNS):
        if all(append.done for append in appends):
            break
        machine.store.run()
    machine.look()
    return all(append.done and append.result().error == 0 for append in appends)


def _decisions(model: Model) -> dict[int, bool]:
    """By producer, whether it is a commit."""
    found = {}
    for one in iter_batches(b"".join(data for _, data in model.batches)):
        if one.producer_id > PRODUCER and one.records[0].value is not None:
            found[one.producer_id] = len(one.records[0].value) == COMMIT
    return found


def _transactional(model: Model) -> list[Batch]:
    return [one for one in iter_batches(b"".join(data for _, data in model.batches)) if one.producer_id > PRODUCER]


def recover(machine: Machine) -> None:
    """What the coordinator does at a start: ends what was decided as it was, aborts the rest. Raises Violation."""
    from tests.storage.crash.machine import Violation

    if len(machine.pairs()) < len(machine.models) or not _wait(machine, [append for append, *_ in machine.pending]):
        return
    (_, first), *parts = machine.pairs()
    decided = _decisions(first)
    pending = []
    written: dict[int, set[str]] = {}
    for log, model in parts:
        check(log, model)
        ends: dict[int, bool] = {}
        begun: set[int] = set()
        for one in _transactional(model):
            if not one.control:
                begun.add(one.producer_id)
                written.setdefault(one.producer_id, set()).add(model.name)
            else:
                ends[one.producer_id] = not is_abort(one)
        for producer in begun:
            if ends.get(producer, decided.get(producer, False)) != decided.get(producer, False):
                raise Violation(f"{model.name}: producer {producer}'s transaction ended otherwise than was decided")
            if producer not in ends:
                pending.append(_end(machine, log, model, producer, commit=decided.get(producer, False)))
    for producer in decided:
        if written.get(producer, set()) != {model.name for _, model in parts}:
            raise Violation(f"producer {producer}'s transaction was decided; its records are in {written.get(producer)} only")
    if _wait(machine, pending):
        for log, model in parts:
            check(log, model)


def check(log: LocalLog, model: Model) -> None:
    """A reader of committed records gets those of transactions that were committed and what is in none, up to the first open one. Raises
    Violation."""
    from tests.storage.crash.machine import Violation

    ends = {one.producer_id: not is_abort(one) for one in _transactional(model) if one.control}
    stable = min((one.base_offset for one in _transactional(model) if one.producer_id not in ends), default=model.end)
    expected = [
        one.base_offset
        for one in iter_batches(b"".join(data for _, data in model.batches))
        if one.base_offset < stable and not one.control and (not one.transactional or ends[one.producer_id])
    ]
    found: list[int] = []
    at = log.positions.log_start
    while True:
        result, aborted = log.read_committed(at)
        whole = split(result.data)
        if result.error or not whole:
            break
        found += [one.base_offset for one in committed(result.data, aborted)]
        at = int.from_bytes(whole[-1][:8], "big") + count_of(whole[-1])
    if log.positions.last_stable != stable or found != expected:
        raise Violation(f"{model.name}: committed up to {log.positions.last_stable}, not {stable}: {found}, not {expected}")
