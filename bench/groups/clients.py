"""The second view: through clients that people use, whose own cost is in the figures. Both brokers get the same client, alone on its core.

Kafka's own producer and consumer as its performance tools drive them, librdkafka through confluent-kafka with each of the five
compressions, and fastlog's own client.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.brokers import Kafka
from bench.rows import Row, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.brokers import Broker
    from bench.session import Session

RECORD_BYTES = 1024
DEADLINE_SECONDS = 300

# Programs of their own, so that a client's memory and threads are not this process's. They print one JSON object.
CONFLUENT = """
import json, random, sys, time
from confluent_kafka import Producer
address, topic, seconds, codec = sys.argv[1:]
words = [random.Random(i).randbytes(512) * 2 for i in range(64)]  # half of each value is new: every codec gets it to about half
producer = Producer({"bootstrap.servers": address, "compression.type": codec, "linger.ms": 5, "batch.size": 65536,
                     "queue.buffering.max.messages": 200000})
failed = [0]
def done(error, message):
    failed[0] += error is not None
sent, begun = 0, time.monotonic()
end = begun + float(seconds)
while time.monotonic() < end:
    for i in range(500):
        while True:
            try:
                producer.produce(topic, words[(sent + i) % 64], on_delivery=done)
                break
            except BufferError:
                producer.poll(0.01)
    sent += 500
    producer.poll(0)
left = producer.flush(60)
print(json.dumps({"records": sent - left, "failed": failed[0] + left, "seconds": time.monotonic() - begun}))
"""
OURS = """
import json, random, sys, time
from fastlog.client import Producer
address, topic, seconds = sys.argv[1:]
values = [random.Random(i).randbytes(1024) for i in range(1000)]
sent, begun = 0, time.monotonic()
with Producer(bootstrap_servers=address) as producer:
    end = begun + float(seconds)
    while time.monotonic() < end:
        producer.send_batch(topic, values)
        sent += len(values)
    producer.flush()
print(json.dumps({"records": sent, "failed": 0, "seconds": time.monotonic() - begun}))
"""


def pinned(session: Session, command: list[str]) -> str:
    """Output of a program on the load's core. Raises OSError when it fails."""
    command = ["taskset", "-c", str(session.options.load_core), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)
    if done.returncode:
        raise OSError((done.stdout + done.stderr).strip()[-1500:])
    return done.stdout


def observed(session: Session, broker: Broker, work: Callable[[], tuple[int, float, bool]]) -> dict[str, Any]:
    """The work gives (records, seconds, sound); with the broker's CPU beside."""
    machine.wait_for_quiet_disk(session.device, session.options.quiet_seconds)
    before = machine.usage(broker.pid, session.options.broker_core, session.device)
    records, seconds, sound = work()
    used = machine.usage(broker.pid, session.options.broker_core, session.device) - before
    megabytes = records * RECORD_BYTES / 1e6
    return {
        "MB_per_s": round(megabytes / seconds, 2),
        "records_per_s": round(records / seconds, 1),
        "cpu_s_per_GB": round(used.cpu / max(megabytes / 1000, 1e-9), 3),
        "memory_MB": machine.memory_mb(broker.pid),
        "sound": sound,
    }


def program(source: str, *arguments: str) -> Callable[[Session, Row, Broker], dict[str, Any]]:
    def measure(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
        topic = session.new_topic(broker, row)
        session.make_room(6 << 30)
        broker.make_topic(topic, 4, {"retention.ms": "-1"})
        seconds = session.seconds(row)

        def work() -> tuple[int, float, bool]:
            found = json.loads(pinned(session, [sys.executable, "-c", source, broker.address, topic, str(seconds), *arguments]))
            return found["records"], found["seconds"], not found["failed"]

        return observed(session, broker, work)

    return measure


def perf_tools(session: Session) -> Kafka:
    """Where Kafka's jars are and how Java is run: as for the broker, with the logging file of any of its instances."""
    made = Kafka(session.aside / "tools", session.options.load_core)
    made.directory.mkdir(parents=True, exist_ok=True)
    made.write_logging()
    return made


def java_produce(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """org.apache.kafka.tools.ProducerPerformance with the producer's defaults: acks=all, idempotent, 16 KiB batches."""
    topic = session.new_topic(broker, row)
    records = int(session.seconds(row) * 60_000)
    session.make_room(6 << 30)
    broker.make_topic(topic, 4, {"retention.ms": "-1"})
    words = f"--topic {topic} --num-records {records} --record-size {RECORD_BYTES} --throughput -1"
    words += f" --producer-props bootstrap.servers={broker.address}"
    tool = perf_tools(session).java("-Xmx512m", f"org.apache.kafka.tools.ProducerPerformance {words}")

    def work() -> tuple[int, float, bool]:
        said = pinned(session, tool).strip().splitlines()[-1]
        found = re.match(r"(\d+) records sent, ([\d.]+) records/sec", said)
        if not found:
            raise OSError(said)
        return int(found[1]), int(found[1]) / float(found[2]), int(found[1]) == records

    return observed(session, broker, work)


def java_consume(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """org.apache.kafka.tools.ConsumerPerformance over what our generator stored before, with the consumer's defaults."""
    topic = session.new_topic(broker, row)
    records = int(session.seconds(row) * 100_000)
    session.make_room(6 << 30)
    job = replace(session.job(row, broker, topic, 120, records * RECORD_BYTES), partitions=4, window=8)
    stored = session.generate(job)["batches_acked"] * 64
    words = f"--bootstrap-server {broker.address} --topic {topic} --num-records {stored} --timeout 30000"
    tool = perf_tools(session).java("-Xmx512m", f"org.apache.kafka.tools.ConsumerPerformance {words}")

    def work() -> tuple[int, float, bool]:
        said = pinned(session, tool).strip().splitlines()
        # start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, fetch MB/s, fetch records/s
        figures = [each.strip() for each in said[-1].split(",")]
        count = int(figures[4])
        return count, int(figures[7]) / 1000, count >= stored

    return observed(session, broker, work)


def through(name: str, title: str, measure: Any, target: float = 1.0) -> Row:
    targets = (Target("MB_per_s", target),)
    return Row(name, title, "own", metric="MB_per_s", unit="MB/s", targets=targets, measure=measure, seconds_max=8)


ROWS = (
    through("java-produce", "Kafka's ProducerPerformance, defaults", java_produce),
    through("java-consume", "Kafka's ConsumerPerformance, defaults", java_consume),
    *(
        through(f"librdkafka-{codec}", f"confluent-kafka producer, compression {codec}, acks=all", program(CONFLUENT, codec))
        for codec in ("none", "gzip", "snappy", "lz4", "zstd")
    ),
    through("own-client", "fastlog.client Producer.send_batch, defaults", program(OURS)),
)
GROUPS = {"compression": tuple(row.name for row in ROWS if row.name.startswith("librdkafka"))}
