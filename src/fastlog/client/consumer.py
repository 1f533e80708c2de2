"""The consumer: records as columns or one at a time, fetched ahead by the compiled core; see docs/client.md."""

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastlog._core import ConsumerCore, Record, RecordBatch, RecordBatches
from fastlog.client import checks, config, reporting
from fastlog.client.cluster import Cluster
from fastlog.client.commits import Commits
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClosedError, ConfigError
from fastlog.client.logs import WARNING, say
from fastlog.client.places import EARLIEST, LATEST, Places
from fastlog.client.records import OffsetAndTimestamp, Partition, TopicPartition
from fastlog.client.subscription import Subscription
from fastlog.client.watch import Watch

if TYPE_CHECKING:
    from fastlog.client.group import Membership
    from fastlog.client.transactions import GroupMetadata

TURN = 1024  # records given out one by one before the group is looked after
Listener = Callable[[list[TopicPartition]], object]
_open: "weakref.WeakSet[Consumer]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for consumer in list(_open):
        with contextlib.suppress(Exception):
            consumer.close()


def _refuse_classic(given: set[str]) -> None:
    """Raises ConfigError for settings that the broker has, not its members, with the consumer protocol (KIP-848)."""
    wrong = given & {"session_timeout_ms", "heartbeat_interval_ms", "partition_assignment_strategy"}
    if wrong:
        raise ConfigError(f'{", ".join(sorted(wrong))}: set for the group at the broker, with group_protocol="consumer"')


