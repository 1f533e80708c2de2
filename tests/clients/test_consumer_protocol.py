"""Consumer groups of the new protocol (KIP-848), and groups that change their protocol in use, with confluent-kafka (librdkafka 2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from tests.clients.test_confluent import consume, produce
from tests.support.records import many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.one_engine

admin_api: Any = confluent_kafka.admin  # partly untyped


@pytest.fixture
def admin(bootstrap: str) -> Any:
    return admin_api.AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic(admin: Any, fresh_name: str) -> str:
    """A topic with six partitions."""
    admin.create_topics([admin_api.NewTopic(fresh_name, 6, 1)])[fresh_name].result(15)
    return fresh_name


@pytest.fixture
def member(bootstrap: str, fresh_name: str) -> Iterator[Callable[..., ck.Consumer]]:
    """Makes members of the test's group; `protocol` "consumer" or "classic"."""
    made: list[ck.Consumer] = []

    def make(protocol: str = "consumer", **settings: Any) -> ck.Consumer:
        consumer = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": fresh_name,
                "group.protocol": protocol,
                "auto.offset.reset": "earliest",
                **settings,
            }
        )
        made.append(consumer)
        return consumer

    yield make
    for consumer in made:
        consumer.close()


def settle(*consumers: ck.Consumer, sizes: list[int], timeout_s: float = 90.0) -> None:
    """Polls until the members own so many partitions each, and none of them two own."""
    deadline = time.monotonic() + timeout_s
    while True:
        for consumer in consumers:
            consumer.poll(0.05)
        owned = [[(p.topic, p.partition) for p in consumer.assignment()] for consumer in consumers]
        if sorted(map(len, owned)) == sorted(sizes) and len({each for part in owned for each in part}) == sum(sizes):
            return
        assert time.monotonic() < deadline, owned


def described(admin: Any, group: str) -> Any:
    return admin.describe_consumer_groups([group])[group].result(15)


def test_members_come_and_go(bootstrap: str, admin: Any, topic: str, member: Callable[..., ck.Consumer]) -> None:
    produce(bootstrap, topic, many(120))
    first = member()
    first.subscribe([topic])
    assert len(consume(first, 120)) == 120
    first.commit()
    second = member()
    second.subscribe([topic])
    settle(first, second, sizes=[3, 3])
    found = described(admin, topic)
    assert (found.state.name, found.type.name, found.partition_assignor) == ("STABLE", "CONSUMER", "uniform")
    assert sorted(len(m.assignment.topic_partitions) for m in found.members) == [3, 3]
    second.close()
    settle(first, sizes=[6])
    produce(bootstrap, topic, many(60))
    assert len(consume(first, 60)) == 60  # nothing twice


def test_a_regular_expression_and_the_range_assignor(bootstrap: str, admin: Any, topic: str, member: Callable[..., ck.Consumer]) -> None:
    consumer = member(**{"group.remote.assignor": "range"})
    consumer.subscribe([f"^{topic}.*"])
    settle(consumer, sizes=[6])
    admin.create_topics([admin_api.NewTopic(f"{topic}-more", 2, 1)])[f"{topic}-more"].result(15)
    settle(consumer, sizes=[8])
    assert described(admin, topic).partition_assignor == "range"


def test_a_static_member_restarts(topic: str, member: Callable[..., ck.Consumer]) -> None:
    stays, restarts = member(**{"group.instance.id": "one"}), member(**{"group.instance.id": "two"})
    for consumer in (stays, restarts):
        consumer.subscribe([topic])
    settle(stays, restarts, sizes=[3, 3])
    had = {p.partition for p in restarts.assignment()}
    kept = {p.partition for p in stays.assignment()}
    restarts.close()
    again = member(**{"group.instance.id": "two"})
    again.subscribe([topic])
    settle(stays, again, sizes=[3, 3])
    assert {p.partition for p in again.assignment()} == had
    assert {p.partition for p in stays.assignment()} == kept


def test_a_live_group_changes_its_protocol_and_back(bootstrap: str, admin: Any, topic: str, member: Callable[..., ck.Consumer]) -> None:
    """A rolling restart from one protocol to the other: no record is lost, and none read twice."""
    old = member("classic", **{"partition.assignment.strategy": "cooperative-sticky"})
    old.subscribe([topic])
    produce(bootstrap, topic, many(60))
    consume(old, 60)
    old.commit()
    assert described(admin, topic).type.name == "CLASSIC"
    new = member()
    new.subscribe([topic])
    settle(old, new, sizes=[3, 3])
    found = described(admin, topic)
    assert (found.type.name, found.state.name) == ("CONSUMER", "STABLE")
    old.close()
    settle(new, sizes=[6])
    produce(bootstrap, topic, many(60))
    consume(new, 60)
    new.commit()
    back = member("classic", **{"partition.assignment.strategy": "cooperative-sticky"})
    back.subscribe([topic])
    settle(new, back, sizes=[3, 3])
    new.close()
    settle(back, sizes=[6])
    assert described(admin, topic).type.name == "CLASSIC"
    produce(bootstrap, topic, many(60))
    assert len(consume(back, 60)) == 60
