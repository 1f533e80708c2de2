"""Transactions of Kafka's Java client 4.3 (the second version of the protocol: an epoch for each transaction), Kafka Streams, and Kafka's
tools for transactions."""

import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from fastlog.protocol.messages import API_VERSIONS, decode_response, encode_response
from tests.client.proxy import Proxy
from tests.clients.test_transactions import make_topic, producer_of, read, send
from tests.support.java import FAST_START, compile_program, dump_segments, java
from tests.support.process import Broker

pytestmark = pytest.mark.java

ADD_PARTITIONS_TO_TXN, END_TXN = 24, 26
TOOL = "org.apache.kafka.tools.TransactionsCommand"
SOURCES = Path(__file__).parent / "java"


@pytest.fixture(scope="session")
def program(kafka_classpath: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path with Transactions compiled."""
    return compile_program(kafka_classpath, SOURCES / "Transactions.java", tmp_path_factory.mktemp("transactions"))


@pytest.mark.parametrize("case", ["ends", "offsets", "fencing"])
def test_java_client(bootstrap: str, program: str, fresh_name: str, case: str) -> None:
    assert java(program, "Transactions", bootstrap, fresh_name, case).endswith("passed\n")


def without_features(api_key: int, answer: bytes) -> bytes:
    """ApiVersions of a cluster whose transactions are of the first version: its features are as they were before KIP-890."""
    if api_key != API_VERSIONS:
        return answer
    told = decode_response(API_VERSIONS, 4, answer[4:])
    level = {"min_version_level": 1, "max_version_level": 1}
    told["finalized_features"] = [each | (level if each["name"] == "transaction.version" else {}) for each in told["finalized_features"]]
    return answer[:4] + encode_response(API_VERSIONS, 4, told)


@pytest.mark.one_engine
@pytest.mark.parametrize("version", [1, 2])
def test_java_client_chooses_the_version_of_the_protocol(bootstrap: str, program: str, fresh_name: str, version: int) -> None:
    """In the first it adds partitions by a request, and its epoch stays; in the second the broker adds them, and each end has its own."""
    with Proxy(bootstrap) as proxy:
        proxy.spoil = without_features if version == 1 else None
        case = "endsOfTheFirstVersion" if version == 1 else "ends"
        assert java(program, "Transactions", proxy.bootstrap, fresh_name, case).endswith("passed\n")
        assert proxy.requests[END_TXN] >= 4
        assert (proxy.requests[ADD_PARTITIONS_TO_TXN] > 0) == (version == 1)


def rows(output: str) -> list[dict[str, str]]:
    """The table that a tool of Kafka's printed."""
    head, *lines = [re.split(r"\s+", line.strip()) for line in output.splitlines() if line.strip()]
    return [dict(zip(head, line, strict=False)) for line in lines]


@pytest.mark.one_engine
def test_transactions_tool(bootstrap: str, kafka_classpath: str, fresh_name: str) -> None:
    make_topic(bootstrap, fresh_name)
    producer = producer_of(bootstrap, fresh_name)
    producer.begin_transaction()
    send(producer, fresh_name, "a")
    producer.commit_transaction(30)
    producer.begin_transaction()
    send(producer, fresh_name, "b")

    def tool(*arguments: str) -> list[dict[str, str]]:
        return rows(java(kafka_classpath, TOOL, "--bootstrap-server", bootstrap, *arguments))

    (listed,) = [row for row in tool("list") if row["TransactionalId"] == fresh_name]
    assert listed["TransactionState"] == "Ongoing"
    (described,) = tool("describe", "--transactional-id", fresh_name)
    assert described["ProducerId"] == listed["ProducerId"]
    assert described["ProducerEpoch"] == "0", "librdkafka speaks the first version: its epoch stays"
    assert (described["TransactionState"], described["TransactionTimeoutMs"]) == ("Ongoing", "60000")
    assert sorted(described["TopicPartitions"].split(",")) == [f"{fresh_name}-{partition}" for partition in range(3)]
    (found,) = tool("describe-producers", "--topic", fresh_name, "--partition", "0")
    assert (found["ProducerId"], found["ProducerEpoch"]) == (listed["ProducerId"], "0")
    start = found["CurrentTransactionStartOffset"]
    assert start == "2", "after a record and its marker"
    at = ("--topic", fresh_name, "--start-offset", start)
    for partition in range(3):
        java(kafka_classpath, TOOL, "--bootstrap-server", bootstrap, "abort", *at, "--partition", str(partition))
    assert read(bootstrap, fresh_name) == [["a"]] * 3
    (after,) = tool("describe-producers", "--topic", fresh_name, "--partition", "0")
    assert after["CurrentTransactionStartOffset"] == "None"


def test_kafka_reads_what_is_written(start_broker: Callable[..., Broker], kafka_classpath: str, tmp_path: Path) -> None:
    broker = start_broker(args=["--set", "transaction.state.log.num.partitions=2"])
    make_topic(broker.bootstrap, "t")
    producer = producer_of(broker.bootstrap, "app")
    producer.begin_transaction()
    send(producer, "t", "a")
    producer.commit_transaction(30)
    producer.begin_transaction()
    send(producer, "t", "b")
    producer.abort_transaction(30)
    producer = producer_of(broker.bootstrap, "app")  # waits for the end of the one before, which was only decided when it was answered
    del producer  # it would look for the broker
    broker.stop()

    def dumped(pattern: str, *options: str) -> str:
        return dump_segments(kafka_classpath, [path for path in sorted((tmp_path / "data").glob(pattern)) if path.stat().st_size], *options)

    records = dumped("__transaction_state-*/*.log", "--transaction-log-decoder")
    assert "isvalid: false" not in records
    values = [json.loads(value)["data"] for value in re.findall(r"payload: (\{.*\})", records)]
    states = [value["transactionStatus"] for value in values]
    assert [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state] == [0, 1, 2, 4, 1, 3, 5, 0]
    assert values[0]["transactionPartitions"] is None
    (touched,) = values[states.index(2)]["transactionPartitions"]
    assert (touched["topic"], sorted(touched["partitionIds"])) == ("t", [0, 1, 2])
    markers = dumped("t-0/*.log")
    assert re.findall(r"endTxnMarker: (\w+)", markers) == ["COMMIT", "ABORT"]


@pytest.mark.long
def test_streams_count_words_exactly_once(start_broker: Callable[..., Broker], kafka_classpath: str, tmp_path: Path) -> None:
    """A stateful application is killed again and again, and the broker once: each count is made once, in order."""
    broker = start_broker(args=["--set", "group.initial.rebalance.delay.ms=0", "--set", "group.min.session.timeout.ms=1000"])
    bootstrap = broker.bootstrap
    make_topic(bootstrap, "lines", 2)
    make_topic(bootstrap, "counts", 2)
    classpath = compile_program(kafka_classpath, SOURCES / "WordCount.java", tmp_path / "classes")
    command = ["java", *FAST_START, "-cp", classpath, "WordCount", bootstrap, "words", "lines", "counts"]
    lines = [f"one two{number % 2} three{number % 3} seven{number % 7}" for number in range(600)]
    expected = Counter(word for line in lines for word in line.split())
    source = ck.Producer({"bootstrap.servers": bootstrap})

    for life in range(4):
        for number in range(150 * life, 150 * (life + 1)):
            source.produce("lines", lines[number].encode(), partition=number % 2)
        assert source.flush(30) == 0
        log = (tmp_path / f"streams-{life}.log").open("w+")
        application = subprocess.Popen([*command, str(tmp_path / f"state-{life}")], stdout=log, stderr=subprocess.STDOUT)
        try:
            wanted = sum(len(line.split()) for line in lines[: 150 * (life + 1)])
            wanted -= 0 if life == 3 else 200  # killed in the middle
            deadline = time.monotonic() + 90
            while sum(map(len, read(bootstrap, "counts", partitions=2))) < wanted:
                assert time.monotonic() < deadline, Path(log.name).read_text()[-4000:]
                assert application.poll() is None, Path(log.name).read_text()[-4000:]
                time.sleep(0.2)
        finally:
            application.send_signal(signal.SIGKILL)
            application.wait()
            log.close()
        if life == 1:
            broker.kill()
            broker.start()

    seen: dict[str, list[int]] = {}
    for word, count in keyed(bootstrap):
        seen.setdefault(word, []).append(count)
    assert seen == {word: list(range(1, count + 1)) for word, count in expected.items()}


def keyed(bootstrap: str) -> list[tuple[str, int]]:
    settings: dict[str, Any] = {"isolation.level": "read_committed", "enable.partition.eof": True, "enable.auto.commit": False}
    consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "keyed", "auto.offset.reset": "earliest", **settings})
    consumer.assign([ck.TopicPartition("counts", partition, 0) for partition in range(2)])
    found: list[tuple[str, int]] = []
    at_end: set[int] = set()
    while len(at_end) < 2:
        message = consumer.poll(10)
        assert message is not None
        if message.error() is not None:
            at_end.add(message.partition() or 0)
        else:
            found.append(((message.key() or b"").decode(), int(message.value() or b"")))
    consumer.close()
    return found
