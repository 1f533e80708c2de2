"""What a broker costs before anything is asked of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.brokers import StartError
from bench.rows import Row, Target
from fastlog.loadgen import wire

if TYPE_CHECKING:
    from bench.brokers import Broker
    from bench.session import Session

IDLE_SECONDS = 10.0
START_DEADLINE = 60.0


def idle(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """A fresh start, some quiet seconds, then memory, and CPU over some more."""
    broker.stop()
    broker.start()
    seconds = min(IDLE_SECONDS, session.options.seconds)
    time.sleep(seconds)
    before = machine.usage(broker.pid, session.options.broker_core, session.device)
    time.sleep(seconds)
    used = machine.usage(broker.pid, session.options.broker_core, session.device) - before
    memory = machine.memory_mb(broker.pid)
    resident = round(memory["all"] - memory["shared"], 1)
    return {"memory_MB": memory, "resident_MB": resident, "idle_cpu_percent": round(used.cpu / used.at * 100, 2), "sound": True}


def start(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """From before the process is made until a produce with acks=1 to a topic of its last life is acknowledged."""
    from fastlog.native import loadtemplate as template

    broker.check()
    with wire.Connection("127.0.0.1", broker.port) as control:
        control.create_topic(row.name, 1, {})
        topic = control.wait_for_topic(row.name)
    broker.stop()
    machine.wait_for_quiet_disk(session.device, session.options.quiet_seconds)
    frame = wire.produce_frame(12, topic, 1, 0, template.make_batch(1, 100))
    begun = broker.launch()
    while True:
        try:
            with wire.Connection("127.0.0.1", broker.port, timeout=5) as control:
                while True:
                    answer = control.send_frame(frame)
                    answer.tags()
                    answer.uvarint()
                    answer.compact_text()
                    answer.uvarint()
                    answer.number(4)
                    code = answer.number(2)
                    if code == 0:
                        return {"start_s": round(time.monotonic() - begun, 4), "sound": True}
                    _not_too_late(begun, broker)
        except OSError:
            _not_too_late(begun, broker)


def _not_too_late(begun: float, broker: Broker) -> None:
    """Waits a little. Raises StartError when it took too long."""
    broker.check()
    if time.monotonic() - begun > START_DEADLINE:
        raise StartError(f"{broker.name} acknowledged nothing for {START_DEADLINE:.0f} s:\n{broker.tail()}")
    time.sleep(0.002)


ROWS = (
    Row(
        "idle",
        "resident memory idle, shared memory (arena) apart",
        "own",
        metric="resident_MB",
        unit="MB",
        targets=(
            Target("resident_MB", 60, at_least=False, absolute=True),
            Target("idle_cpu_percent", 0.5, at_least=False, absolute=True),
        ),
        measure=idle,
        restarts=True,
        less_is_better=True,
    ),
    Row(
        "start",
        "start until the first produce is acknowledged",
        "own",
        metric="start_s",
        unit="s",
        targets=(Target("start_s", 0.4, at_least=False, absolute=True),),
        measure=start,
        restarts=True,
        less_is_better=True,
    ),
)
