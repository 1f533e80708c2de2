"""The rows: who does what how often, beside whom, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["produce", "consume", "import"]


@dataclass(frozen=True)
class Contender:
    """`call`: MODULE:FUNCTION of a Task (for imports: the module to be imported). `records`: so many that it takes a second or so."""

    name: str
    call: str
    records: int = 0
    target: float = 0  # of fastlog's: how many times the row's first contender; of an import: milliseconds at most


@dataclass(frozen=True)
class Row:
    """The first contender is the one that the others are compared with."""

    name: str
    title: str
    kind: Kind
    contenders: tuple[Contender, ...]


OURS, OTHERS = "bench.clients.ours", "bench.clients.others"
M = 1_000_000

ROWS = (
    Row(
        "batch",
        "produce many records a call",
        "produce",
        (
            Contender("confluent-kafka produce_batch", f"{OTHERS}:confluent_batch", M),
            Contender("fastlog send_batch, list of bytes", f"{OURS}:send_list", 4 * M, 3),
            Contender("fastlog send_batch, buffer and offsets", f"{OURS}:send_buffer", 8 * M, 10),
            Contender("fastlog send_batch, NumPy", f"{OURS}:send_numpy", 8 * M, 10),
            Contender("fastlog send_batch, Arrow", f"{OURS}:send_arrow", 8 * M, 10),
        ),
    ),
    Row(
        "single",
        "produce one record a call",
        "produce",
        (
            Contender("confluent-kafka produce", f"{OTHERS}:confluent_produce", M),
            Contender("fastlog send", f"{OURS}:send", 2 * M, 1.5),
            Contender("kafka-python send", f"{OTHERS}:kafka_python_send", 100_000),
        ),
    ),
    Row(
        "columns",
        "consume many records a call",
        "consume",
        (
            Contender("confluent-kafka consume(5000)", f"{OTHERS}:confluent_consume", 2 * M),
            Contender("fastlog poll_batches", f"{OURS}:read_columns", 8 * M, 5),
        ),
    ),
    Row(
        "records",
        "consume one record after the other",
        "consume",
        (
            Contender("confluent-kafka poll", f"{OTHERS}:confluent_poll", M),
            Contender("fastlog, iterating", f"{OURS}:read_each", 4 * M, 1.5),
            Contender("kafka-python, iterating", f"{OTHERS}:kafka_python_read", 200_000),
        ),
    ),
    Row(
        "aio-produce",
        "asyncio: produce",
        "produce",
        (
            Contender("aiokafka send", f"{OTHERS}:aiokafka_send", 100_000),
            Contender("aiokafka send_batch", f"{OTHERS}:aiokafka_batch", 400_000),
            Contender("fastlog AsyncProducer.send", f"{OURS}:aio_send", M, 5),
            Contender("fastlog AsyncProducer.send_batch, list of bytes", f"{OURS}:aio_send_list", 4 * M, 5),
        ),
    ),
    Row(
        "aio-consume",
        "asyncio: consume",
        "consume",
        (
            Contender("aiokafka getmany", f"{OTHERS}:aiokafka_read", 200_000),
            Contender("fastlog AsyncConsumer.poll(5000)", f"{OURS}:aio_read_polls", 2 * M, 5),
            Contender("fastlog AsyncConsumer, iterating", f"{OURS}:aio_read_each", 2 * M, 5),
            Contender("fastlog AsyncConsumer.poll_batches", f"{OURS}:aio_read_columns", 8 * M, 5),
        ),
    ),
    Row(
        "import",
        "import",
        "import",
        (
            Contender("confluent_kafka", "confluent_kafka"),
            Contender("fastlog.client", "fastlog.client", target=50),
            Contender("fastlog.client: Producer", "fastlog.client:Producer", target=50),
            Contender("fastlog.client: Producer, Consumer, Admin", "fastlog.client:Producer,Consumer,Admin", target=50),
            Contender("kafka", "kafka"),
            Contender("aiokafka", "aiokafka"),
        ),
    ),
)


def choose(names: str | None) -> list[Row]:
    """Raises ValueError for a name that no row has."""
    if names is None:
        return list(ROWS)
    wanted = names.split(",")
    unknown = set(wanted) - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f"--only: no row {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if row.name in wanted]
