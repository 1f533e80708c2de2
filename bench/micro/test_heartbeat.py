"""What a heartbeat costs the coordinator: group state, codec and timers, in a group of 1,000 members of either protocol.

.venv/bin/python -m pytest bench/micro/test_heartbeat.py --benchmark-enable
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlog.coordinator.operation import Client
from fastlog.protocol.messages import decode_request, encode_request, encode_response
from tests.coordinator.fakes import Bench, FakeTopics

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

MEMBERS = 1_000


def test_consumer_group(benchmark: BenchmarkFixture) -> None:
    """A member that has nothing to say in a group that has come to rest."""
    b = Bench(None, FakeTopics(t=MEMBERS), consumer_assignment_interval_ms=0)
    for number in range(MEMBERS):
        b.beat(f"m{number}", 0, "t")
    group = b.shard.consumers.groups["c"]
    for _ in range(3):
        for member_id in list(group.members):
            given = b.assigned(b.beat(member_id, group.members[member_id].epoch))
            if given is not None:
                b.beat(member_id, group.members[member_id].epoch, owned=given)
    assert group.state.value == "Stable"
    client = Client(1, "client", "/127.0.0.1")
    body = encode_request(68, 1, {"group_id": "c", "member_id": "m7", "member_epoch": group.epoch})

    def heartbeat() -> bytes:
        result = b.shard.heartbeats.heartbeat(client, decode_request(68, 1, body))
        assert not result.records
        return encode_response(68, 1, result.response or {})

    benchmark(heartbeat)


def test_classic_group(benchmark: BenchmarkFixture) -> None:
    b = Bench()
    ids = b.stable(MEMBERS, "c")
    body = encode_request(12, 4, {"group_id": "c", "generation_id": b.group("c").generation, "member_id": ids[7]})

    def heartbeat() -> Any:
        error = b.shard.heartbeat(decode_request(12, 4, body))
        assert not error
        return encode_response(12, 4, {"error_code": error})

    benchmark(heartbeat)
