"""A Kafka client: `Producer`, `Consumer`, `Admin`, and for asyncio `AsyncProducer` and so on. Never imports the broker.

Its parts are imported when they are first named, so that importing this package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

from fastlog.client.failures import (
    BufferFullError,
    ClientError,
    ClientTimeoutError,
    ClosedError,
    ConfigError,
    ProtocolError,
    UnknownGroupError,
    UnknownTopicError,
    UnreachableError,
)

if TYPE_CHECKING:
    from fastlog._core import Deliveries, Delivery, Record, RecordBatch, RecordBatches
    from fastlog.client.admin import Admin
    from fastlog.client.aio import AsyncAdmin, AsyncConsumer, AsyncProducer
    from fastlog.client.consumer import Consumer
    from fastlog.client.producer import Producer
    from fastlog.client.records import OffsetAndTimestamp, RecordMetadata, TopicPartition

_PLACES = {
    "Admin": "fastlog.client.admin",
    "AsyncAdmin": "fastlog.client.aio.admin",
    "AsyncConsumer": "fastlog.client.aio.consumer",
    "AsyncProducer": "fastlog.client.aio.producer",
    "Consumer": "fastlog.client.consumer",
    "Producer": "fastlog.client.producer",
    "Deliveries": "fastlog._core",
    "Delivery": "fastlog._core",
    "Record": "fastlog._core",
    "RecordBatch": "fastlog._core",
    "RecordBatches": "fastlog._core",
    "OffsetAndTimestamp": "fastlog.client.records",
    "RecordMetadata": "fastlog.client.records",
    "TopicPartition": "fastlog.client.records",
}

__all__ = [
    "Admin",
    "AsyncAdmin",
    "AsyncConsumer",
    "AsyncProducer",
    "BufferFullError",
    "ClientError",
    "ClientTimeoutError",
    "ClosedError",
    "ConfigError",
    "Consumer",
    "Deliveries",
    "Delivery",
    "OffsetAndTimestamp",
    "Producer",
    "ProtocolError",
    "Record",
    "RecordBatch",
    "RecordBatches",
    "RecordMetadata",
    "TopicPartition",
    "UnknownGroupError",
    "UnknownTopicError",
    "UnreachableError",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = found
    return found
