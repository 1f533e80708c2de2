"""The client against Apache Kafka itself: these tests once more, a restart, and a change of leader epochs with it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.brokers import Kafka, StartError
from fastlog.client import Admin, Consumer, Delivery, Producer

ROOT = Path(__file__).parents[2]
# Quick ones of every kind; ./test --long runs all that need no fastlog of their own.
CHOSEN = (
    "test_columns_beside or test_places or test_what_the_java or test_commit_and_abort or test_offsets_go_with"
    " or test_a_second_producer or test_a_lost_ack or test_cuts_while or test_a_producer_keeps or test_silence or test_a_slow"
    " or test_a_consumer_reads_on or test_answers_that or (test_partitions_are_handed_over and cooperative)"
    " or (test_a_member_that_was_thrown_out and consumer) or (test_single_records and zstd)"
    " or test_numbers or (test_a_group_waits and names) or test_a_name_that or test_what_came_out"
    " or test_admin_sees_a_tr or test_admin_aborts or test_admin_fences or test_what_is_not_there"
)

pytestmark = [pytest.mark.java, pytest.mark.timeout(1500)]


class SmallKafka(Kafka):
    jvm = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Xmx384m"


@pytest.fixture
def kafka(kafka_classpath: str, tmp_path: Path) -> Iterator[Kafka]:
    if os.environ.get("FASTLOG_TEST_BOOTSTRAP"):
        pytest.skip("runs a broker of its own")
    options = ["offsets.topic.num.partitions=1", "transaction.state.log.num.partitions=1"]
    options.append("log.retention.ms=-1")  # tests write records of 1970, and it looks for old ones every second
    for attempt in range(3):
        made = SmallKafka(tmp_path, max(os.sched_getaffinity(0)), options)
        try:
            made.start()
            break
        except StartError:  # somebody else took one of its ports before it did
            made.stop()
            made.wipe()
            if attempt == 2:
                raise
    yield made
    made.stop()


def test_on_kafka(kafka: Kafka, tmp_path: Path) -> None:
    """One broker for both, as a start takes longer than most of the tests."""
    restart(kafka)
    chosen = ["-m", "not long", "-k", CHOSEN] if not os.environ.get("FASTLOG_TEST_LONG") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={tmp_path}/inner", *chosen]
    environment = {**os.environ, "FASTLOG_TEST_BOOTSTRAP": kafka.address}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run([*command, "tests/client"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + kafka.tail()
    assert " passed" in done.stdout


def restart(kafka: Kafka) -> None:
    """Written and read through a restart, after which each partition's leader has a new epoch: nothing lost, nothing twice."""
    over = threading.Event()
    sent: list[Delivery] = []
    seen: list[bytes | None] = []

    def write() -> None:
        with Producer(bootstrap_servers=kafka.address, linger_ms=0, batch_size=1024) as producer:
            while not over.is_set() or len(sent) < 500:
                sent.append(producer.send("through", b"%d" % len(sent)))
                time.sleep(0.002)
            for one in sent:
                one.result(120)

    def read() -> None:
        with Consumer(bootstrap_servers=kafka.address, max_partition_fetch_bytes=4096) as consumer:
            consumer.assign({("through", 0): 0})
            deadline = time.monotonic() + 300
            while (not over.is_set() or writer.is_alive() or len(seen) < len(sent)) and time.monotonic() < deadline:
                seen.extend(r.value for r in consumer.poll(1000, 0.1))

    with Admin(kafka.address) as admin:
        admin.create_topic("through", 1)
        before = epoch(admin)
        writer, reader = threading.Thread(target=write), threading.Thread(target=read)
        writer.start()
        reader.start()
        kafka.stop()  # in this thread: the broker ends with the thread that started it
        kafka.start()
        over.set()
        writer.join()
        reader.join()
        assert seen == [b"%d" % i for i in range(len(sent))]
        assert epoch(admin) > before


def epoch(admin: Admin) -> int:
    """The leader's, of topic "through"."""
    raw = admin._cluster.metadata(["through"])["through"]
    return raw.epochs[0]
