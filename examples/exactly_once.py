"""Exactly once: orders are read, priced and written as invoices, and a crash in the middle neither loses nor doubles one.

    python examples/exactly_once.py [HOST:PORT]      (without an address: on a broker that ends with it)

What was written and how far was read are stored together, in a transaction. A worker that comes back with the same transactional id ends
what the one before had left open, and goes on from the last commit.
"""

import sys
from collections import Counter

import fastlog
from fastlog.client import Admin, Consumer, Producer

ORDERS, INVOICES, GROUP = "eo-orders", "eo-invoices", "eo-billing"


class CrashError(Exception):
    """Stands for a power cut."""


def priced(order: bytes) -> bytes:
    return b"%s: %d cents" % (order, 50 * len(order))


def work(bootstrap: str, *, crash_after: int | None = None) -> int:
    """Turns orders into invoices until all are done, and says how many. CrashError, amid a transaction, after so many batches."""
    done, batches = 0, 0
    with (
        Consumer(
            bootstrap_servers=bootstrap,
            group_id=GROUP,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,  # the transaction commits the offsets
            max_partition_fetch_bytes=4096,  # small batches, to have many transactions
        ) as consumer,
        Producer(bootstrap_servers=bootstrap, transactional_id=f"{GROUP}-1") as producer,
    ):
        producer.init_transactions()
        consumer.subscribe([ORDERS])
        while not consumer.at_end:
            batch = consumer.poll_batch(timeout=1)
            if batch is None:
                continue
            producer.begin_transaction()
            producer.send_batch(INVOICES, [priced(order) for order in batch.value_list() if order is not None])
            if batches == crash_after:
                producer.flush()  # the invoices are in the log: nobody who reads what is committed will see them
                raise CrashError
            producer.send_offsets_to_transaction({(batch.topic, batch.partition): batch.next_offset}, consumer.group_metadata())
            producer.commit_transaction()
            done, batches = done + len(batch), batches + 1
    return done


def invoices(bootstrap: str, isolation_level: str) -> Counter[bytes]:
    """How often each invoice is there."""
    found: Counter[bytes] = Counter()
    with Consumer(bootstrap_servers=bootstrap, isolation_level=isolation_level) as consumer:
        consumer.assign({(INVOICES, p): 0 for p in range(consumer.partitions_for(INVOICES))})
        while not consumer.at_end:
            for batch in consumer.poll_batches():
                found.update(value for value in batch.value_list() if value is not None)
    return found


def main(bootstrap: str, orders: int = 1000) -> Counter[bytes]:
    with Admin(bootstrap) as admin:
        for topic in (ORDERS, INVOICES):
            admin.create_topic(topic, partitions=3)
    with Producer(bootstrap_servers=bootstrap, batch_size=4096) as producer:
        producer.send_batch(ORDERS, [b"order %d" % n for n in range(orders)], keys=[b"%d" % n for n in range(orders)])

    try:
        work(bootstrap, crash_after=1)
    except CrashError:
        print("crashed in the middle of a transaction")
    work(bootstrap)

    committed, written = invoices(bootstrap, "read_committed"), invoices(bootstrap, "read_uncommitted")
    print(f"{orders} orders, {written.total()} invoices written, {committed.total()} committed, {len(committed)} different")
    return committed


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with fastlog.embedded() as broker:
            main(broker.bootstrap_servers)
