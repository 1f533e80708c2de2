"""What the recovery rows are made of, on a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.groups import recovery
from fastlog.loadgen import wire
from fastlog.native import loadtemplate as template

if TYPE_CHECKING:
    from tests.conftest import Start


def test_partitions_that_do_not_serve_are_told_apart(bootstrap: str, fresh_name: str) -> None:
    host, _, port = bootstrap.rpartition(":")
    with wire.Connection(host, int(port)) as control:
        control.create_topic(fresh_name, 3, {})
        topic = control.wait_for_topic(fresh_name)
        frame = recovery.produce_to_all(topic, [0, 1, 2, 3, 4], template.make_batch(1, 100))
        assert recovery.accepted(control.send_frame(frame)) == {0, 1, 2}
        assert control.offsets(fresh_name, range(3), -1) == [1, 1, 1]


def test_a_broker_starts_on_what_was_filled(start_broker: Start, engine: str, fresh_name: str) -> None:
    broker = start_broker(io=engine)
    with wire.Connection("127.0.0.1", broker.port) as control:
        control.create_topic(fresh_name, 2, {"retention.ms": "-1"})
        control.wait_for_topic(fresh_name)
    broker.stop()
    for index in range(2):
        recovery.fill(broker.data / f"{fresh_name}-{index}", 1_000_000_000)
    for _ in range(2):
        broker.start()
        with wire.Connection("127.0.0.1", broker.port) as control:
            assert control.offsets(fresh_name, range(2), -1) == [recovery.ROLLED_OFFSETS + recovery.ACTIVE_BATCHES] * 2
        broker.kill()
        assert sum(file.stat().st_blocks * 512 for file in broker.data.rglob("*.log")) < 1 << 30
    broker.start()
