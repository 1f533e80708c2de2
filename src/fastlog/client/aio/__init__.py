"""The client for asyncio: `AsyncProducer`, `AsyncConsumer`, `AsyncAdmin`; see docs/asyncio.md.

Records never wait for a thread: the compiled core wakes the running loop by an eventfd. What asks a broker something else now and then
(a topic's metadata, commits, all that an admin does) runs in a few threads that a client keeps for it.
"""

from fastlog.client.aio.admin import AsyncAdmin
from fastlog.client.aio.consumer import AsyncConsumer
from fastlog.client.aio.producer import AsyncProducer

__all__ = ["AsyncAdmin", "AsyncConsumer", "AsyncProducer"]
