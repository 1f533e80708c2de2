"""What the admin sees and does of transactions (KIP-664)."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from fastlog.client import Admin, AsyncAdmin, Consumer, Producer, TopicPartition, errors
from tests.support.relay import Relay, caps_of_level

HOUR_MS = 3_600_000
Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def producer(bootstrap: str, topic: str, fresh_name: str) -> Iterator[Producer]:
    """With a transaction that is open in partitions 0 and 2; its transactional id is named as the topic."""
    assert topic == fresh_name
    with Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name, transaction_timeout_ms=50_000) as made:
        made.init_transactions()
        made.begin_transaction()
        for at in (2, 0):
            made.send(topic, b"open", partition=at).result(30)
        yield made


def test_admin_sees_a_transaction(admin: Admin, producer: Producer, topic: str, eventually: Eventually) -> None:
    found = admin.transaction(topic)
    assert (found.id, found.state, found.timeout_ms) == (topic, "Ongoing", 50_000)
    assert found.partitions == [TopicPartition(topic, 0), TopicPartition(topic, 2)]
    assert found.start_ms is not None
    listed = {t.id: t for t in admin.transactions(["Ongoing", "PrepareAbort"])}[topic]
    assert (listed.producer_id, listed.state) == (found.producer_id, "Ongoing")
    assert listed.coordinator in {b.id for b in admin.cluster().brokers}
    assert admin.transactions(producer_ids=[found.producer_id]) == [listed]
    assert admin.transactions(["Empty"], [found.producer_id]) == []
    assert admin.transactions(producer_ids=[found.producer_id], duration_ms=HOUR_MS) == []
    eventually(lambda: admin.transactions(duration_ms=0, producer_ids=[found.producer_id]) == [listed], 10)
    (writes,) = admin.producers(topic, 2)
    assert (writes.producer_id, writes.producer_epoch) == (found.producer_id, found.producer_epoch)
    assert (writes.last_sequence, writes.start_offset) == (0, 0)
    assert admin.producers(topic, 1) == []

    producer.commit_transaction()
    eventually(lambda: admin.transaction(topic).state == "CompleteCommit", 30)
    over = admin.transaction(topic)
    assert (over.start_ms, over.partitions) == (found.start_ms, [])
    (writes,) = admin.producers(topic, 2)
    assert (writes.producer_id, writes.start_offset) == (found.producer_id, None)
    assert writes.coordinator_epoch is not None
    assert topic in {t.id for t in admin.transactions(["CompleteCommit"])}


def test_admin_aborts_a_transaction(admin: Admin, producer: Producer, bootstrap: str, topic: str) -> None:
    """In one partition, as a hanging one: a consumer of committed records goes on there, and in the other does not."""
    with Producer(bootstrap_servers=bootstrap) as other:
        ends = {at: other.send(topic, b"behind", partition=at).result(30).offset for at in (0, 2)}
    assert ends == {0: 1, 2: 1}
    hanging = next(p for p in admin.producers(topic, 2) if p.start_offset is not None)
    where = (topic, 2, hanging.producer_id)
    admin.abort_transaction(*where, hanging.producer_epoch, hanging.coordinator_epoch)
    assert all(p.start_offset is None for p in admin.producers(topic, 2))
    assert [p.start_offset for p in admin.producers(topic, 0) if p.producer_id == hanging.producer_id] == [0]
    with Consumer(bootstrap_servers=bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign({(topic, 0): 0, (topic, 2): 0})
        (seen,) = consumer.poll(1, 30)
        assert (seen.partition, seen.value) == (2, b"behind")
        assert consumer.poll(1, 0.2) == []

    admin.abort_transaction(*where, hanging.producer_epoch + 5, 3)
    with pytest.raises(errors.InvalidProducerEpochError):
        admin.abort_transaction(*where, hanging.producer_epoch)
    with pytest.raises(errors.TransactionCoordinatorFencedError):
        admin.abort_transaction(*where, hanging.producer_epoch + 5, 2)


def test_admin_fences_producers(admin: Admin, producer: Producer, topic: str, eventually: Eventually) -> None:
    before = admin.transaction(topic)
    fenced = admin.fence_producers([topic, f"{topic}-new"])
    assert list(fenced) == [topic, f"{topic}-new"]
    assert (fenced[topic].producer_id, fenced[topic].producer_epoch) > (before.producer_id, before.producer_epoch)
    made = admin.transaction(f"{topic}-new")
    assert (made.state, made.start_ms, made.partitions) == ("Empty", None, [])
    with pytest.raises((errors.InvalidProducerEpochError, errors.ProducerFencedError)):
        producer.commit_transaction()
    eventually(lambda: all(p.start_offset is None for p in admin.producers(topic, 0)), 30)


def test_what_is_not_there(admin: Admin, topic: str) -> None:
    with pytest.raises(errors.TransactionalIdNotFoundError, match=topic):
        admin.transaction(topic)
    for wrong in ((topic, 3), (f"{topic}-none", 0)):
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            admin.producers(*wrong)
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            admin.abort_transaction(*wrong, 5, 0)


def test_a_broker_that_is_older(producer: Producer, bootstrap: str, topic: str) -> None:
    """It would leave out the duration, and list all."""
    with Relay(bootstrap, caps_of_level(99) | {66: 0}).running() as relay, Admin(relay.bootstrap) as admin:
        assert topic in {t.id for t in admin.transactions(["Ongoing"])}
        with pytest.raises(errors.UnsupportedVersionError, match="duration_ms"):
            admin.transactions(duration_ms=0)


def test_admin_sees_transactions_in_a_loop(producer: Producer, bootstrap: str, topic: str) -> None:
    async def body() -> None:
        async with AsyncAdmin(bootstrap) as admin:
            found, listed, writes = await asyncio.gather(
                admin.transaction(topic), admin.transactions(["Ongoing"]), admin.producers(topic, 0)
            )
            assert (found.id, found.producer_id) in {(t.id, t.producer_id) for t in listed}
            await admin.abort_transaction(topic, 0, found.producer_id, found.producer_epoch)
            assert [(p.start_offset, p.producer_id) for p in writes] == [(0, found.producer_id)]
            assert [p.start_offset for p in await admin.producers(topic, 0)] == [None]
            assert (await admin.fence_producers([topic]))[topic] > (found.producer_id, found.producer_epoch)

    asyncio.run(body())
