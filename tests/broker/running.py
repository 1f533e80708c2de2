"""A broker on a data plane in memory, and a client that talks to it through the codec."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fastlog.broker.context import Endpoint
from fastlog.broker.options import ServeOptions
from fastlog.broker.plane import ListenAddress
from fastlog.broker.server import Broker
from fastlog.protocol.messages import API_BY_NAME, decode_response, encode_request
from fastlog.protocol.records import Record, build_batch
from tests.broker.fake_plane import FakeDisk, FakePlane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from fastlog.broker.topics import TopicManager

TCP = ListenAddress("tcp", host="127.0.0.1", port=9092)
UNIX = ListenAddress("unix", path="/run/fastlog.sock")


class Running:
    """A broker that serves."""

    def __init__(self, broker: Broker, plane: FakePlane) -> None:
        self.broker = broker
        self.plane = plane

    @property
    def topics(self) -> TopicManager:
        assert self.broker.context is not None
        return self.broker.context.topics

    async def call(self, name: str, version: int | None = None, *, listener: str = "tcp", **message: Any) -> dict[str, Any]:
        """One request in its newest version, or this one; the response."""
        api = API_BY_NAME[name]
        version = api.versions[1] if version is None else version
        body = await self.plane.request(api.key, version, encode_request(api.key, version, message), listener=listener)
        return decode_response(api.key, version, body)

    async def create(self, name: str, partitions: int = 1, configs: Mapping[str, str | None] | None = None) -> dict[str, Any]:
        response = await self.call("CreateTopics", topics=[new_topic(name, partitions, configs)], timeout_ms=1000)
        (topic,) = response["topics"]
        return dict(topic)

    async def append(self, name: str, partition: int, records: int) -> None:
        topic = self.topics.get(name)
        assert topic is not None
        for _ in range(records):
            batch = build_batch([Record(0, 0, None, b"x")], timestamp_ms=0)
            await self.plane.append(topic.topic_id, partition, batch)


def new_topic(name: str, partitions: int = 1, configs: Mapping[str, str | None] | None = None, factor: int = -1) -> dict[str, Any]:
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": factor,
        "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
    }


def options(data: Sequence[Path], **settings: str) -> ServeOptions:
    return ServeOptions(
        data=data,
        listen=[TCP, UNIX],
        advertise={"unix": Endpoint("socket.example", 0)},
        cores=[0],
        memory=64 << 20,
        arena="off",
        settings={name.replace("_", "."): value for name, value in settings.items()},
    )


@contextlib.asynccontextmanager
async def running(*data: Path, disk: FakeDisk | None = None, kill: bool = False, **settings: str) -> AsyncIterator[Running]:
    """A broker on these data directories. `kill`: it is not stopped in order at the end."""
    plane = FakePlane(disk if disk is not None else FakeDisk())
    broker = Broker(options(data, **settings), plane)
    await broker.start()
    try:
        yield Running(broker, plane)
    finally:
        if kill:
            await abandon(broker)
        else:
            await broker.stop()


async def abandon(broker: Broker) -> None:
    """As after a kill: nothing is closed in order, but the locks are given back."""
    await broker._undo.aclose()
