"""A clock, a log and clients for the coordinator's state machines and runtime, all of them pretended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from fastlog.coordinator.classic import ClassicGroup, State
from fastlog.coordinator.metrics import Metrics
from fastlog.coordinator.operation import Client, Environment, Result
from fastlog.coordinator.records import NO_TOPIC_ID, decode, encode
from fastlog.coordinator.settings import GroupSettings, Settings
from fastlog.coordinator.shard import Shard
from fastlog.coordinator.timers import TimerQueue
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.records import build_end_marker, iter_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fastlog.coordinator.ports import StandingAnswer

Message = dict[str, Any]
EPOCH_MS = 1_700_000_000_000


class FakeClock:
    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        return EPOCH_MS + self.at_ms

    def monotonic_ms(self) -> int:
        return self.at_ms


class FakeStanding:
    """A response that may be given again; `seen_ms`: a test gives it."""

    def __init__(self) -> None:
        self.valid = True
        self.seen_ms = 0

    def revoke(self) -> None:
        self.valid = False


class Waiting:
    """A request that waits for its answer, which may come once."""

    def __init__(self) -> None:
        self.answer: Message | None = None

    def __call__(self, answer: Message) -> None:
        assert self.answer is None, "answered twice"
        self.answer = answer

    def __getitem__(self, name: str) -> Any:
        assert self.answer is not None, "not answered yet"
        return self.answer[name]

    @property
    def error(self) -> Error:
        error: Error = self["error_code"]
        return error


def subscription(*topics: str) -> bytes:
    """ConsumerProtocolSubscription v0."""
    names = b"".join(len(topic).to_bytes(2) + topic.encode() for topic in topics)
    return b"\0\0" + len(topics).to_bytes(4) + names + b"\xff\xff\xff\xff"


class Bench:
    """One shard, whose log takes records at once, or when told to (`hold`), or fails them (`failing`).

    Heartbeats are answered as the data plane does: an answer that stands is given again, every other time; in between the shard is asked,
    and has to say the same.
    """

    def __init__(self, clock: FakeClock | None = None, topics: FakeTopics | None = None, **settings: Any) -> None:
        self.clock = clock or FakeClock()
        self.topics = topics or FakeTopics(t=3, u=3)
        self.metrics = Metrics()
        self.timers = TimerQueue(self.clock.monotonic_ms)
        self.settings = Settings(**settings)
        self.shard = Shard(
            Environment(
                self.settings, self.clock, self.timers, self.metrics, self.topics, GroupSettings(self.settings), self.make_standing
            ),
            self.run,
        )
        self.standings: list[FakeStanding] = []  # all that were made
        self.kept: dict[str, tuple[FakeStanding, Any]] = {}  # by request: its answer
        self.stood = 0  # answers given again

        self.log: list[tuple[bytes, bytes | None]] = []
        self.hold = False
        self.failing = Error.NONE
        self.held: list[Result] = []

    def make_standing(self) -> FakeStanding:
        self.standings.append(FakeStanding())
        return self.standings[-1]

    def run(self, operation: Callable[[], Result]) -> None:
        self.execute(operation())

    def execute(self, result: Result) -> Result:
        if not result.records:
            if result.done is not None:
                result.done(Error.NONE)
            return result
        if result.at_once and result.replay:
            for record in result.records:
                self.shard.replay(record)
        self.shard.offsets.begin(result.records)
        self.held.append(result)
        if not self.hold:
            self.release()
        return result

    def release(self) -> None:
        """Ends the appends that are held, in order; what they bring about is held again, if appends are."""
        held, self.held = self.held, []
        for result in held:
            self.shard.offsets.end(result.records)
            if self.failing is Error.NONE:
                stored = [encode(record) for record in result.records]
                assert result.encoded is None or result.encoded == stored
                self.log += stored
                if result.replay and not result.at_once:
                    self.shard.replay_all(result.records, len(self.log) - len(stored), -1)
            if result.done is not None:
                result.done(self.failing)

    def advance(self, ms: int) -> None:
        """Lets time pass, with every timer at its time."""
        until = self.clock.at_ms + ms
        while (due := self.timers.next_ms()) is not None and due <= until:
            self.clock.at_ms = max(due, self.clock.at_ms)
            self.timers.run_due()
        self.clock.at_ms = until

    def restarted(self, **settings: Any) -> Bench:
        """What a new coordinator makes of the log."""
        bench = Bench(self.clock, self.topics, **settings)
        bench.log = list(self.log)
        for key, value in self.log:
            record = decode(key, value)
            assert record is not None
            bench.shard.replay(record)
        for result in bench.shard.on_loaded():
            bench.execute(result)
        return bench

    def group(self, group_id: str = "g") -> ClassicGroup:
        return self.shard.groups[group_id]

    # -- requests -------------------------------------------------------------------------------------------------------------------

    def join(
        self,
        group_id: str = "g",
        member_id: str = "",
        *,
        version: int = 9,
        instance: str | None = None,
        protocols: Mapping[str, bytes] | None = None,
        session: int = 10_000,
        rebalance: int = 60_000,
        protocol_type: str = "consumer",
        client_id: str = "client",
    ) -> Waiting:
        request = {
            "group_id": group_id,
            "member_id": member_id,
            "group_instance_id": instance,
            "session_timeout_ms": session,
            "rebalance_timeout_ms": rebalance,
            "protocol_type": protocol_type,
            "protocols": [{"name": name, "metadata": metadata} for name, metadata in (protocols or {"range": subscription("t")}).items()],
            "reason": None,
        }
        waiting = Waiting()
        self.execute(self.shard.join(Client(version, client_id, "/127.0.0.1"), request, waiting))
        return waiting

    def join_twice(self, group_id: str = "g", **kwargs: Any) -> tuple[str, Waiting]:
        """A new dynamic member: it gets an id, and joins with it."""
        first = self.join(group_id, **kwargs)
        assert first.error is Error.MEMBER_ID_REQUIRED
        return first["member_id"], self.join(group_id, first["member_id"], **kwargs)

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: Mapping[str, bytes] | None = None,
        *,
        group_id: str = "g",
        instance: str | None = None,
        protocol_type: str | None = "consumer",
        protocol_name: str | None = "range",
    ) -> Waiting:
        request = {
            "group_id": group_id,
            "generation_id": generation,
            "member_id": member_id,
            "group_instance_id": instance,
            "protocol_type": protocol_type,
            "protocol_name": protocol_name,
            "assignments": [{"member_id": key, "assignment": value} for key, value in (assignments or {}).items()],
        }
        waiting = Waiting()
        self.execute(self.shard.sync(request, waiting))
        return waiting

    def heartbeat(self, member_id: str, generation: int, *, group_id: str = "g", instance: str | None = None) -> Error:
        request = {"group_id": group_id, "generation_id": generation, "member_id": member_id, "group_instance_id": instance}

        def ask() -> tuple[Error, StandingAnswer | None]:
            error = self.shard.heartbeat(request)
            return error, self.shard.stand(request) if error is Error.NONE else None

        error: Error = self.stand_or(repr(request), ask)
        return error

    def stand_or(self, key: str, ask: Callable[[], tuple[Any, StandingAnswer | None]]) -> Any:
        """What the data plane answers to a request."""
        standing, stands = self.kept.get(key, (None, None))
        valid = standing is not None and standing.valid
        if standing is not None and valid:
            self.stood += 1
            if self.stood % 2:
                standing.seen_ms = self.clock.monotonic_ms()
                return stands
        answer, given = ask()
        assert not valid or answer == stands, f"{answer}, and not {stands}: an answer to {key} was not revoked"
        if given is not None:
            assert isinstance(given, FakeStanding)
            self.kept[key] = given, answer
        return answer

    def leave(self, *members: str | tuple[str, str | None], group_id: str = "g") -> list[Error]:
        identities = [(member, None) if isinstance(member, str) else member for member in members]
        request = {
            "group_id": group_id,
            "members": [{"member_id": member, "group_instance_id": instance, "reason": None} for member, instance in identities],
        }
        result = self.execute(self.shard.leave(request))
        assert result.response is not None
        return [member["error_code"] for member in result.response["members"]]

    def beat(
        self,
        member_id: str,
        epoch: int,
        *topics: str,
        group_id: str = "c",
        owned: Mapping[str, Iterable[int]] | None = None,
        regex: str | None = None,
        instance: str | None = None,
        assignor: str | None = None,
        rebalance: int = -1,
        version: int = 1,
        client_id: str = "client",
    ) -> Message:
        """ConsumerGroupHeartbeat: its response. `owned`: partitions by topic name. Raises KafkaError."""
        joins = epoch == 0
        request = {
            "group_id": group_id,
            "member_id": member_id,
            "member_epoch": epoch,
            "instance_id": instance,
            "rack_id": None,
            "rebalance_timeout_ms": 60_000 if joins and rebalance == -1 else rebalance,
            "subscribed_topic_names": list(topics) if topics or (joins and regex is None) else None,
            "subscribed_topic_regex": regex,
            "server_assignor": assignor,
            "topic_partitions": [] if joins else None if owned is None else self.owned(owned),
        }
        client = Client(version, client_id, "/127.0.0.1")

        def ask() -> tuple[Message, StandingAnswer | None]:
            result = self.execute(self.shard.heartbeats.heartbeat(client, request))
            assert result.response is not None
            return result.response, result.standing

        response: Message = self.stand_or(repr((client, request)), ask)
        return response

    def owned(self, partitions: Mapping[str, Iterable[int]]) -> list[Message]:
        """TopicPartitions of topics by name."""
        return [{"topic_id": self.topics.topics[name].topic_id, "partitions": list(indexes)} for name, indexes in partitions.items()]

    def assigned(self, response: Message) -> dict[str, list[int]] | None:
        """The assignment in a ConsumerGroupHeartbeat response, by topic name."""
        if response.get("assignment") is None:
            return None
        names = {topic.topic_id: name for name, topic in self.topics.topics.items()}
        return {names[each["topic_id"]]: sorted(each["partitions"]) for each in response["assignment"]["topic_partitions"]}

    def change_topic(self, name: str, partitions: int) -> None:
        """A topic is new or has more partitions; with 0, it is gone."""
        created = name not in self.topics.topics
        if partitions:
            self.topics.put(name, partitions)
        else:
            self.topics.remove(name)
        self.shard.consumers.on_topic_change(name, created=created)

    def commit(
        self,
        offsets: Mapping[tuple[str, int], int],
        member_id: str = "",
        generation: int = -1,
        *,
        group_id: str = "g",
        instance: str | None = None,
        metadata: str | None = "",
        retention: int = -1,
        version: int = 9,
        topic_id: UUID = NO_TOPIC_ID,
    ) -> list[Error]:
        """One error for each partition; raises KafkaError for what concerns all."""
        request = {
            "group_id": group_id,
            "generation_id_or_member_epoch": generation,
            "member_id": member_id,
            "group_instance_id": instance,
            "retention_time_ms": retention,
            "topics": [
                {
                    "name": topic,
                    "topic_id": topic_id,
                    "partitions": [
                        {
                            "partition_index": index,
                            "committed_offset": offset,
                            "committed_leader_epoch": 3,
                            "committed_metadata": metadata,
                        }
                    ],
                }
                for (topic, index), offset in offsets.items()
            ],
        }
        result = self.execute(self.shard.offsets.commit(Client(version, "client", "/127.0.0.1"), request))
        assert result.response is not None
        return [partition["error_code"] for topic in result.response["topics"] for partition in topic["partitions"]]

    def committed(self, group_id: str = "g") -> dict[tuple[str, int], int]:
        found = self.shard.offsets.fetch(group_id, None)
        return {
            (topic["name"], partition["partition_index"]): partition["committed_offset"]
            for topic in found
            for partition in topic["partitions"]
        }

    def stable(self, count: int, group_id: str = "g", **kwargs: Any) -> list[str]:
        """A group with this many dynamic members, stable at generation 1; the first leads. Takes the initial delay."""
        joins = [self.join_twice(group_id, **kwargs) for _ in range(count)]
        self.advance(self.settings.initial_rebalance_delay_ms * (2 if count > 1 else 1))
        ids = [member_id for member_id, _ in joins]
        assert all(waiting.error is Error.NONE for _, waiting in joins)
        self.settle(ids, self.group(group_id).generation, group_id=group_id)
        return ids

    def settle(self, ids: Iterable[str], generation: int, *, group_id: str = "g") -> None:
        """Everybody syncs, the leader with an assignment that names each member."""
        group = self.group(group_id)
        protocol = {"protocol_type": group.protocol_type, "protocol_name": group.protocol}
        waiting = []
        for member_id in ids:
            assignments = {each: each.encode() for each in group.members} if group.is_leader(member_id) else {}
            instance = group.members[member_id].instance_id
            waiting.append(self.sync(member_id, generation, assignments, group_id=group_id, instance=instance, **protocol))
        if not self.hold:
            assert [each.error for each in waiting] == [Error.NONE] * len(waiting)
            assert group.state is State.STABLE


@dataclass
class Outcome:
    error: Error
    base_offset: int = -1
    data: bytes = b""
    log_start: int = 0


@dataclass
class FakePositions:
    log_start: int
    log_end: int
    offline: int = 0
    leader_epoch: int = 3


@dataclass
class FakePartition:
    batches: list[bytes] = field(default_factory=list)
    end: int = 0
    start: int = 0
    offline: int = 0


class FakeLog:
    """The data plane: partitions in memory. `fail`: what the next appends end with; `leak`: a failed append is in the log all the same."""

    def __init__(self) -> None:
        self.partitions: dict[int, FakePartition] = {}
        self.fail = Error.NONE
        self.fail_read = Error.NONE
        self.leak = False
        self.gate: asyncio.Event | None = None  # appends wait for it
        self.read_gate: asyncio.Event | None = None
        self.appends = 0
        self.reads = 0

    def standing(self) -> FakeStanding:
        return FakeStanding()

    def partition(self, index: int) -> FakePartition:
        return self.partitions.setdefault(index, FakePartition())

    async def append(self, topic_id: UUID, partition: int, batch: bytes, acks: int = -1) -> Outcome:
        assert acks == -1
        self.appends += 1
        await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
        at = self.partition(partition)
        if self.fail is not Error.NONE and not self.leak:
            return Outcome(self.fail)
        base = at.end
        (parsed,) = iter_batches(batch)
        at.batches.append(base.to_bytes(8) + batch[8:])
        at.end += parsed.last_offset_delta + 1
        return Outcome(self.fail, base)

    async def write_txn_marker(
        self,
        topic_id: UUID,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
        version: int = 1,
    ) -> Outcome:
        marker = build_end_marker(
            producer_id=producer_id, producer_epoch=producer_epoch, coordinator_epoch=coordinator_epoch, commit=commit, timestamp_ms=0
        )
        return await self.append(topic_id, partition, marker)

    async def read(self, topic_id: UUID, partition: int, offset: int, max_bytes: int, *, to_log_end: bool = False) -> Outcome:
        assert to_log_end
        self.reads += 1
        await (self.read_gate.wait() if self.read_gate is not None else asyncio.sleep(0))
        if self.fail_read is not Error.NONE:
            return Outcome(self.fail_read)
        at = self.partition(partition)
        if not at.start <= offset <= at.end:
            return Outcome(Error.OFFSET_OUT_OF_RANGE, log_start=at.start)
        data = b""
        for raw in at.batches:
            (batch,) = iter_batches(raw)
            if batch.last_offset >= offset and (not data or len(data) + len(raw) <= max_bytes):
                data += raw
        return Outcome(Error.NONE, data=data, log_start=at.start)

    def positions(self, topic_id: UUID, partition: int) -> FakePositions:
        at = self.partition(partition)
        return FakePositions(at.start, at.end, at.offline)


class TransactionLog(FakeLog):
    """`__transaction_state` in memory; markers to all other topics are noted. `fail_markers`: what the next ones end with."""

    def __init__(self) -> None:
        super().__init__()
        self.markers: list[tuple[UUID, int, int, int, bool]] = []
        self.fail_markers = Error.NONE
        self.marker_gate: asyncio.Event | None = None

    async def write_txn_marker(
        self,
        topic_id: UUID,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
        version: int = 1,
    ) -> Outcome:
        await (self.marker_gate.wait() if self.marker_gate is not None else asyncio.sleep(0))
        if self.fail_markers is Error.NONE:
            self.markers.append((topic_id, partition, producer_id, producer_epoch, commit))
        return Outcome(self.fail_markers)


@dataclass(frozen=True)
class FakeTopic:
    name: str
    topic_id: UUID
    partition_count: int


class FakeTopics:
    """The topic manager."""

    def __init__(self, **topics: int) -> None:
        self.topics = {name: FakeTopic(name, uuid4(), count) for name, count in topics.items()}
        self.version = 1
        self.made: list[tuple[str, int, dict[str, str]]] = []
        self.fail = False

    def get(self, name: str) -> FakeTopic | None:
        return self.topics.get(name)

    find = get

    def all(self) -> Iterator[FakeTopic]:
        return iter(list(self.topics.values()))

    def put(self, name: str, partitions: int) -> FakeTopic:
        """A topic is new, or has more partitions."""
        before = self.topics.get(name)
        self.version += 1
        topic = self.topics[name] = FakeTopic(name, uuid4() if before is None else before.topic_id, partitions)
        return topic

    def remove(self, name: str) -> None:
        self.version += 1
        del self.topics[name]

    def by_id(self, topic_id: UUID) -> FakeTopic | None:
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)

    async def ensure_internal_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> FakeTopic:
        await asyncio.sleep(0)
        if self.fail:
            raise KafkaError(Error.KAFKA_STORAGE_ERROR, "no room")
        self.made.append((name, partitions, dict(configs)))
        return self.topics.setdefault(name, FakeTopic(name, uuid4(), partitions))
