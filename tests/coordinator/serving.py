"""A GroupService over the pretended log, and what its tests share."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Self

from fastlog.coordinator.operation import Client
from fastlog.coordinator.records import NO_TOPIC_ID as NO_ID
from fastlog.coordinator.service import GroupService
from fastlog.coordinator.transactions.service import TransactionService
from tests.coordinator.fakes import FakeClock, FakeLog, FakeTopics, Message, TransactionLog, subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CLIENT = Client(9, "client", "/127.0.0.1")


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a coroutine as a test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Served:
    """A service of three partitions unless told otherwise; time passes by `advance`."""

    def __init__(
        self,
        log: FakeLog | None = None,
        topics: FakeTopics | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        transaction_log: TransactionLog | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.log = log or FakeLog()
        self.topics = topics or FakeTopics(t=4, u=1)
        self.blocks = 0
        self.service = GroupService(
            self.log,
            self.topics,
            {"offsets.topic.num.partitions": 3, "group.initial.rebalance.delay.ms": 0} | dict(values or {}),
            self.clock,
            reserve_block=self.reserve_block,
        )
        self.transaction_log = transaction_log or TransactionLog()
        self.transactions = TransactionService(
            self.transaction_log,
            self.topics,
            {"transaction.state.log.num.partitions": 2} | dict(values or {}),
            self.clock,
            producer_ids=self.service.producer_ids,
            offsets=self.service,
        )
        self.service.verify_with(self.transactions)

    async def reserve_block(self) -> range:
        await asyncio.sleep(0)
        self.blocks += 1
        return range((self.blocks - 1) * 1000, self.blocks * 1000)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transactions.stop()
        await self.service.stop()

    async def start(self) -> None:
        await self.service.start()
        await self.transactions.start()

    async def loaded(self) -> None:
        """Waits until all partitions are."""
        await self.service.ensure_topic()
        await until(lambda: self.service.gauges()["partitions_active"] == len(self.service._runtimes))

    async def advance(self, ms: int) -> None:
        self.clock.at_ms += ms
        self.service.tick()
        self.transactions.tick()
        await turns()

    async def restarted(self) -> Served:
        """Another service on the same log, loaded."""
        other = Served(self.log, self.topics, transaction_log=self.transaction_log)
        await other.start()
        await other.loaded()
        return other

    async def join(self, group_id: str = "g", member_id: str = "", *, client: Client = CLIENT, **changes: Any) -> Message:
        request = {
            "group_id": group_id,
            "member_id": member_id,
            "group_instance_id": None,
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 60_000,
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": subscription("t")}],
            "reason": None,
        } | changes
        return await self.service.join_group(client, request)

    async def beat(self, member_id: str, epoch: int, /, *, version: int = 1, **changes: Any) -> Message:
        """ConsumerGroupHeartbeat to the group "c"."""
        request: Message = {
            "group_id": "c",
            "member_id": member_id,
            "member_epoch": epoch,
            "instance_id": None,
            "rack_id": None,
            "rebalance_timeout_ms": 60_000 if epoch == 0 else -1,
            "subscribed_topic_names": ["t"] if epoch == 0 else None,
            "subscribed_topic_regex": None,
            "server_assignor": None,
            "topic_partitions": [] if epoch == 0 else None,
        }
        return await self.service.consumer_group_heartbeat(Client(version, "client", "/127.0.0.1"), request | changes)

    async def stable(self, group_id: str = "g") -> str:
        """A member, alone in a stable group."""
        member_id: str = (await self.join(group_id))["member_id"]
        joining = asyncio.create_task(self.join(group_id, member_id))
        await turns()
        await self.advance(0)
        joined = await joining
        assert joined["error_code"] == 0, joined
        synced = await self.sync(member_id, joined["generation_id"], {member_id: b"mine"}, group_id)
        assert synced["assignment"] == b"mine"
        return member_id

    async def sync(self, member_id: str, generation: int, assignments: dict[str, bytes], group_id: str = "g") -> Message:
        return await self.service.sync_group(
            {
                "group_id": group_id,
                "generation_id": generation,
                "member_id": member_id,
                "group_instance_id": None,
                "protocol_type": "consumer",
                "protocol_name": "range",
                "assignments": [{"member_id": key, "assignment": value} for key, value in assignments.items()],
            }
        )

    async def commit(self, offset: int, group_id: str = "g", *, topic: str = "t", partition: int = 0, metadata: str = "") -> int:
        response = await self.service.commit_offsets(CLIENT, commit_request(offset, group_id, topic, partition, metadata))
        error: int = response["topics"][0]["partitions"][0]["error_code"]
        return error

    async def fetch(self, group_id: str = "g", *, stable: bool = False) -> dict[tuple[str, int], int]:
        topics = await self.service.fetch_offsets(group_id, None, require_stable=stable)
        return {(topic["name"], each["partition_index"]): each["committed_offset"] for topic in topics for each in topic["partitions"]}


def commit_request(offset: int, group_id: str, topic: str = "t", partition: int = 0, metadata: str = "") -> Message:
    """An administrator's: no generation."""
    at = {"partition_index": partition, "committed_offset": offset, "committed_leader_epoch": -1, "committed_metadata": metadata}
    return {
        "group_id": group_id,
        "generation_id_or_member_epoch": -1,
        "member_id": "",
        "group_instance_id": None,
        "retention_time_ms": -1,
        "topics": [{"name": topic, "topic_id": NO_ID, "partitions": [at]}],
    }


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Lets the event loop do what it can."""
    for _ in range(count):
        await asyncio.sleep(0)
