"""What the control plane does: heartbeats, offset commits, transactions, metadata, fetch sessions, a group that starts."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from bench import machine
from bench.asking import RETRIED, Asked, Asker, ask_all, askers, decoded, drive, frame
from bench.rows import Row, Target
from fastlog.loadgen import wire
from fastlog.protocol.records import TRANSACTIONAL, Record, build_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.brokers import Broker
    from bench.session import Session

Message = dict[str, Any]
LEAD_SECONDS = 2.0
HEARTBEATS_PER_S = 4_000.0
MEMBER_ID_REQUIRED, CONCURRENT_TRANSACTIONS = 79, 51


# ---- what the rows share ----


def topic_of(session: Session, row: Row, broker: Broker, partitions: int, configs: dict[str, str] | None = None) -> wire.Topic:
    name = session.new_topic(broker, row)
    with wire.Connection("127.0.0.1", broker.port) as control:
        control.create_topic(name, partitions, {**(configs or {}), **(broker.durable_configs if row.stable else {})})
        return control.wait_for_topic(name)


def kept_topic(broker: Broker, name: str, partitions: int) -> wire.Topic:
    """One that is made once for all rows and runs: next to nothing is in it."""
    with wire.Connection("127.0.0.1", broker.port) as control:
        control.create_topic(name, partitions, {})
        return control.wait_for_topic(name)


def make_durable(row: Row, broker: Broker, asker: Asker, topic: str) -> None:
    """An internal topic whose coordinator answers from stable storage only, where the broker does not do that anyway."""
    if row.stable and broker.durable_configs:
        configs = [{"name": name, "config_operation": 0, "value": value} for name, value in broker.durable_configs.items()]
        asked = {"resources": [{"resource_type": 2, "resource_name": topic, "configs": configs}], "validate_only": False}
        asker.insist("IncrementalAlterConfigs", 1, asked, lambda answer: answer["responses"][0]["error_code"])


def find_coordinators(asker: Asker, keys: Sequence[str], key_type: int) -> None:
    """Kafka makes a coordinator's topic when it is first asked for one. `key_type`: 0 of a group, 1 of a transactional id."""
    for key in keys:
        asker.insist(
            "FindCoordinator", 4, {"key_type": key_type, "coordinator_keys": [key]}, lambda answer: answer["coordinators"][0]["error_code"]
        )


def group_ready(asker: Asker, groups: Sequence[str]) -> None:
    find_coordinators(asker, groups, 0)


def observed(session: Session, broker: Broker, load: Callable[[float], Asked]) -> dict[str, Any]:
    """Runs a load, a while before it counts too; what it came to, and the broker's CPU."""
    load(2 * session.options.lead_seconds or LEAD_SECONDS)  # no other row warms what this one asks for
    machine.wait_for_quiet_disk(session.device)
    before = machine.usage(broker.pid, session.options.broker_core, session.device)
    asked = load(min(session.options.seconds, 15.0))
    used = machine.usage(broker.pid, session.options.broker_core, session.device) - before
    return {**asked.figures(used.cpu), "cpu_s": round(used.cpu, 3)}


def constant(asking: list[Asker], api: str, version: int, frames: list[bytes], good: Callable[[Message], bool]) -> list[bytes]:
    """Asks once; the answers, which are good, and the same every time."""
    answers = []
    for asker, request in zip(asking, frames, strict=True):
        asker.socket.sendall(request)
        answer = asker.take()
        if not good(decoded(api, version, answer)):
            raise ValueError(f"{api}: {decoded(api, version, answer)}")
        answers.append(answer)
    return answers


# ---- heartbeats ----


def each_asks(asking: list[Asker], api: str, version: int, requests: list[Message], allowed: tuple[int, ...] = ()) -> list[Message]:
    """All at once. Raises BrokerError."""
    for asker, request in zip(asking, requests, strict=True):
        asker.socket.sendall(frame(api, version, request))
    answers = [decoded(api, version, asker.take()) for asker in asking]
    for answer in answers:
        if answer["error_code"] and answer["error_code"] not in allowed:
            raise wire.BrokerError(api, answer["error_code"])
    return answers


