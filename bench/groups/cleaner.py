"""The cleaner: how fast a compacted topic becomes clean, and what that does to a producer.

The topic gets keyed records of 100 bytes (random keys, so most records are superseded) while its min.cleanable.dirty.ratio is 1, which is
never exceeded. Then the ratio becomes 0, and what is taken is the time until the broker's own checkpoint (cleaner-offset-checkpoint, the
same file in both) names the topic, and the CPU of its process. What is left is read and compared with what must be left, offset by offset.

Brokers are restarted with one cleaner thread, as much memory for keys, a short rest between looks for work, and for Kafka an I/O buffer of
8 MiB instead of 512 KiB, with which it is faster. The page cache is dropped before (root), so both read from the disk.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.rows import ALL, Row, Target
from fastlog.loadgen.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.brokers import Broker
    from bench.session import Session

RECORD_BYTES = 100
KEY_BYTES = 16
KEYS = 1_000_000
SHARE = 12  # of --bytes-max: 2 GiB by default
WARM_BYTES = 256 << 20
DRAW = 200_000  # records made at once
SEGMENTS = 8
SECONDS_MAX = 1800.0
SETTINGS = {"log.cleaner.threads": "1", "log.cleaner.dedupe.buffer.size": str(256 << 20), "log.cleaner.backoff.ms": "100"}
KAFKA_SETTINGS = {"log.cleaner.io.buffer.size": str(8 << 20)}


@contextmanager
def set_up(broker: Broker) -> Iterator[None]:
    """The broker with the cleaner's settings, and afterwards as it was. Raises StartError."""
    before = broker.options
    if broker.name == "fastlog":
        more = [word for pair in SETTINGS.items() for word in ("--set", "=".join(pair))]
    else:
        more = ["=".join(pair) for pair in {**SETTINGS, **KAFKA_SETTINGS}.items()]
    broker.stop()
    broker.options = [*before, *more]
    broker.start()
    try:
        yield
    finally:
        broker.stop()
        broker.options = before
        broker.start()


