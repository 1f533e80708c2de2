"""A group that starts: a hundred consumers at once, until each of them has a record. The clients are as thin as the protocols allow."""

from __future__ import annotations

import heapq
import select
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from bench import machine
from bench.asking import RETRIED, Asker, askers, decoded, frame
from bench.groups.control import MEMBER_ID_REQUIRED, group_ready, topic_of
from bench.rows import Row, Target
from fastlog.loadgen import wire
from fastlog.protocol.records import Record, build_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.brokers import Broker
    from bench.session import Session

Message = dict[str, Any]
HEARTBEAT_S = 0.02  # of classic members, whose clients choose it: as short as makes the broker what is measured
RETRY_S = 0.02
ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS = 22, 27
ROUNDS = 3  # at least
TIMEOUT_S = 60.0


class Member:
    """One request of it is under way, or it waits until `due` (0: it does not)."""

    def __init__(self, asker: Asker, group: str, topic: wire.Topic) -> None:
        self.asker = asker
        self.group = group
        self.topic = topic
        self.member_id = ""
        self.epoch = 0
        self.partitions: list[int] = []
        self.fetched = False
        self.due = 0.0
        self.asked = ("", 0)

    def ask(self, api: str, version: int, message: Message) -> None:
        self.asked = api, version
        self.asker.socket.sendall(frame(api, version, message))

    def start(self) -> None:
        self.ask("FindCoordinator", 4, {"key_type": 0, "coordinator_keys": [self.group]})

    def take(self) -> None:
        """An answer is there."""
        api, version = self.asked
        answer = decoded(api, version, self.asker.take())
        if api == "FindCoordinator":
            self.join()
        elif api == "Fetch":
            code = answer["error_code"] or answer["responses"][0]["partitions"][0]["error_code"]
            if code:
                raise wire.BrokerError(api, code)
            self.fetched = bool(answer["responses"][0]["partitions"][0]["records"])
            self.settle()
        elif answer["error_code"] in RETRIED:
            self.due = time.perf_counter() + RETRY_S
        else:
            self.answered(api, answer)

    def settle(self) -> None:
        """It has what the group gave it: it reads, then it lives on."""
        if self.partitions and not self.fetched:
            parts = [{"partition": self.partitions[0], "fetch_offset": 0, "partition_max_bytes": 1 << 20}]
            listed = [{"topic_id": UUID(bytes=self.topic.id), "partitions": parts}]
            sizes = {"max_wait_ms": 500, "min_bytes": 1, "max_bytes": 1 << 20}
            self.ask("Fetch", 16, {**sizes, "session_id": 0, "session_epoch": -1, "topics": listed})
        else:
            self.rest()

    def join(self) -> None:
        raise NotImplementedError

    def answered(self, api: str, answer: Message) -> None:
        raise NotImplementedError

    def rest(self) -> None:
        """Sets when it is heard of next."""
        raise NotImplementedError

    def beat(self) -> None:
        """That time has come."""
        raise NotImplementedError


class ClassicMember(Member):
    def join(self) -> None:
        self.ask(
            "JoinGroup",
            9,
            {
                "group_id": self.group,
                "session_timeout_ms": 45_000,
                "rebalance_timeout_ms": 60_000,
                "member_id": self.member_id,
                "protocol_type": "consumer",
                "protocols": [{"name": "range", "metadata": b"\0\0\0\0\0\0\xff\xff\xff\xff"}],
            },
        )

    def answered(self, api: str, answer: Message) -> None:
        code = answer["error_code"]
        if code == MEMBER_ID_REQUIRED:
            self.member_id = answer["member_id"]
            self.join()
        elif code in {ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS}:
            self.join()
        elif code:
            raise wire.BrokerError(api, code)
        elif api == "JoinGroup":
            self.epoch = answer["generation_id"]
            names = [member["member_id"] for member in answer["members"]]
            given = [
                {"member_id": name, "assignment": b"".join(part.to_bytes(4) for part in range(at, self.topic.partitions, len(names)))}
                for at, name in enumerate(names)
            ]
            at = {"group_id": self.group, "generation_id": self.epoch, "member_id": self.member_id}
            self.ask("SyncGroup", 5, at | {"protocol_type": "consumer", "protocol_name": "range", "assignments": given})
        elif api == "SyncGroup":
            given = answer["assignment"]
            self.partitions = [int.from_bytes(given[at : at + 4]) for at in range(0, len(given), 4)]
            self.settle()
        else:
            self.rest()

    def rest(self) -> None:
        self.due = time.perf_counter() + HEARTBEAT_S

    def beat(self) -> None:
        if self.epoch:
            self.ask("Heartbeat", 4, {"group_id": self.group, "generation_id": self.epoch, "member_id": self.member_id})
        else:
            self.join()


