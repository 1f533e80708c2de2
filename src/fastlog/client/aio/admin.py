"""`Admin` for asyncio: the same calls, awaited."""

import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from fastlog.client import config
from fastlog.client.admin import Admin
from fastlog.client.aio.calls import Calls

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(method: Callable[Concatenate[Admin, P], R]) -> Callable[Concatenate["AsyncAdmin", P], Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def call(self: "AsyncAdmin", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._calls(lambda: method(self._connected(), *args, **kwargs))

    return call


class AsyncAdmin:
    """Looks at and changes topics, settings, offsets, groups, records and transactions. The first call connects. Settings as of `Admin`:

        async with AsyncAdmin("127.0.0.1:9092") as admin:
            await admin.create_topic("orders", 8)
    """

    def __init__(
        self, bootstrap_servers: str | Mapping[str, Any] = "127.0.0.1:9092", *, timeout_s: float | None = None, **settings: Any
    ) -> None:
        config.of_admin(bootstrap_servers, settings)
        self._make = functools.partial(Admin, bootstrap_servers, timeout_s=timeout_s, **settings)
        self._admin: Admin | None = None
        self._lock = threading.Lock()
        self._calls = Calls("fastlog-admin")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _connected(self) -> Admin:
        with self._lock:
            if self._admin is None:
                self._admin = self._make()
            return self._admin

    async def close(self) -> None:
        """Ends its connections."""
        if self._admin is not None:
            await self._calls(self._admin.close)
        self._calls.close()

    cluster = _awaited(Admin.cluster)
    topics = _awaited(Admin.topics)
    topic = _awaited(Admin.topic)
    create_topic = _awaited(Admin.create_topic)
    delete_topic = _awaited(Admin.delete_topic)
    set_partitions = _awaited(Admin.set_partitions)
    topic_settings = _awaited(Admin.topic_settings)
    broker_settings = _awaited(Admin.broker_settings)
    alter_topic_settings = _awaited(Admin.alter_topic_settings)
    start_offsets = _awaited(Admin.start_offsets)
    end_offsets = _awaited(Admin.end_offsets)
    time_offsets = _awaited(Admin.time_offsets)
    counts = _awaited(Admin.counts)
    delete_records = _awaited(Admin.delete_records)
    group_states = _awaited(Admin.group_states)
    groups = _awaited(Admin.groups)
    group = _awaited(Admin.group)
    group_offsets = _awaited(Admin.group_offsets)
    set_group_offsets = _awaited(Admin.set_group_offsets)
    delete_group = _awaited(Admin.delete_group)
    delete_group_offsets = _awaited(Admin.delete_group_offsets)
    transactions = _awaited(Admin.transactions)
    transaction = _awaited(Admin.transaction)
    producers = _awaited(Admin.producers)
    abort_transaction = _awaited(Admin.abort_transaction)
    fence_producers = _awaited(Admin.fence_producers)
