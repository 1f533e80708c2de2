"""Transactions: all or nothing, with the offsets of what was consumed, and one producer for a transactional id."""

import time

import pytest

from fastlog.client import Consumer, Producer, errors


def committed(bootstrap: str, topic: str, count: int, level: str = "read_committed") -> list[bytes]:
    """The values in all three partitions, at least `count`: a commit is answered before its markers are written."""
    with Consumer(bootstrap_servers=bootstrap, isolation_level=level) as consumer:
        consumer.assign({(topic, p): 0 for p in range(3)})
        seen: list[bytes] = []
        deadline = time.monotonic() + 45
        while not (consumer.at_end and len(seen) >= count) and time.monotonic() < deadline:
            seen += [r.value for r in consumer.poll(1000, 0.2)]
    return sorted(seen)


def test_commit_and_abort(bootstrap: str, topic: str, fresh_name: str) -> None:
    with Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as producer:
        producer.init_transactions()
        with pytest.raises(errors.InvalidTxnStateError, match="begin_transaction"):
            producer.send(topic, b"outside")
        for i in range(4):
            producer.begin_transaction()
            producer.send_batch(topic, [b"%d" % i] * 3, partitions=[0, 1, 2])
            if i % 2:
                producer.flush(30)
                producer.abort_transaction()
            else:
                producer.commit_transaction()
        producer.begin_transaction()
        waiting = producer.send(topic, b"never sent")
        producer.abort_transaction()
        assert waiting.exception(10) is not None or waiting.done()
        producer.begin_transaction()
        producer.send(topic, b"last", partition=0)
        producer.commit_transaction()
    assert committed(bootstrap, topic, 7) == sorted([b"0", b"2"] * 3 + [b"last"])
    assert b"1" in committed(bootstrap, topic, 7, "read_uncommitted")


def test_offsets_go_with_the_transaction(bootstrap: str, topic: str, fresh_name: str) -> None:
    with Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as producer:
        producer.init_transactions()
        with Consumer(bootstrap_servers=bootstrap, group_id=fresh_name, enable_auto_commit=False) as consumer:
            consumer.assign({(topic, 0): 0})
            for offset, commit in ((5, True), (9, False)):
                producer.begin_transaction()
                producer.send(topic, b"x")
                producer.send_offsets_to_transaction({(topic, 0): offset}, consumer.group_metadata())
                if commit:
                    producer.commit_transaction()
                else:
                    producer.abort_transaction()
            assert consumer.committed([(topic, 0)]) == {(topic, 0): 5}


def test_a_second_producer_fences_the_first(bootstrap: str, topic: str, fresh_name: str) -> None:
    with (
        Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as first,
        Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name) as second,
    ):
        first.init_transactions()
        first.begin_transaction()
        first.send(topic, b"first").result(30)
        second.init_transactions()
        first.send(topic, b"late")
        with pytest.raises((errors.InvalidProducerEpochError, errors.ProducerFencedError)):
            first.commit_transaction()
        second.begin_transaction()
        second.send(topic, b"second")
        second.commit_transaction()
    assert committed(bootstrap, topic, 1) == [b"second"]