class ConsumerMember(Member):
    """Heard of as often as the broker says, and at once when it has something to say."""

    interval_s = RETRY_S

    def join(self) -> None:
        self.member_id = f"member-{self.asker.socket.fileno()}-of-{self.group}"
        join = {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": [self.topic.name], "topic_partitions": []}
        self.ask("ConsumerGroupHeartbeat", 1, self.at | join)

    @property
    def at(self) -> Message:
        return {"group_id": self.group, "member_id": self.member_id, "member_epoch": self.epoch}

    def answered(self, api: str, answer: Message) -> None:
        if answer["error_code"]:
            raise wire.BrokerError(api, answer["error_code"])
        self.epoch = answer["member_epoch"]
        self.interval_s = answer["heartbeat_interval_ms"] / 1000
        if answer["assignment"] is None:
            self.settle()
            return
        given = answer["assignment"]["topic_partitions"]
        self.partitions = [part for topic in given for part in topic["partitions"]]
        self.ask("ConsumerGroupHeartbeat", 1, self.at | {"topic_partitions": given})

    def rest(self) -> None:
        self.due = time.perf_counter() + self.interval_s

    def beat(self) -> None:
        if self.epoch:
            self.ask("ConsumerGroupHeartbeat", 1, self.at)
        else:
            self.join()


def run(members: Sequence[Member]) -> float:
    """Seconds until each has a record. Raises BrokerError, TimeoutError."""
    poll = select.epoll()
    by_fd = {member.asker.socket.fileno(): member for member in members}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    waiting: list[tuple[float, int]] = []
    began = time.perf_counter()
    for member in members:
        member.start()
    while not all(member.fetched for member in members):
        now = time.perf_counter()
        if now - began > TIMEOUT_S:
            raise TimeoutError(f"{sum(not member.fetched for member in members)} members got no record")
        while waiting and waiting[0][0] <= now:
            member = by_fd[heapq.heappop(waiting)[1]]
            member.due = 0.0
            member.beat()
        for fd, _ in poll.poll(max(waiting[0][0] - now, 0) if waiting else 1):
            member = by_fd[fd]
            member.take()
            if member.due:
                heapq.heappush(waiting, (member.due, fd))
    took = time.perf_counter() - began
    poll.close()
    for member in members:  # what is still under way
        if not member.due:
            member.asker.take()
    return took


def leave(kind: type[Member], members: Sequence[Member]) -> None:
    """So that no session ends while something else is measured."""
    if kind is ClassicMember:
        gone = [{"member_id": member.member_id} for member in members]
        members[0].asker.ask("LeaveGroup", 4, {"group_id": members[0].group, "members": gone})
        return
    for member in members:
        member.asker.ask("ConsumerGroupHeartbeat", 1, {"group_id": member.group, "member_id": member.member_id, "member_epoch": -1})


def start(kind: type[Member], session: Session, row: Row, broker: Broker) -> dict[str, Any]:
    """Group after group, each new; the median of all but the first, which warms."""
    count: int = row.job["members"]
    topic = topic_of(session, row, broker, count)
    batch = build_batch([Record(0, -1, None, b"x" * 100)], timestamp_ms=int(time.time() * 1000))
    data = [{"index": index, "records": batch} for index in range(count)]
    times: list[float] = []
    before = machine.usage(broker.pid, session.options.broker_core, session.device)
    with askers(broker, count) as asking:
        sent = {"acks": -1, "timeout_ms": 30_000, "topic_data": [{"name": topic.name, "partition_data": data}]}
        asking[0].insist(
            "Produce", 11, sent, lambda answer: max(each["error_code"] for each in answer["responses"][0]["partition_responses"])
        )
        until = time.perf_counter() + session.seconds(row)
        while len(times) < ROUNDS + 1 or time.perf_counter() < until:
            group = f"{topic.name}-{len(times)}"
            group_ready(asking[0], [group])
            members = [kind(asker, group, topic) for asker in asking]
            times.append(run(members))
            leave(kind, members)
        used = machine.usage(broker.pid, session.options.broker_core, session.device) - before
    measured = times[1:]
    return {
        "started_s": round(statistics.median(measured), 4),
        "first_s": round(times[0], 4),
        "worst_s": round(max(measured), 4),
        "groups": len(times),
        "cpu_s": round(used.cpu, 3),
        "cpu_ms_per_group": round(used.cpu / len(times) * 1000, 2),
        "sound": True,
    }


ROWS = tuple(
    Row(
        name,
        f"a group of 100 consumers, {title}, from the first request until each has a record",
        "own",
        {"members": 100},
        metric="started_s",
        unit="s",
        targets=(Target("started_s", 1 / 2, at_least=False),),
        measure=partial(start, kind),
        less_is_better=True,
        seconds_max=15,
    )
    for name, title, kind in (
        ("start-classic", "classic protocol", ClassicMember),
        ("start-consumer", "consumer protocol", ConsumerMember),
    )
)
GROUPS = {"control": tuple(row.name for row in ROWS)}
