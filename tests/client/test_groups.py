"""Members of groups, by every protocol and assignor: sharing, handing over, static members, fencing; beside librdkafka too."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest

from fastlog.client import Admin, ConfigError, Consumer, Producer, TopicPartition, errors
from fastlog.client.cluster import Cluster

pytestmark = pytest.mark.one_engine

PROTOCOLS: dict[str, dict[str, Any]] = {
    "range": {},
    "sticky": {"partition_assignment_strategy": "sticky"},
    "cooperative": {"partition_assignment_strategy": "cooperative-sticky"},
    "consumer": {"group_protocol": "consumer"},
}
# Those that take from a member only what others are to get.
GENTLE = ("cooperative", "consumer")
SETTLE_S = 60
Member = Callable[..., Consumer]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def member(bootstrap: str, fresh_name: str) -> Iterator[Member]:
    """Makes members of the test's group."""
    made: list[Consumer] = []

    def make(protocol: str, **settings: Any) -> Consumer:
        beats = {} if protocol == "consumer" else {"heartbeat_interval_ms": 100}
        common = {"bootstrap_servers": bootstrap, "group_id": fresh_name, "auto_offset_reset": "earliest", "enable_auto_commit": False}
        made.append(Consumer({**common, **beats, **PROTOCOLS[protocol], **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def six(make_topic: Callable[[int], str], bootstrap: str) -> str:
    """A topic of six partitions with 100 records in each."""
    topic = make_topic(6)
    with Producer(bootstrap_servers=bootstrap) as producer:
        for p in range(6):
            producer.send_batch(topic, [b"%d" % i for i in range(100)], partitions=p)
        producer.flush(30)
    return topic


def poll_until(condition: Callable[[], bool], *members: Consumer, seen: list[tuple[int, int]] | None = None) -> list[tuple[int, int]]:
    """Polls all until it is so; (partition, offset) of what they read meanwhile, added to `seen`."""
    deadline = time.monotonic() + SETTLE_S
    seen = [] if seen is None else seen
    while not condition():
        assert time.monotonic() < deadline, [one.assignment() for one in members]
        for one in members:
            seen += [(r.partition, r.offset) for r in one.poll(1000, 0.05)]
    return seen


def have(*wanted: tuple[Consumer, int]) -> Callable[[], bool]:
    return lambda: all(len(one.assignment()) == count for one, count in wanted)


def test_partitions_are_handed_over(member: Member, protocol: str, six: str) -> None:
    moved: list[TopicPartition] = []
    came: list[TopicPartition] = []
    one = member(protocol)

    def revoke(parts: list[TopicPartition]) -> None:
        one.commit()
        moved.extend(parts)

    one.subscribe([six], on_revoke=revoke, on_assign=came.extend)
    seen: list[tuple[int, int]] = []
    poll_until(lambda: len(seen) >= 600, one, seen=seen)
    assert sorted(seen) == [(p, i) for p in range(6) for i in range(100)]
    two = member(protocol)
    two.subscribe([six])
    assert poll_until(have((one, 3), (two, 3)), one, two) == [], "read again what was committed, or kept"
    assert len(moved) == (3 if protocol in GENTLE else 6)
    assert len(came) - len(moved) == 3 if protocol not in GENTLE else len(came) == 6
    if protocol != "range":
        assert set(one.assignment()) <= set(came[:6]), "sticky"
    two.commit()
    two.close()
    assert poll_until(have((one, 6)), one) == []
    one.close()
    assert len(moved) == (9 if protocol in GENTLE else 15), "close revokes what is left"


def test_a_static_member_comes_back(member: Member, protocol: str, six: str) -> None:
    one, two = member(protocol, group_instance_id="i1"), member(protocol, group_instance_id="i2")
    for each in (one, two):
        each.subscribe([six])
    poll_until(have((one, 3), (two, 3)), one, two)
    moved: list[TopicPartition] = []
    one.on_revoke = one.on_lost = moved.extend
    had = two.assignment()
    two.close()
    again = member(protocol, group_instance_id="i2")
    again.subscribe([six])
    poll_until(have((one, 3), (again, 3)), one, again)
    assert again.assignment() == had
    assert moved == []


def test_an_instance_is_one_member_only(member: Member, protocol: str, six: str) -> None:
    one = member(protocol, group_instance_id="i1")
    one.subscribe([six])
    poll_until(have((one, 6)), one)
    other = member(protocol, group_instance_id="i1")
    other.subscribe([six])
    lost: list[TopicPartition] = []
    one.on_lost = lost.extend
    if protocol == "consumer":
        with pytest.raises(errors.UnreleasedInstanceIdError):
            poll_until(have((other, 6)), other)
        assert len(one.assignment()) == 6
        return
    with pytest.raises(errors.FencedInstanceIdError):
        poll_until(lambda: False, other, one)
    assert len(lost) == 6
    assert one.assignment() == []


def test_a_member_that_was_thrown_out_joins_again(member: Member, protocol: str, six: str, bootstrap: str, fresh_name: str) -> None:
    one = member(protocol)
    lost: list[TopicPartition] = []
    one.subscribe([six], on_lost=lost.extend)
    poll_until(have((one, 6)), one)
    who = one.group_metadata()
    cluster = Cluster(bootstrap, client_id="executioner")
    node = cluster.coordinator(fresh_name)
    if protocol == "consumer":
        cluster.call("ConsumerGroupHeartbeat", {"group_id": fresh_name, "member_id": who.member_id, "member_epoch": -1}, node=node)
    else:
        gone = [{"member_id": who.member_id, "group_instance_id": None}]
        cluster.call("LeaveGroup", {"group_id": fresh_name, "members": gone}, node=node)
    cluster.close()
    with pytest.raises((errors.UnknownMemberIdError, errors.IllegalGenerationError)):
        one.commit({(six, 0): 7})
    poll_until(lambda: len(lost) == 6 and len(one.assignment()) == 6, one)
    one.commit({(six, 0): 7})


@pytest.mark.long
def test_a_changed_subscription(member: Member, protocol: str, six: str, admin: Admin) -> None:
    admin.create_topic(f"{six}-b", 2)
    one = member(protocol)
    one.subscribe([six])
    poll_until(have((one, 6)), one)
    one.subscribe([f"{six}-b"])
    poll_until(lambda: one.assignment() == [(f"{six}-b", 0), (f"{six}-b", 1)], one)
    one.subscribe([six, f"{six}-b"])
    poll_until(have((one, 8)), one)


@pytest.mark.long
def test_a_pattern_that_the_broker_matches(member: Member, six: str, admin: Admin) -> None:
    one = member("consumer")
    one.subscribe(pattern=f"{six}.*")
    poll_until(have((one, 6)), one)
    admin.create_topic(f"{six}-later", 1)
    poll_until(have((one, 7)), one)
    with pytest.raises(errors.InvalidRegularExpressionError):  # noqa: PT012
        one.subscribe(pattern="(")
        poll_until(lambda: False, one)


@pytest.mark.parametrize("kind", ["cooperative", pytest.param("consumer", marks=pytest.mark.long)])
def test_beside_librdkafka(member: Member, kind: str, six: str, bootstrap: str, fresh_name: str) -> None:
    """The leader is whoever came first: each shares out for the other once."""
    settings = {"bootstrap.servers": bootstrap, "group.id": fresh_name, "auto.offset.reset": "earliest"}
    settings |= {"group.protocol": "consumer"} if kind == "consumer" else {"partition.assignment.strategy": "cooperative-sticky"}
    theirs = confluent_kafka.Consumer(settings)
    theirs.subscribe([six])

    def theirs_has(count: int) -> bool:
        theirs.poll(0.05)
        return len(theirs.assignment()) == count

    poll_until(lambda: theirs_has(6))
    ours = member(kind)
    ours.subscribe([six])
    poll_until(lambda: theirs_has(3) and len(ours.assignment()) == 3, ours)
    theirs.close()
    poll_until(have((ours, 6)), ours)
    theirs = confluent_kafka.Consumer(settings)
    theirs.subscribe([six])
    poll_until(lambda: theirs_has(3) and len(ours.assignment()) == 3, ours)
    theirs.close()


def test_settings_of_the_wrong_protocol() -> None:
    for name in ("session_timeout_ms", "heartbeat.interval.ms"):
        with pytest.raises(ConfigError, match="at the broker"):
            Consumer({name: 1000, "group_protocol": "consumer"})
    with pytest.raises(ConfigError, match="group_protocol"):
        Consumer(group_remote_assignor="uniform")
    for wrong in ("best", [], ["range", "best"], [7], 7):
        with pytest.raises(ConfigError, match="cooperative-sticky"):
            Consumer(partition_assignment_strategy=wrong)


def test_what_changes_while_the_consumer_answers(member: Member, six: str) -> None:
    """A member that is thrown out just as its partitions are taken up, or let go of: what was announced is told to be lost, once."""
    one = member("cooperative")
    told: list[tuple[str, int]] = []
    one.subscribe(
        [six],
        on_assign=lambda parts: told.append(("came", len(parts))),
        on_revoke=lambda parts: told.append(("went", len(parts))),
        on_lost=lambda parts: told.append(("lost", len(parts))),
    )
    membership = one._membership
    assert membership is not None
    take_up, let_go = membership.take_up, membership.let_go

    def thrown_out_before() -> list[TopicPartition] | None:
        membership.take_up = take_up  # type: ignore[method-assign]
        membership._thrown_out(22)
        return take_up()  # type: ignore[return-value]

    membership.take_up = thrown_out_before  # type: ignore[method-assign, assignment]
    poll_until(have((one, 6)), one)
    assert told == [("came", 6)], "the first time nothing was taken up"

    def thrown_out_meanwhile(gone: set[TopicPartition], *, lost: bool) -> None:
        membership.let_go = let_go  # type: ignore[method-assign]
        membership._thrown_out(22)
        let_go(gone, lost=lost)

    membership.let_go = thrown_out_meanwhile  # type: ignore[method-assign, assignment]
    two = member("cooperative")
    two.subscribe([six])
    poll_until(lambda: ("lost", 3) in told, one, two)
    assert told == [("came", 6), ("went", 3), ("lost", 3)]
    two.close()
    poll_until(have((one, 6)), one)
    assert sum(n if what == "came" else -n for what, n in told) == 6