def classic_members(asking: list[Asker], groups: list[str]) -> list[bytes]:
    """One in each group; their heartbeats."""
    joins: list[Message] = [
        {
            "group_id": group,
            "session_timeout_ms": 300_000,
            "rebalance_timeout_ms": 300_000,
            "member_id": "",
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": b"\0\0\0\0\0\0\xff\xff\xff\xff"}],
        }
        for group in groups
    ]
    named = each_asks(asking, "JoinGroup", 9, joins, (MEMBER_ID_REQUIRED,))
    joins = [join | {"member_id": answer["member_id"]} for join, answer in zip(joins, named, strict=True)]
    members = [
        {"group_id": join["group_id"], "generation_id": answer["generation_id"], "member_id": answer["member_id"]}
        for join, answer in zip(joins, each_asks(asking, "JoinGroup", 9, joins), strict=True)
    ]
    given: Message = {"protocol_type": "consumer", "protocol_name": "range"}
    each_asks(
        asking,
        "SyncGroup",
        5,
        [at | given | {"assignments": [{"member_id": at["member_id"], "assignment": b""}]} for at in members],
    )
    return [frame("Heartbeat", 4, at) for at in members]


def consumer_members(asking: list[Asker], groups: list[str], topic: str) -> list[bytes]:
    """One in each group, which has come to rest; their heartbeats."""
    members: list[Message] = [{"group_id": group, "member_id": f"member-of-{group}", "member_epoch": 0} for group in groups]
    join = {"rebalance_timeout_ms": 300_000, "subscribed_topic_names": [topic], "topic_partitions": []}
    answers = each_asks(asking, "ConsumerGroupHeartbeat", 1, [at | join for at in members])
    for _ in range(3):
        reports = []
        for at, answer in zip(members, answers, strict=True):
            at["member_epoch"] = answer["member_epoch"]
            reports.append(at | ({"topic_partitions": answer["assignment"]["topic_partitions"]} if answer["assignment"] else {}))
        answers = each_asks(asking, "ConsumerGroupHeartbeat", 1, reports)
    return [frame("ConsumerGroupHeartbeat", 1, at) for at in members]


