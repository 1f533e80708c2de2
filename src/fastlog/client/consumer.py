"""The consumer: records as columns or one at a time, fetched ahead by the compiled core; see docs/client.md."""

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastlog._core import ConsumerCore, Record, RecordBatch, RecordBatches
from fastlog.client import config, reporting
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for, truncated
from fastlog.client.failures import ClientError, ClosedError, ConfigError
from fastlog.client.logs import WARNING, say, say_raised, say_seldom
from fastlog.client.records import Mark, OffsetAndTimestamp, Partition, TopicPartition, checked, checked_mark, checked_offset, checked_topic

if TYPE_CHECKING:
    import queue
    import re

    from fastlog.client.group import Membership
    from fastlog.client.transactions import GroupMetadata
    from fastlog.protocol.messages import Message

ASK_METADATA, ASK_LINK, ASK_PROOF = 1, 4, 8
OFFSET_OUT_OF_RANGE, CORRUPT, DIVERGED = 1, -110, -111
EARLIEST, LATEST = -2, -1
MISSING_S = 1.0  # between two looks for topics that are not there
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
        self._topics: list[str] = []
        self._pattern: re.Pattern[str] | None = None
        self._broker_pattern: str | None = None
        self._membership: Membership | None = None
        self._manual = False
        self._topic_failure: ClientError | None = None  # for the user, when next polling
        self._took_up = False  # an assignment was taken up, perhaps an empty one
        self.on_assign: Listener | None = None
        self.on_revoke: Listener | None = None
        self.on_lost: Listener | None = None
        self._auto_commit_due = 0.0
        self._committed: dict[Partition, int] = {}  # what was last committed here
        self._commits: queue.SimpleQueue[tuple[dict[Partition, Mark], Any] | None] | None = None
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
        self._control_thread = threading.Thread(target=self._control, name="fastlog-control", daemon=True)
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
        if isinstance(topics, str):
            raise TypeError("topics: expected a list of names")
        names = [checked_topic(name) for name in topics]
        if not names and not pattern:
            raise ValueError("subscribe: expected topics or a pattern (unsubscribe leaves the group)")
        import re

        self._check_open()
        matched_there = self.settings["group_protocol"] == "consumer"
        try:
            compiled = re.compile(pattern) if pattern and not matched_there else None
        except re.error as error:
            raise ValueError(f"pattern {pattern!r}: {error}") from error
        self._manual = False
        self._topics = names
        self._pattern = compiled
        self._broker_pattern = pattern if matched_there else None
        for name, listener in (("on_assign", on_assign), ("on_revoke", on_revoke), ("on_lost", on_lost)):
            if listener is not None:
                setattr(self, name, listener)
        membership = self._member()
        membership.pattern = self._broker_pattern
        membership.rejoin()

    def unsubscribe(self) -> None:
        """Leaves the group, and reads nothing."""
        self._leave_group()
        self._assign([])

    def assign(self, partitions: Iterable[Partition] | Mapping[Partition, int]) -> None:
        """Reads these partitions, and no others: from offsets, where a mapping gives them, or where the group has committed, or where
        auto_offset_reset says."""
        self._check_open()
        wanted = checked(partitions)
        places = {p: checked_offset(at) for p, at in partitions.items()} if isinstance(partitions, Mapping) else {}
        self._leave_group()
        self._manual = True
        self._assign(wanted)
        self._took_up = True
        for (topic, number), offset in places.items():
            self._seek(topic, number, offset)
        self._want_metadata()

    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return [TopicPartition(*p) for p in self._assigned()]

    def _wanted_topics(self) -> list[str]:
        if self._pattern is None:
            return self._topics
        found = self._cluster.metadata(None).items()
        return [name for name, meta in found if self._pattern.fullmatch(name) and not meta.error and not meta.internal]

    # --- reading

    def poll(self, max_records: int = 500, timeout: float = 0.5) -> list[Record]:
        """The next records, up to `max_records`, as soon as there are any; none when `timeout` seconds are over.

        Raises errors that concern what is read: OffsetOutOfRangeError (with auto_offset_reset="none"), CorruptMessageError,
        InvalidTopicError, TopicAuthorizationFailedError, and those of joining the group. A topic that does not exist (yet) is waited for,
        and logged.
        """
        if max_records < 1:
            raise ValueError(f"max_records {max_records}: expected 1 or more")
        deadline = time.monotonic() + timeout
        while True:
            self._service()
            records = self._take_records(max_records)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._wait(left)

    def poll_batches(self, timeout: float = 0.5) -> RecordBatches:
        """All that is there, as columns: one RecordBatch or more for each partition. As soon as there is any; none when the time is over.

        The list is an Arrow stream: `polars.DataFrame(batches)`, `pyarrow.table(batches)`. Raises as `poll`.
        """
        deadline = time.monotonic() + timeout
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
        deadline = time.monotonic() + timeout
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
        count = 0
        while not self._is_closed:
            record = take()
            if record is None or count & 1023 == 1023:
                self._service()
            count += 1
            if record is None:
                self._wait(1.0)
            else:
                yield record

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
        (at,) = checked([partition])
        self._seek(*at, checked_offset(offset))

    def seek_to_beginning(self, partitions: Iterable[Partition] = ()) -> None:
        """To the first record that is still there, of those given, or of all that are assigned."""
        self._seek_to(EARLIEST, partitions or self._assigned())

    def seek_to_end(self, partitions: Iterable[Partition] = ()) -> None:
        """Behind the last record, of those given, or of all that are assigned."""
        self._seek_to(LATEST, partitions or self._assigned())

    def _seek_to(self, where: int, partitions: Iterable[Partition]) -> None:
        for (topic, number), found in self._ask_offsets(dict.fromkeys(partitions, where)).items():
            self._seek(topic, number, found["offset"], found["leader_epoch"])

    def position(self, partition: Partition) -> int:
        """The offset of the next record that will be given out; waits until it is known. KeyError where it is not assigned."""
        if partition not in self._assigned():
            raise KeyError(partition)
        found = int(self._state(*partition)["position"])
        if found < 0:
            self._find_places()
            found = int(self._state(*partition)["position"])
        return found

    def lag(self, partition: Partition) -> int | None:
        """Records between the position and the end as the broker last told it; None where it has not yet."""
        state = self._state(*partition)
        return max(0, state["end"] - state["position"]) if state["known"] and state["position"] >= 0 else None

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Gives out nothing of these until `resume`. KeyError for a partition that is not assigned."""
        for topic, number in checked(partitions):
            self._pause(topic, number, True)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Ends `pause`. KeyError for a partition that is not assigned."""
        for topic, number in checked(partitions):
            self._pause(topic, number, False)

    def paused(self) -> list[TopicPartition]:
        """The partitions for which `pause` holds."""
        return [TopicPartition(*p) for p in self._assigned() if self._state(*p)["paused"]]

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets of the first records that are still there."""
        return {p: found.offset for p, found in self._list_offsets(dict.fromkeys(partitions, EARLIEST)).items()}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offsets behind the last records that a consumer with this isolation_level can see."""
        return {p: found.offset for p, found in self._list_offsets(dict.fromkeys(partitions, LATEST)).items()}

    def offsets_for_times(self, times: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (milliseconds) in each partition; None where there is none."""
        if early := [when for when in times.values() if when < 0]:
            raise ValueError(f"time {early[0]}: expected milliseconds since the epoch")
        found = self._list_offsets(times)
        return {p: at if at.offset >= 0 else None for p, at in found.items()}

    def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. UnknownTopicOrPartitionError where there is no such topic."""
        found = self._cluster.metadata([topic], create=self.settings["allow_auto_create_topics"])[topic]
        if found.error:
            raise error_for(found.error, f"topic {topic!r}")
        return len(found.leaders)

    def _list_offsets(self, wanted: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndTimestamp]:
        return {TopicPartition(*p): OffsetAndTimestamp(e["offset"], e["timestamp"]) for p, e in self._ask_offsets(wanted).items()}

    def _ask_offsets(self, wanted: Mapping[Partition, int]) -> dict[Partition, "Message"]:
        if not wanted:
            return {}
        committed = self.settings["isolation_level"] == "read_committed"
        entries = {TopicPartition(*p): {"partition_index": p[1], "timestamp": when} for p, when in wanted.items()}
        wrap = {"replica_id": -1, "isolation_level": 1 if committed else 0}
        timeout_s = self.settings["request_timeout_ms"] / 1000
        return self._cluster.call_by_leader("ListOffsets", entries, wrap, "find the offset in", timeout_s=timeout_s)

    # --- commits

    def commit(self, offsets: Mapping[Partition, int | tuple[int, str]] | None = None) -> None:
        """Commits the group's positions (the offsets to read next), or what was given out so far. Returns when they are stored.

        Raises RebalanceInProgressError, IllegalGenerationError or UnknownMemberIdError when the partitions are others' now.
        """
        self._commit(self._to_commit(offsets))

    def _commit(self, wanted: dict[Partition, Mark]) -> None:
        group = self._group()
        if wanted:
            group.commit(wanted)
            self._committed.update({p: mark.offset for p, mark in wanted.items()})

    def commit_async(
        self,
        offsets: Mapping[Partition, int | tuple[int, str]] | None = None,
        on_done: Callable[[dict[Partition, int], ClientError | None], object] | None = None,
    ) -> None:
        """As `commit`, without waiting. on_done(offsets, error) is called in the thread that commits; without it errors are logged."""
        wanted = self._to_commit(offsets)
        self._group()
        if not wanted:
            return
        if self._commits is None:
            import queue

            self._commits = queue.SimpleQueue()
            threading.Thread(target=self._commit_behind, args=(self._commits,), name="fastlog-commit", daemon=True).start()
        self._commits.put((wanted, on_done))

    def committed(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int | None]:
        """What the group has committed; None where it has not."""
        asked = checked(partitions)
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
            given = self._cluster, self.settings, self._wanted_topics, self._poke
            if self.settings["group_protocol"] == "consumer":
                from fastlog.client.broker_assigned import BrokerAssignedMembership

                self._membership = BrokerAssignedMembership(*given)
            else:
                from fastlog.client.classic import ClassicMembership

                self._membership = ClassicMembership(*given)
        return self._membership

    def _to_commit(self, offsets: Mapping[Partition, int | tuple[int, str]] | None) -> dict[Partition, Mark]:
        """With the epochs, by which who reads on from there learns whether the log is still the same."""
        made: dict[Partition, Mark] = {}
        if offsets is None:
            for p in self._assigned():
                state = self._state(*p)
                if state["position"] >= 0 and self._committed.get(p) != state["position"]:
                    made[p] = Mark(state["position"], "", state["taken_epoch"])
            return made
        for p, at in zip(checked(offsets), offsets.values(), strict=True):
            mark, state = checked_mark(at), self._state(*p)
            made[p] = mark._replace(epoch=state["taken_epoch"]) if mark.offset <= state["position"] else mark
        return made

    def _commit_behind(self, wanted: "queue.SimpleQueue[tuple[dict[Partition, Mark], Any] | None]") -> None:
        while (item := wanted.get()) is not None:
            offsets, on_done = item
            error: ClientError | None = None
            try:
                self._group().commit(offsets)
                self._committed.update({p: mark.offset for p, mark in offsets.items()})
            except ClientError as failed:
                error = failed
            if on_done is not None:
                try:
                    on_done({p: mark.offset for p, mark in offsets.items()}, error)
                except Exception:  # noqa: BLE001 - logged
                    say_raised("a commit callback raised")
            elif error is not None:
                say(WARNING, "%s", error, group=self.settings["group_id"])

    # --- what has to be done between records

    def _service(self) -> None:
        """Follows the group, finds places, commits what is due, raises errors. In the user's thread."""
        self._check_open()
        if self._topic_failure is not None:
            failure, self._topic_failure = self._topic_failure, None
            raise failure
        membership = self._membership
        if membership is not None and not self._manual and (self._topics or self._pattern or self._broker_pattern):
            states = membership.states
            if membership.state is states.REVOKING or membership.state is states.LOST:
                self._give_back(membership, lost=membership.state is states.LOST)
            membership.poll()
            if membership.state is states.ASSIGNED:
                self._take_up(membership)
        if self._homeless():
            self._find_places()
        for topic, number, code, offset in self._errors():
            self._deal_with(topic, number, code, offset)
        if membership is not None and self.settings["enable_auto_commit"] and time.monotonic() > self._auto_commit_due:
            self._auto_commit_due = time.monotonic() + self.settings["auto_commit_interval_ms"] / 1000
            if membership.state is membership.states.STABLE or self._manual:
                self.commit_async()

    def _needs_broker(self) -> bool:
        """Whether `_service` may wait for a broker, or call a listener: an event loop does not run it itself then."""
        membership = self._membership
        moves = membership is not None and not self._manual and membership.moves
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
                self._committed.pop(p, None)
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
                self._committed[topic, number] = mark.offset
        self._reset(self._homeless())

    def _reset(self, partitions: list[Partition]) -> None:
        if not partitions:
            return
        where = self.settings["auto_offset_reset"]
        if where == "none":
            raise error_for(OFFSET_OUT_OF_RANGE, f"{partitions[0][0]} [{partitions[0][1]}]", 'no position, and auto_offset_reset is "none"')
        self._seek_to(EARLIEST if where == "earliest" else LATEST, partitions)

    def _deal_with(self, topic: str, number: int, code: int, offset: int) -> None:
        if code == OFFSET_OUT_OF_RANGE and self.settings["auto_offset_reset"] != "none":
            where = self.settings["auto_offset_reset"]
            text = "%s [%d]: offset %d is not there; going on at the %s"
            say(WARNING, text, topic, number, offset, where, topic=topic, partition=number)
            self._reset([(topic, number)])
            return
        if code == DIVERGED:
            self._go_back(topic, number)
            return
        what = f"read {topic} [{number}] at offset {offset}"
        if code == CORRUPT:
            raise error_for(2, what, "the broker sent a batch that can't be read; seek past it to go on")
        if code > 0 and error_for(code, what).retriable:
            self._forgive(topic, number)
            return
        raise error_for(code, what)

    def _go_back(self, topic: str, number: int) -> None:
        """The leader's log is not the one that was fetched."""
        state = self._state(topic, number)
        position, parted = state["position"], state["parted"]
        if position != state["fetched"]:  # what was fetched ahead is dropped; then it is asked for what was read
            self._seek(topic, number, position, state["taken_epoch"])
            return
        if self.settings["auto_offset_reset"] == "none":
            raise truncated(TopicPartition(topic, number), position, parted if parted >= 0 else None)
        text = "%s [%d]: the log was cut: records up to offset %d were read, and some are no more; going on at %s"
        where = f"offset {parted}" if parted >= 0 else f"the {self.settings['auto_offset_reset']}"
        say(WARNING, text, topic, number, position, where, topic=topic, partition=number)
        if parted >= 0:
            self._seek(topic, number, parted, state["parted_epoch"])
        else:
            self._reset([(topic, number)])

    def _check_open(self) -> None:
        if self._is_closed:
            self._refused("closed")

    def _refused(self, why: str) -> None:
        if why == "forked":
            raise ClosedError("this process is a fork of the one that made the consumer; make a new one after the fork")
        raise ClosedError("the consumer is closed")

    # --- the control thread

    def _control(self) -> None:
        refresh_s = self.settings["metadata_max_age_ms"] / 1000
        due = time.monotonic() + refresh_s
        while True:
            wanted = self._wait_wanted(self._reporter.wait_s(max(0.01, min(due - time.monotonic(), 1.0))))
            if wanted < 0:
                return
            self._reporter.report()
            try:
                if wanted & ASK_METADATA or time.monotonic() >= due:
                    due = time.monotonic() + refresh_s
                    if not self._refresh():
                        due = min(due, time.monotonic() + MISSING_S)
                if wanted & ASK_LINK:
                    self._connect_wanted()
                if wanted & ASK_PROOF:
                    from fastlog.client import truncation

                    truncation.prove(self, self._cluster)
            except ClientError as error:
                if self._is_closed:
                    return
                say_seldom(WARNING, "%s: %s", self.settings["client_id"], error, client_id=self.settings["client_id"])
                time.sleep(self.settings["retry_backoff_ms"] / 1000)
                self._want_metadata()

    def _refresh(self) -> bool:
        """Asks for leaders, and joins again where topics have come, gone or grown. Whether all topics are there."""
        membership = self._membership
        topics = {t for t, _ in self._assigned()} | {*self._topics, *(membership.counts if membership else ())}
        found = self._cluster.metadata(sorted(topics), create=self.settings["allow_auto_create_topics"]) if topics else {}
        for name, meta in found.items():
            if meta.error == 0:
                self._set_leaders(name, meta.leaders, meta.epochs)
            else:
                error = error_for(meta.error, f"topic {name!r}")
                say_seldom(WARNING, "%s", error, topic=name)
                if not error.retriable:
                    self._topic_failure = error
        if membership is not None and membership.state is membership.states.STABLE:
            counts = {name: found[name].size(before) if name in found else before for name, before in membership.counts.items()}
            if counts != membership.counts or (self._pattern and sorted(self._wanted_topics()) != membership.subscribed):
                membership.rejoin()
        return not any(meta.error for meta in found.values())

    def _connect_wanted(self) -> None:
        for node in self._sources_wanted():
            try:
                self._attach(node, *self._cluster.link(node, "Fetch"))
            except ClientError as error:
                self._unreachable(node)
                who = self.settings["client_id"]
                say_seldom(WARNING, "%s: broker %d: %s", who, node, error, client_id=who, broker=node)

    # --- the end

    def _leave_group(self) -> None:
        membership = self._membership
        try:
            if membership is not None and membership.owned and self.on_revoke is not None:
                self.on_revoke(self.assignment())
        finally:
            self._membership = None
            self._topics, self._pattern, self._broker_pattern, self._took_up = [], None, None, False
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
        if membership is not None and self.settings["enable_auto_commit"] and (membership.owned or self._manual):
            try:
                wanted = self._to_commit(None)
                if wanted:
                    membership.commit(wanted, timeout_s=5.0)
            except ClientError as error:
                say(WARNING, "the last commit failed: %s", error, group=self.settings["group_id"])
        if self._commits is not None:
            self._commits.put(None)
        try:
            self._leave_group()
        finally:
            self._reporter.report(last=True)
            self._stop()
            self._cluster.close()
            _open.discard(self)
            if self._control_thread is not threading.current_thread():
                self._control_thread.join(5)
