"""The rows, a module for each group. A module here registers by being here: its `ROWS` (a tuple of `bench.rows.Row`) go to the report in
the order of `ORDER`, then by the module's name; the module's name chooses them all (`bench/run --only latency`), as does any name that
its `GROUPS` (name -> names of rows) gives to some of them. `core` runs when nothing is named; `all` is every row but the optional ones.

Most rows are a load of `fastlog.loadgen.job.Job`, made by `rows.throughput`, `rows.batches` or `rows.by_the_clock`. One that is something
else has kind "own" and measures itself, with what the session offers:

    def measure(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
        topic = session.new_topic(broker, row)                  # deleted when its space is needed
        session.make_room(2 * GIB)                              # deletes older topics till so much is free
        seconds = session.seconds(row)                          # what the command, the budget and row.seconds_max leave
        job = session.job(row, broker, topic, seconds, 0)       # row.job and the topic's settings
        with session.beside(Job(address=broker.address, ...)):  # another load meanwhile, its result in .result after the block
            sample = session.observe(broker, job)               # runs it; CPU, memory, switches, device bytes beside the result
        broker.stop(); broker.start()                           # restarts=True in the row, then
        return {**sample, "ready_s": 0.4}                       # sound: True or False is in it

    ROWS = (Row("recovery", "start after a kill, 1,000 partitions", "own", metric="ready_s", unit="s", measure=measure, restarts=True,
                less_is_better=True, targets=(Target("ready_s", 0.5, at_least=False),)),)

`session.options` has directory, seconds, cores and memory; `session.aside` is a directory for brokers that a row starts of its own;
`machine` what /proc says. Rows name metrics by their units; a sample is one run of one broker, and the session repeats it in pairs. Nothing
else is to be done: tables, ratios, intervals and bars follow from the fields.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.rows import Row

ORDER = ("footprint", "volatile", "stable", "small", "latency", "read", "hard", "compressed", "load")
# What runs when nothing is named
CORE = ("footprint", "volatile", "stable", "small", "latency", "read", "catch-up", "parts-5000", "idle-10000", "two-cores")


def _modules() -> list[str]:
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name for name in ORDER if name in found] + sorted(set(found) - set(ORDER))


def _collect() -> tuple[tuple[Row, ...], dict[str, tuple[str, ...]]]:
    rows: list[Row] = []
    groups: dict[str, tuple[str, ...]] = {}
    for name in _modules():
        module = importlib.import_module(f"{__name__}.{name}")
        rows += module.ROWS
        groups[name] = tuple(row.name for row in module.ROWS)
        for group, names in getattr(module, "GROUPS", {}).items():
            groups[group] = (*groups.get(group, ()), *names)
    twice = {row.name for row in rows if sum(row.name == other.name for other in rows) > 1}
    if twice:
        raise ValueError(f"two rows have one name: {', '.join(sorted(twice))}")
    groups["core"] = tuple(name for chosen in CORE for name in groups.get(chosen, (chosen,)))
    groups["all"] = tuple(row.name for row in rows if not row.optional)
    return tuple(rows), groups


ROWS, GROUPS = _collect()