def fill(broker: Broker, topic: str, size: int) -> np.ndarray:
    """Makes the topic, sends so many bytes of keys and values, in the same order each time; the number of each record's key."""
    import numpy as np

    from fastlog.client import Admin, Producer

    configs = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "1.0",
        "segment.bytes": str(max(size // SEGMENTS, 16 << 20)),
    }
    random = np.random.default_rng(1)
    keys = random.integers(0, KEYS, size // RECORD_BYTES, dtype=np.int64)
    with Admin(broker.address) as admin, Producer(bootstrap_servers=broker.address, batch_size=65536, linger_ms=5) as producer:
        admin.create_topic(topic, 1, configs)
        for first in range(0, len(keys), DRAW):
            part = keys[first : first + DRAW]
            values = random.integers(1, 256, (len(part), RECORD_BYTES - KEY_BYTES), dtype=np.uint8)
            producer.send_batch(topic, values, np.char.mod(f"%0{KEY_BYTES}d", part).astype(f"S{KEY_BYTES}"), partitions=0)
        producer.flush()
    return keys


def clean_end(broker: Broker, topic: str) -> int:
    """The first dirty offset, as the broker has written it down; -1: not yet."""
    try:
        rows = (broker.directory / "cleaner-offset-checkpoint").read_text().splitlines()[2:]
    except OSError:
        return -1
    ends = [int(row.split()[2]) for row in rows if row.split()[:2] == [topic, "0"]]
    return ends[0] if ends else -1


def stored(broker: Broker, topic: str) -> int:
    """Bytes of all segments but the active one."""
    return sum(path.stat().st_size for path in sorted((broker.directory / f"{topic}-0").glob("*.log"))[:-1])


def let_clean(broker: Broker, topic: str) -> None:
    from fastlog.client import Admin

    with Admin(broker.address) as admin:
        admin.alter_topic_settings(topic, {"min.cleanable.dirty.ratio": "0"})


def await_clean(broker: Broker, topic: str) -> int:
    """Where the compaction ended. Raises StartError when the broker died, TimeoutError."""
    deadline = time.monotonic() + SECONDS_MAX
    while (end := clean_end(broker, topic)) < 0:
        broker.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{broker.name} has not compacted {topic} after {SECONDS_MAX:.0f} s")
        time.sleep(0.005)
    return end


def is_right(broker: Broker, topic: str, keys: np.ndarray, end: int) -> bool:
    """Whether of each key just the newest record below the clean end is left, and all records from there on."""
    import numpy as np

    from fastlog.client import Consumer

    newest = np.full(KEYS, -1, np.int64)
    newest[keys[:end]] = np.arange(end)
    wanted = np.concatenate([np.sort(newest[newest >= 0]), np.arange(end, len(keys))])
    found: list[np.ndarray] = []
    position = 0
    with Consumer(bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        while position < len(keys):
            for batch in consumer.poll_batches(timeout=30):
                found.append(np.array(batch.offsets, np.int64))
                position = batch.next_offset
    return np.array_equal(np.concatenate(found), wanted)


def prepare(session: Session, row: Row, broker: Broker) -> tuple[str, np.ndarray]:
    """A filled topic, on a broker whose cleaner has worked before; nothing in the page cache. Raises OSError, StartError, TimeoutError."""
    size = session.options.bytes_max // SHARE
    session.make_room(3 * size)
    warm, topic = session.new_topic(broker, row), session.new_topic(broker, row)
    fill(broker, warm, min(size, WARM_BYTES))
    let_clean(broker, warm)
    await_clean(broker, warm)
    keys = fill(broker, topic, size)
    machine.wait_for_quiet_disk(session.device)
    machine.drop_page_cache()
    return topic, keys


def compact(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    with set_up(broker):
        topic, keys = prepare(session, row, broker)
        size, cpu, begun = stored(broker, topic), machine.cpu_seconds(broker.pid), time.monotonic()
        let_clean(broker, topic)
        end = await_clean(broker, topic)
        seconds, cpu = time.monotonic() - begun, machine.cpu_seconds(broker.pid) - cpu
        return {
            "seconds": seconds,
            "bytes": size,
            "bytes_left": stored(broker, topic),
            "compacted_MB_per_s": size / seconds / 1e6,
            "compaction_cpu_s": cpu,
            "compaction_cpu_s_per_GB": cpu / size * 1e9,
            "sound": is_right(broker, topic, keys, end),
        }


def beside(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Single records by the clock: before, while and after the cleaner works, at its default rate."""

    def produce(name: str, seconds: float) -> dict[str, Any]:
        machine.wait_for_quiet_disk(session.device)
        return session.generate(Job(address=broker.address, topic=name, seconds=seconds, settle_seconds=0.5, **row.job))

    with set_up(broker):
        topic, _ = prepare(session, row, broker)
        name = session.new_topic(broker, row)
        produce(name, 2.0)
        before = produce(name, row.seconds_max)
        with session.beside(Job(address=broker.address, topic=name, seconds=row.seconds_max, settle_seconds=1.0, **row.job)) as meanwhile:
            let_clean(broker, topic)
        sound = clean_end(broker, topic) < 0  # it was at work all the time
        begun = time.monotonic()
        await_clean(broker, topic)
        left = time.monotonic() - begun
        after = produce(name, row.seconds_max)
    results = before, meanwhile.result, after
    p50s, p99s = ([result["ack"][point] for result in results] for point in ("p50_us", "p99_us"))
    return {
        "alone_p50_us": (p50s[0] + p50s[2]) / 2,
        "alone_p99_us": (p99s[0] + p99s[2]) / 2,
        "beside_p50_us": p50s[1],
        "beside_p99_us": p99s[1],
        "p99_growth": 2 * p99s[1] / (p99s[0] + p99s[2]),
        "cleaner_s_left": left,
        "sound": sound and all(result["sound"] for result in results),
    }


ROWS = (
    Row(
        "compact",
        "compaction of keyed records of 100 bytes, a million keys",
        "own",
        metric="compacted_MB_per_s",
        unit="MB/s",
        targets=(Target("compacted_MB_per_s", 1.0), Target("compaction_cpu_s_per_GB", 1.0, at_least=False)),
        measure=compact,
        restarts=True,
    ),
    Row(
        "compact-beside",
        "a producer's p99 while the cleaner works / without it, 1,000 records of 1 KiB a second, acks=all",
        "own",
        job={"acks": ALL, "rate": 1000, "window": 1024, "records": 1, "record_bytes": 1024, "spin": True},
        metric="p99_growth",
        unit="x",
        targets=(Target("p99_growth", 4 / 3, at_least=False, absolute=True),),
        measure=beside,
        restarts=True,
        less_is_better=True,
        seconds_max=4,
    ),
)