def heartbeats(kind: str, session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """By the clock, evenly: what each costs with the waking up that goes with it."""
    count: int = row.job["members"]
    topic = topic_of(session, row, broker, 1)
    groups = [f"{topic.name}-{i}" for i in range(count)]
    with askers(broker, count) as asking:
        group_ready(asking[0], groups)
        frames = classic_members(asking, groups) if kind == "Heartbeat" else consumer_members(asking, groups, topic.name)
        answers = constant(asking, kind, 4 if kind == "Heartbeat" else 1, frames, lambda answer: not answer["error_code"])
        return observed(session, broker, lambda seconds: ask_all(asking, frames, answers, seconds, HEARTBEATS_PER_S))


# ---- offsets ----


def offset_commits(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Groups that commit ten partitions at a time, each as soon as its last commit was acknowledged."""
    topic = topic_of(session, row, broker, 10)
    groups = [f"{topic.name}-{i}" for i in range(row.job["groups"])]
    with askers(broker, len(groups)) as asking:
        group_ready(asking[0], groups[:1])
        make_durable(row, broker, asking[0], "__consumer_offsets")
        partitions = [{"partition_index": i, "committed_offset": 1_000_000 + i, "committed_metadata": ""} for i in range(10)]
        requests = [
            {"group_id": group, "generation_id_or_member_epoch": -1, "topics": [{"name": topic.name, "partitions": partitions}]}
            for group in groups
        ]
        for asker, request in zip(asking, requests, strict=True):
            asker.insist("OffsetCommit", 9, request, lambda answer: answer["topics"][0]["partitions"][0]["error_code"])
        frames = [frame("OffsetCommit", 9, request) for request in requests]
        answers = constant(
            asking, "OffsetCommit", 9, frames, lambda answer: not any(each["error_code"] for each in answer["topics"][0]["partitions"])
        )
        return observed(session, broker, lambda seconds: ask_all(asking, frames, answers, seconds))


# ---- metadata and fetch sessions ----


def metadata(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    topic = topic_of(session, row, broker, row.job["partitions"])
    with askers(broker, 2) as asking:
        request = {"topics": [{"topic_id": UUID(int=0), "name": topic.name}], "allow_auto_topic_creation": False}
        frames = [frame("Metadata", 12, request)] * 2
        answers = constant(asking, "Metadata", 12, frames, lambda answer: len(answer["topics"][0]["partitions"]) == topic.partitions)
        return observed(session, broker, lambda seconds: ask_all(asking, frames, answers, seconds))


def fetch_session(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """An incremental session (KIP-227) of very many partitions, asked again and again: nothing is new, or (`new`) so many partitions have
    got a record since; those are then produced in between, one request, which is in the figures of both."""
    new: int = row.job["new"]
    topics = [kept_topic(broker, f"session-{i}", 100) for i in range(row.job["partitions"] // 100)]
    parts = [{"partition": i, "fetch_offset": 0, "partition_max_bytes": 1 << 20} for i in range(100)]
    listed = [{"topic_id": UUID(bytes=topic.id), "partitions": parts} for topic in topics]
    first: Message = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 50 << 20, "session_id": 0, "session_epoch": 0, "topics": listed}
    batch = build_batch([Record(0, -1, None, b"x" * 100)], timestamp_ms=int(time.time() * 1000))
    with wire.Connection("127.0.0.1", broker.port) as control:
        ends = control.offsets(topics[0].name, range(100), -1)
    listed[0] = listed[0] | {"partitions": [part | {"fetch_offset": end} for part, end in zip(parts, ends, strict=True)]}
    with askers(broker, 1) as (asker,):
        session_id = asker.insist("Fetch", 16, first)["session_id"]
        epoch = 1
        offsets = dict(enumerate(ends[:new]))

        def turn() -> tuple[int, bool]:
            """Asks once; how many partitions came, and whether that is right."""
            nonlocal epoch
            moved: list[Message] = []
            if new:
                data = [{"index": i, "records": batch} for i in offsets]
                sent = {"acks": 1, "timeout_ms": 30_000, "topic_data": [{"name": topics[0].name, "partition_data": data}]}
                asker.insist("Produce", 11, sent, lambda answer: answer["responses"][0]["partition_responses"][0]["error_code"])
                read = [{"partition": i, "fetch_offset": at, "partition_max_bytes": 1 << 20} for i, at in offsets.items()]
                moved = [{"topic_id": UUID(bytes=topics[0].id), "partitions": read}]
            again = first | {"session_id": session_id, "session_epoch": epoch, "topics": moved}
            answer = asker.insist("Fetch", 16, again)
            epoch += 1
            came = [each["partition_index"] for topic in answer["responses"] for each in topic["partitions"] if each["records"]]
            for index in came:
                offsets[index] += 1
            return len(came), len(came) == new

        def load(seconds: float) -> Asked:
            latencies: list[float] = []
            wrong = 0
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                at = time.perf_counter()
                wrong += not turn()[1]
                latencies.append(time.perf_counter() - at)
            return Asked(len(latencies), time.perf_counter() - began, wrong, latencies)

        return observed(session, broker, load)


# ---- transactions ----


class Producer:
    """Transactions one after the other (KIP-890): batches to one partition, one under way, and an end when it is time for it."""

    def __init__(self, asker: Asker, topic: wire.Topic, partition: int, records: int, commit_s: float) -> None:
        """`commit_s`: length of a transaction; 0: a batch each."""
        self.topic = topic
        self.partition = partition
        self.commit_s = commit_s
        self.id = f"{topic.name}-{partition}"
        self.records = [Record(i, -1, None, bytes(1024)) for i in range(records)]
        given = {"transactional_id": self.id, "transaction_timeout_ms": 60_000}
        made = asker.insist("InitProducerId", 5, given)
        self.producer_id, self.epoch = made["producer_id"], made["producer_epoch"]
        self.sequence = 0
        self.began = 0.0
        self.sent = b""
        self.ending = False
        self.batches = self.transactions = self.wrong = 0
        self.durations: list[float] = []

    def step(self, answer: bytes | None) -> bytes:
        if answer is not None and not self._take(answer):
            return self.sent  # once more
        ends = self.sequence and not self.ending and time.perf_counter() - self.began >= self.commit_s
        self.sent = self._end() if ends else self._produce()
        self.ending = bool(ends)
        return self.sent

    def _produce(self) -> bytes:
        if not self.sequence:
            self.began = time.perf_counter()
        batch = build_batch(
            self.records,
            timestamp_ms=int(time.time() * 1000),
            attributes=TRANSACTIONAL,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=self.sequence,
        )
        data = [{"name": self.topic.name, "partition_data": [{"index": self.partition, "records": batch}]}]
        return frame("Produce", 12, {"transactional_id": self.id, "acks": -1, "timeout_ms": 30_000, "topic_data": data})

    def _end(self) -> bytes:
        at = {"transactional_id": self.id, "producer_id": self.producer_id, "producer_epoch": self.epoch, "committed": True}
        return frame("EndTxn", 5, at)

    def _take(self, answer: bytes) -> bool:
        if self.ending:
            ended = decoded("EndTxn", 5, answer)
            code = ended["error_code"]
        else:
            code = decoded("Produce", 12, answer)["responses"][0]["partition_responses"][0]["error_code"]
        if code:
            self.wrong += code not in {*RETRIED, CONCURRENT_TRANSACTIONS}
            return False
        if self.ending:
            self.ending = False
            self.producer_id, self.epoch, self.sequence = ended["producer_id"], ended["producer_epoch"], 0
            self.transactions += 1
            self.durations.append(time.perf_counter() - self.began)
        else:
            self.sequence += len(self.records)
            self.batches += 1
        return True


def transactions(session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Producers each to a partition of their own; every acknowledgement and every end from stable storage."""
    count: int = row.job["producers"]
    topic = topic_of(session, row, broker, count)
    with askers(broker, count) as asking:
        find_coordinators(asking[0], [topic.name], 1)
        asking[0].insist("InitProducerId", 5, {"transactional_id": topic.name, "transaction_timeout_ms": 60_000})
        make_durable(row, broker, asking[0], "__transaction_state")

        def load(seconds: float) -> tuple[Asked, int]:
            producers = [Producer(asker, topic, i, row.job["records"], row.job["commit_s"]) for i, asker in enumerate(asking)]
            took = drive(asking, [producer.step for producer in producers], seconds)
            for asker, producer in zip(asking, producers, strict=True):
                if producer.sequence or producer.ending:  # what the end of time has cut off
                    asker.insist("InitProducerId", 5, {"transactional_id": producer.id, "transaction_timeout_ms": 60_000}, ended)
            durations = [each for producer in producers for each in producer.durations]
            batches = sum(producer.batches for producer in producers)
            return Asked(len(durations), took, sum(producer.wrong for producer in producers), durations), batches

        load(2 * session.options.lead_seconds or LEAD_SECONDS)
        machine.wait_for_quiet_disk(session.device)
        before = machine.usage(broker.pid, session.options.broker_core, session.device)
        asked, batches = load(min(session.options.seconds, 15.0))
        used = machine.usage(broker.pid, session.options.broker_core, session.device) - before
    records = batches * row.job["records"] / asked.seconds
    return {**asked.figures(used.cpu), "cpu_s": round(used.cpu, 3), "records_per_s": round(records, 1)}


def ended(answer: Message) -> int:
    """The error code of an InitProducerId that ends another transaction: that it is under way is a reason to ask again."""
    code: int = answer["error_code"]
    return next(iter(RETRIED)) if code == CONCURRENT_TRANSACTIONS else code


ROWS = (
    *(
        Row(
            name,
            f"heartbeats of 1,000 members, {title}",
            "own",
            {"members": 1_000},
            metric="cpu_us_per_request",
            unit="us CPU each",
            targets=(Target("cpu_us_per_request", 15, at_least=False, absolute=True), Target("cpu_us_per_request", 1 / 2, at_least=False)),
            measure=partial(heartbeats, kind),
            less_is_better=True,
        )
        for name, title, kind in (
            ("heartbeat-classic", "classic protocol", "Heartbeat"),
            ("heartbeat-consumer", "consumer protocol", "ConsumerGroupHeartbeat"),
        )
    ),
    *(
        Row(
            name,
            title,
            "own",
            {"groups": 64},
            stable,
            metric="requests_per_s",
            unit="commits/s",
            targets=(Target("requests_per_s", 3),),
            measure=offset_commits,
        )
        for name, title, stable in (
            ("commits", "offset commits of 64 groups, 10 partitions each", False),
            ("commits-stable", "offset commits of 64 groups, 10 partitions each, stable storage before the ack", True),
        )
    ),
    *(
        Row(
            name,
            title,
            "own",
            {"producers": 16, "records": records, "commit_s": commit_s},
            stable=True,
            metric=metric,
            unit=metric.replace("_per_", "/").replace("requests", "transactions"),
            targets=(Target(metric, 3),),
            measure=transactions,
        )
        for name, title, records, commit_s, metric in (
            ("txn-10", "16 producers, transactions of 10 records of 1 KiB, stable storage", 10, 0, "requests_per_s"),
            ("txn-100ms", "16 producers, batches of 16 records of 1 KiB, a commit every 100 ms, stable storage", 16, 0.1, "records_per_s"),
        )
    ),
    Row(
        "metadata-1000",
        "Metadata of a topic of 1,000 partitions",
        "own",
        {"partitions": 1_000},
        metric="cpu_us_per_request",
        unit="us CPU each",
        targets=(Target("cpu_us_per_request", 1 / 3, at_least=False),),
        measure=metadata,
        less_is_better=True,
    ),
    *(
        Row(
            name,
            title,
            "own",
            {"partitions": 5_000, "new": new},
            metric="cpu_us_per_request",
            unit="us CPU each",
            targets=(Target("cpu_us_per_request", 1 / 3, at_least=False),),
            measure=fetch_session,
            less_is_better=True,
        )
        for name, title, new in (
            ("session-5000", "a fetch session of 5,000 partitions, nothing new", 0),
            ("session-5000-few", "a fetch session of 5,000 partitions, 10 of them produced to in between", 10),
        )
    ),
)
