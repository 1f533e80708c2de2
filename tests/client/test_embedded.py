"""A broker for somebody else's tests."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastlog
from fastlog.client import Admin
from fastlog.embedding import EmbeddedBroker, EmbeddedBrokerError
from tests.support.java import java

TEST = """
import confluent_kafka
from fastlog.client import Consumer, Producer

def test_another_client(fastlog_broker, fastlog_topic):
    producer = confluent_kafka.Producer({"bootstrap.servers": fastlog_broker.bootstrap_servers})
    producer.produce(fastlog_topic, b"a fig")
    assert producer.flush(20) == 0
    settings = {"group.id": "billing", "auto.offset.reset": "earliest"}
    consumer = confluent_kafka.Consumer({"bootstrap.servers": fastlog_broker.bootstrap_servers, **settings})
    consumer.subscribe([fastlog_topic])
    assert consumer.poll(30).value() == b"a fig"
    consumer.close()

def test_orders(fastlog_broker, fastlog_topic):
    with Producer(bootstrap_servers=fastlog_broker.bootstrap_servers) as producer:
        producer.send(fastlog_topic, b"a pear").result(10)
    with Consumer(bootstrap_servers=fastlog_broker.bootstrap_servers) as consumer:
        consumer.assign({(fastlog_topic, 0): 0})
        assert [r.value for r in consumer.poll(1, 20)] == [b"a pear"]
"""


def test_it_runs_and_cleans_up() -> None:
    with fastlog.embedded({"num.partitions": "5"}) as broker:
        with Admin(broker.bootstrap_servers) as admin:
            admin.create_topic("orders")
            assert len(admin.topic("orders").partitions) == 5
        assert broker.data.exists()
    assert broker.process.returncode == 0
    assert not broker.data.parent.exists()


@pytest.mark.java
def test_a_java_client(kafka_classpath: str, fastlog_broker: EmbeddedBroker, fastlog_topic: str) -> None:
    """With the fixtures, which this run of pytest has by their entry point."""
    at = ("--bootstrap-server", fastlog_broker.bootstrap_servers, "--topic", fastlog_topic)
    java(kafka_classpath, "org.apache.kafka.tools.ConsoleProducer", *at, given=b"a pear\na fig\n")
    reading = ("--from-beginning", "--max-messages", "2", "--timeout-ms", "60000")
    said = java(kafka_classpath, "org.apache.kafka.tools.consumer.ConsoleConsumer", *at, *reading)
    assert sorted(said.splitlines()) == ["a fig", "a pear"]


def test_a_program_that_is_interrupted_still_sends() -> None:
    code = """if 1:
        import os, signal
        import fastlog
        from fastlog.client import Producer
        with fastlog.embedded() as broker, Producer(bootstrap_servers=broker.bootstrap_servers, linger_ms=60_000) as producer:
            sent = producer.send("orders", b"a pear")
            try:
                os.killpg(0, signal.SIGINT)  # as a terminal does with Ctrl-C: to all that it has started
                signal.pause()
            except KeyboardInterrupt:
                producer.flush(60)
                print(sent.result(0).offset, broker.process.poll())
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, start_new_session=True)
    assert done.stdout.split() == ["0", "None"], done.stderr


def test_a_killed_program_leaves_no_broker() -> None:
    code = """if 1:
        import fastlog, os, signal
        with fastlog.embedded() as broker:
            print(broker.process.pid, broker.data, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid, data = done.stdout.split()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (Path(data) / ".kafka_cleanshutdown").exists(), "it ended in order"
    shutil.rmtree(Path(data).parent)


def test_what_does_not_start_is_told() -> None:
    with pytest.raises(EmbeddedBrokerError, match=r"no\.such\.setting"), fastlog.embedded({"no.such.setting": "1"}):
        pass


def test_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fastlog.pytest_plugin", "-p", "no:cacheprovider", "test_orders.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