class Consumer(ConsumerCore):
    """Reads records, from partitions given (`assign`) or as a member of a group (`subscribe`). For one thread at a time.

        with Consumer(bootstrap_servers="127.0.0.1:9092", group_id="billing") as consumer:
            consumer.subscribe(["orders"])
            for record in consumer:
                print(record.key, record.value)

    Settings are Kafka's, with underscores (docs/client.md has them all). Raises ConfigError for settings that are unknown or make no sense.
    """

    def __init__(self, config_map: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        given = config.merged(config_map, settings)
        set_ = config.settings(config.CONSUMER, given)
        if set_["group_protocol"] == "consumer":
            _refuse_classic({name.replace(".", "_") for name in given})
        elif set_["group_remote_assignor"] is not None:
            raise ConfigError('group_remote_assignor needs group_protocol="consumer"')
        if set_["heartbeat_interval_ms"] >= set_["session_timeout_ms"]:
            set_["heartbeat_interval_ms"] = max(1, set_["session_timeout_ms"] // 3)
        self.settings = set_
        self._cluster = Cluster(set_["bootstrap_servers"], client_id=set_["client_id"], timeout_s=set_["request_timeout_ms"] / 1000)
        self._subscription = Subscription(self._cluster)
        self._membership: Membership | None = None
        self._took_up = False  # an assignment was taken up, perhaps an empty one
        self.on_assign: Listener | None = None
        self.on_revoke: Listener | None = None
        self.on_lost: Listener | None = None
        self._auto_commit_due = 0.0
        self._commits = Commits(self, self._group, set_["group_id"])
        self._places = Places(self, self._cluster, set_)
        core = {
            "max_wait_ms": set_["fetch_max_wait_ms"],
            "min_bytes": set_["fetch_min_bytes"],
            "max_bytes": set_["fetch_max_bytes"],
            "partition_bytes": set_["max_partition_fetch_bytes"],
            "buffer_memory": set_["buffer_memory"],
            "request_us": set_["request_timeout_ms"] * 1000,
            "backoff_us": set_["retry_backoff_ms"] * 1000,
            "check_crc": set_["check_crcs"],
            "committed": set_["isolation_level"] == "read_committed",
        }
        self._reporter = reporting.of_settings(set_, self.metrics)
        self._start(core, set_["client_id"].encode(), set_["key_deserializer"], set_["value_deserializer"])
        _open.add(self)
        given = {"subscription": self._subscription, "member": lambda: self._membership, "reporter": self._reporter}
        watch = Watch(self, self._cluster, set_, **given)
        self._control_thread = threading.Thread(target=watch.run, name="fastlog-control", daemon=True)
        self._control_thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- what is read

    def subscribe(
        self,
        topics: Iterable[str] = (),
        *,
        pattern: str | None = None,
        on_assign: Listener | None = None,
        on_revoke: Listener | None = None,
        on_lost: Listener | None = None,
    ) -> None:
        """Becomes a member of the group; partitions come and go with the other members, while `poll` or its like is called.

        pattern: a regular expression that topics' names match as a whole, instead of `topics`; with group_protocol="consumer" the broker
        matches it (RE2). on_assign: after partitions have come; it gets these only. on_revoke: before they go, so that it can commit.
        on_lost: when they have gone already (on_revoke is not called then).
        """
        if self.settings["group_id"] is None:
            raise ConfigError("subscribe needs a group_id; without a group, assign partitions")
        names = checks.checked_topics(topics)
        if pattern is not None and not isinstance(pattern, str):
            raise TypeError(f"pattern {pattern!r}: expected a regular expression as a string")
        listeners = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        if wrong := [name for name, listener in listeners.items() if listener is not None and not callable(listener)]:
            raise TypeError(f"{wrong[0]}: expected a callable")
        if not names and not pattern:
            raise ValueError("subscribe: expected topics or a pattern (unsubscribe leaves the group)")
        self._check_open()
        self._subscription.subscribe(names, pattern, matched_there=self.settings["group_protocol"] == "consumer")
        for name, listener in listeners.items():
            if listener is not None:
                setattr(self, name, listener)
        membership = self._member()
        membership.pattern = self._subscription.broker_pattern
        membership.rejoin()

    def unsubscribe(self) -> None:
        """Leaves the group, and reads nothing."""
        self._leave_group()
        self._assign([])

    def assign(self, partitions: Iterable[Partition] | Mapping[Partition, int]) -> None:
        """Reads these partitions, and no others: from offsets, where a mapping gives them, or where the group has committed, or where
        auto_offset_reset says."""
        self._check_open()
        wanted = checks.checked(partitions)
        places: dict[TopicPartition, int] = {}
        if isinstance(partitions, Mapping):
            places = {p: checks.checked_offset(at) for p, at in checks.checked_places(partitions).items()}
        self._leave_group()
        self._subscription.manual = True
        self._assign(wanted)
        self._took_up = True
        for (topic, number), offset in places.items():
            self._seek(topic, number, offset)
        self._want_metadata()

    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return [TopicPartition(*p) for p in self._assigned()]

    # --- reading

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """The next records, up to `max_records`, as soon as there are any; none when `timeout` seconds are over.

        Raises errors that concern what is read: OffsetOutOfRangeError (with auto_offset_reset="none"), CorruptMessageError,
        InvalidTopicError, TopicAuthorizationFailedError, and those of joining the group. A topic that does not exist (yet) is waited for,
        and logged.
        """
        most = checks.checked_count(max_records, "max_records")
        deadline = time.monotonic() + checks.checked_timeout(timeout)
        while True:
            self._service()
            records = self._take_records(most)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._wait(left)

    def poll_batches(self, timeout: float = 0.5) -> RecordBatches:
        """All that is there, as columns: one RecordBatch or more for each partition. As soon as there is any; none when the time is over.

        The list is an Arrow stream: `polars.DataFrame(batches)`, `pyarrow.table(batches)`. Raises as `poll`.
        """
        deadline = time.monotonic() + checks.checked_timeout(timeout)
        made = RecordBatches()
        while True:
            self._service()
            while (batch := self._take_batch()) is not None:
                made.append(batch)
            left = deadline - time.monotonic()
            if made or left <= 0:
                return made
            self._wait(left)

    def poll_batch(self, timeout: float = 0.5) -> RecordBatch | None:
        """The next batch; None when the time is over. Raises as `poll`."""
        deadline = time.monotonic() + checks.checked_timeout(timeout)
        while True:
            self._service()
            batch = self._take_batch()
            left = deadline - time.monotonic()
            if batch is not None or left <= 0:
                return batch
            self._wait(left)

    def __iter__(self) -> Iterator[Record]:
        """Records, for ever; ends when the consumer is closed."""
        take = self._next_record
        while not self._is_closed:
            try:
                for _ in repeat(None, TURN):  # what is done for each record is most of what iterating costs
                    if (record := take()) is None:
                        break
                    yield record
                self._service()
                if record is None:
                    self._wait(1.0)
            except ClosedError:
                if self._is_forked:
                    raise
                return

    @property
    def at_end(self) -> bool:
        """Whether all that was there when the brokers last answered has been read. A member that got no partition is there at once."""
        if not self._took_up:
            return False
        states = [self._state(*p) for p in self._assigned()]
        return all(s["paused"] or (s["known"] and 0 <= s["end"] <= s["position"]) for s in states)

    # --- places

    def seek(self, partition: Partition, offset: int) -> None:
        """Reads on from an offset. KeyError for a partition that is not assigned."""
        self._seek(*checks.checked_one(partition), checks.checked_offset(offset))

    def seek_to_beginning(self, partitions: Iterable[Partition] = ()) -> None:
        """To the first record that is still there, of those given, or of all that are assigned."""
        self._places.seek_to(EARLIEST, checks.checked(partitions) or self._assigned())

    def seek_to_end(self, partitions: Iterable[Partition] = ()) -> None:
        """Behind the last record, of those given, or of all that are assigned."""
        self._places.seek_to(LATEST, checks.checked(partitions) or self._assigned())

    def position(self, partition: Partition) -> int:
        """The offset of the next record that will be given out; waits until it is known. KeyError where it is not assigned."""
        at = checks.checked_one(partition)
        if at not in self._assigned():
            raise KeyError(partition)
        found = int(self._state(*at)["position"])
        if found < 0:
            self._find_places()
            found = int(self._state(*at)["position"])
        return found

    def lag(self, partition: Partition) -> int | None:
        """Records between the position and the end as the broker last told it; None where it has not yet."""
        state = self._state(*checks.checked_one(partition))
        return max(0, state["end"] - state["position"]) if state["known"] and state["position"] >= 0 else None

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Gives out nothing of these until `resume`. KeyError for a partition that is not assigned."""
        for topic, number in checks.checked(partitions):
            self._pause(topic, number, True)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Ends `pause`. KeyError for a partition that is not assigned."""
        for topic, number in checks.checked(partitions):
            self._pause(topic, number, False)

    def paused(self) -> list[TopicPartition]:
        """The partitions for which `pause` holds."""
        return [TopicPartition(*p) for p in self._assigned() if self._state(*p)["paused"]]

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets of the first records that are still there."""
        return {p: found.offset for p, found in self._places.find(dict.fromkeys(checks.checked(partitions), EARLIEST)).items()}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets behind the last records that a consumer with this isolation_level can see."""
        return {p: found.offset for p, found in self._places.find(dict.fromkeys(checks.checked(partitions), LATEST)).items()}

    def offsets_for_times(self, times: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (milliseconds) in each partition; None where there is none."""
        found = self._places.find({p: checks.checked_time(when) for p, when in checks.checked_places(times).items()})
        return {p: at if at.offset >= 0 else None for p, at in found.items()}

    def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. UnknownTopicOrPartitionError where there is no such topic."""
        found = self._cluster.metadata([checks.checked_topic(topic)], create=self.settings["allow_auto_create_topics"])[topic]
        if found.error:
            raise error_for(found.error, f"topic {topic!r}")
        return len(found.leaders)

    # --- commits

    def commit(self, offsets: Mapping[Partition, int | tuple[int, str]] | None = None) -> None:
        """Commits the group's positions (the offsets to read next), or what was given out so far. Returns when they are stored.

        Raises RebalanceInProgressError, IllegalGenerationError or UnknownMemberIdError when the partitions are others' now.
        """
        self._commits.commit(self._commits.wanted(offsets))

    def commit_async(
        self,
        offsets: Mapping[Partition, int | tuple[int, str]] | None = None,
        on_done: Callable[[dict[Partition, int], ClientError | None], object] | None = None,
    ) -> None:
        """As `commit`, without waiting. on_done(offsets, error) is called in the thread that commits; without it errors are logged."""
        self._commits.behind(self._commits.wanted(offsets), on_done)

    def committed(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int | None]:
        """What the group has committed; None where it has not."""
        asked = checks.checked(partitions)
        found = self._group().committed(list(asked))
        return {p: found[p].offset if p in found else None for p in asked}

    def group_metadata(self) -> "GroupMetadata":
        """For `Producer.send_offsets_to_transaction`."""
        from fastlog.client.transactions import GroupMetadata

        member = self._group()
        known = member.generation >= 0
        return GroupMetadata(
            member.group, member.generation, member.member_id if known else "", self.settings["group_instance_id"] if known else None
        )

    def _group(self) -> "Membership":
        """The membership; one that never joins where the consumer only commits."""
        self._check_open()
        if self.settings["group_id"] is None:
            raise ConfigError("commits need a group_id")
        return self._member()

    def _member(self) -> "Membership":
        if self._membership is None:
            given = self._cluster, self.settings, self._subscription.names, self._poke
            if self.settings["group_protocol"] == "consumer":
                from fastlog.client.broker_assigned import BrokerAssignedMembership

                self._membership = BrokerAssignedMembership(*given)
            else:
                from fastlog.client.classic import ClassicMembership

                self._membership = ClassicMembership(*given)
        return self._membership

    # --- what has to be done between records

    def _service(self) -> None:
        """Follows the group, finds places, commits what is due, raises errors. In the user's thread."""
        self._check_open()
        self._subscription.raise_failure()
        membership = self._membership
        if membership is not None and self._subscription.by_group:
            states = membership.states
            if membership.state is states.REVOKING or membership.state is states.LOST:
                self._give_back(membership, lost=membership.state is states.LOST)
            membership.poll()
            if membership.state is states.ASSIGNED:
                self._take_up(membership)
        if self._homeless():
            self._find_places()
        for topic, number, code, offset in self._errors():
            self._places.deal_with(topic, number, code, offset)
        if membership is not None and self.settings["enable_auto_commit"] and time.monotonic() > self._auto_commit_due:
            self._auto_commit_due = time.monotonic() + self.settings["auto_commit_interval_ms"] / 1000
            if membership.state is membership.states.STABLE or self._subscription.manual:
                self.commit_async()

    def _needs_broker(self) -> bool:
        """Whether `_service` may wait for a broker, or call a listener: an event loop does not run it itself then."""
        membership = self._membership
        moves = membership is not None and not self._subscription.manual and membership.moves
        return moves or bool(self._homeless()) or bool(self._errors())

    def _give_back(self, membership: "Membership", *, lost: bool) -> None:
        have = self.assignment()
        gone = set(have if lost else membership.leaving)
        parts = [p for p in have if p in gone]
        try:
            if lost:
                if self.on_lost is not None and parts:
                    self.on_lost(parts)
            else:
                if self.settings["enable_auto_commit"]:
                    try:
                        self.commit()
                    except ClientError as error:
                        group = membership.group
                        say(WARNING, "group %s: the last commit before a rebalance failed: %s", group, error, group=group)
                if self.on_revoke is not None and parts:
                    self.on_revoke(parts)
        finally:
            self._assign([p for p in have if p not in gone])
            for p in gone:
                self._commits.stored.pop(p, None)
            membership.let_go(gone, lost=lost)

    def _take_up(self, membership: "Membership") -> None:
        have = set(self.assignment())
        wanted = membership.take_up()
        if wanted is None:
            return
        self._assign(wanted)
        self._want_metadata()
        self._took_up = True
        if self.on_assign is not None:
            self.on_assign([p for p in self.assignment() if p not in have])

    def _find_places(self) -> None:
        """Where to begin in partitions that have no position: at what is committed, else where auto_offset_reset says."""
        homeless = self._homeless()
        if self.settings["group_id"] is not None and homeless:
            for (topic, number), mark in self._group().committed(homeless).items():
                self._seek(topic, number, mark.offset, mark.epoch)
                self._commits.stored[topic, number] = mark.offset
        self._places.reset(self._homeless())

    def _check_open(self) -> None:
        if self._is_closed:
            self._refused("closed")

    def _refused(self, why: str) -> None:
        if why == "forked":
            raise ClosedError("this process is a fork of the one that made the consumer; make a new one after the fork")
        raise ClosedError("the consumer is closed")

    # --- the end

    def _leave_group(self) -> None:
        membership = self._membership
        try:
            if membership is not None and membership.owned and self.on_revoke is not None:
                self.on_revoke(self.assignment())
        finally:
            self._membership = None
            self._took_up = False
            self._subscription.clear()
            if membership is not None:
                membership.close()

    def close(self) -> None:
        """Commits, where enable_auto_commit is on, leaves the group and ends."""
        if self._is_closed:
            return
        if self._is_forked:
            self._stop()
            return
        membership = self._membership
        if membership is not None and self.settings["enable_auto_commit"] and (membership.owned or self._subscription.manual):
            try:
                self._commits.commit(self._commits.wanted(None), timeout_s=5.0)
            except ClientError as error:
                say(WARNING, "the last commit failed: %s", error, group=self.settings["group_id"])
        self._commits.close()
        try:
            self._leave_group()
        finally:
            self._reporter.report(last=True)
            self._stop()
            self._cluster.close()
            _open.discard(self)
            if self._control_thread is not threading.current_thread():
                self._control_thread.join(5)
