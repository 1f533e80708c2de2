"""Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete and their expiry (Kafka 4.3's rules)."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, TypeGuard

from fastlog.coordinator.classic import ClassicGroup, Message, State
from fastlog.coordinator.operation import Client, Producer, Result
from fastlog.coordinator.pending_offsets import PendingOffsets
from fastlog.coordinator.records import NO_TOPIC_ID, CoordinatorRecord, OffsetRecord, OffsetValue
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.packing import hold_commits, pack_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from fastlog.coordinator.consumer_group import ConsumerGroup
    from fastlog.coordinator.consumers import Consumers
    from fastlog.coordinator.rebalance import Rebalancer
    from fastlog.protocol.packing import Commit

log = logging.getLogger("fastlog.groups")

_NOT_FOUND_FIRST = 9  # OffsetCommit from this version on: GROUP_ID_NOT_FOUND instead of ILLEGAL_GENERATION


class Offsets:
    """The committed offsets of the groups of one Rebalancer.

    `committed` is what the log has accepted. Commits on their way are counted, so that an expiry does not delete what they bring and a
    deletion deletes that too.
    """

    def __init__(self, rebalancer: Rebalancer, consumers: Consumers) -> None:
        self._rebalancer = rebalancer
        self._consumers = consumers
        self.committed: dict[str, dict[str, dict[int, OffsetValue]]] = {}  # by group, topic, partition
        self.pending = PendingOffsets()
        self._under_way: dict[str, deque[Sequence[OffsetRecord]]] = {}  # by group: the records of its commits
        self.count = 0  # partitions in `committed`

    # -- OffsetCommit ---------------------------------------------------------------------------------------------------------------

    def commit(self, client: Client, request: Message) -> Result:
        """The request's partitions exist (the caller saw to it). Raises KafkaError for what concerns all of them."""
        return self._commit(request, self._admit(client, request))

    def commit_read(self, client: Client, commit: Commit, names: list[str]) -> Result | None:
        """The same for a request that was read in compiled code; its response is the caller's. None, with nothing done but a sign of life
        noted, where partitions differ in their answers."""
        check = self._admit(client, commit.head)
        rebalancer = self._rebalancer
        now_ms = rebalancer.clock.now_ms()
        packed = commit.pack(
            names, now_ms, _expiry_ms(commit.head, now_ms), rebalancer.settings.metadata_size_max, check, OffsetRecord, OffsetValue
        )
        if packed is None:
            return None
        records, encoded = packed
        rebalancer.metrics.offset_commits += len(records)
        return Result(records, encoded=encoded)

    def _admit(self, client: Client, request: Message) -> Callable[[str, UUID, int], None] | None:
        """Whether the sender may commit. Raises KafkaError; what is returned raises it for a partition (topic, id, index)."""
        consumer_group = self._consumers.groups.get(request["group_id"])
        if consumer_group is not None:
            return self._consumers.check_commit(client, consumer_group, request)
        group = self._check_commit(client, request)
        if group.state in {State.STABLE, State.PREPARING_REBALANCE}:
            member = group.members[request["member_id"]]
            member.session.arm(member.session_timeout_ms)  # committing is a sign of life
        return None

    def commit_in_transaction(self, client: Client, request: Message) -> Result:
        """TxnOffsetCommit, likewise; `request` has the field names of OffsetCommit. What it brings holds when the transaction has
        committed."""
        check = None
        consumer_group = self._consumers.groups.get(request["group_id"])
        if consumer_group is not None:
            check = self._consumers.check_commit(client, consumer_group, request, in_transaction=True)
        else:
            self._check_commit(client, request, in_transaction=True)
        result = self._commit(request, check)
        result.producer = Producer(request["producer_id"], request["producer_epoch"])
        return result

    def _commit(self, request: Message, check: Callable[[str, UUID, int], None] | None = None) -> Result:
        """`check`: raises KafkaError for a partition (topic, id, index) that may not be committed."""
        rebalancer = self._rebalancer
        group_id: str = request["group_id"]
        now_ms = rebalancer.clock.now_ms()
        # Kafka counts UTF-16 units against a limit that is named in bytes; so do we, for what it accepts must be accepted.
        metadata_max = rebalancer.settings.metadata_size_max
        records, encoded, topics = pack_commit(
            group_id,
            request["topics"],
            now_ms,
            _expiry_ms(request, now_ms),
            metadata_max,
            Error.OFFSET_METADATA_TOO_LARGE,
            Error.NONE,
            check,
            OffsetRecord,
            OffsetValue,
        )
        rebalancer.metrics.offset_commits += len(records)
        return Result(records, {"topics": topics}, encoded=encoded)

    def _check_commit(self, client: Client, request: Message, *, in_transaction: bool = False) -> ClassicGroup:
        group_id: str = request["group_id"]
        member_id: str = request.get("member_id", "")
        instance_id = request.get("group_instance_id")
        generation: int = request.get("generation_id_or_member_epoch", -1)
        group = self._rebalancer.groups.get(group_id)
        if group is None:
            if generation >= 0:
                if client.version >= _NOT_FOUND_FIRST and not in_transaction:
                    raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
                raise KafkaError(Error.ILLEGAL_GENERATION)
            # A consumer that assigns partitions by itself, or an administrator: a group without members holds the offsets.
            group = self._rebalancer.create(group_id)
        if group.state is State.DEAD:
            raise KafkaError(Error.COORDINATOR_NOT_AVAILABLE)
        if generation < 0 and group.state is State.EMPTY:
            return group
        if generation >= 0 or member_id or instance_id is not None:
            group.check_member(member_id, instance_id)
            if generation != group.generation:
                raise KafkaError(Error.ILLEGAL_GENERATION)
        elif not in_transaction:
            raise KafkaError(Error.UNKNOWN_MEMBER_ID)
        if group.state is State.COMPLETING_REBALANCE and not in_transaction:
            raise KafkaError(Error.REBALANCE_IN_PROGRESS)
        return group

    # -- OffsetFetch ----------------------------------------------------------------------------------------------------------------

    def fetch(self, group_id: str, topics: list[Message] | None, *, require_stable: bool = False) -> list[Message]:
        """OffsetFetch topics, each with name and topic id as asked; all that the group has for `topics` None. `require_stable`: an error
        stands for an offset that an open transaction may change."""
        group = self._consumers.groups.get(group_id) or self._rebalancer.groups.get(group_id)
        committed = {} if group is None or group.state is State.DEAD else self.committed.get(group_id, {})
        if topics is None:
            found: list[Message] = [
                {"name": name, "topic_id": NO_TOPIC_ID, "partitions": [_fetched(index, value) for index, value in partitions.items()]}
                for name, partitions in committed.items()
            ]
        else:
            found = []
            for topic in topics:
                topic_id = topic.get("topic_id", NO_TOPIC_ID)
                partitions = committed.get(topic["name"], {})
                answers = [_fetched(index, _of_topic(partitions.get(index), topic_id)) for index in topic["partition_indexes"]]
                found.append({"name": topic["name"], "topic_id": topic_id, "partitions": answers})
        if require_stable and self.pending.of_group(group_id):
            for topic in found:
                for partition in topic["partitions"]:
                    if self.pending.is_open(group_id, topic["name"], partition["partition_index"]):
                        partition.update(committed_offset=-1, committed_leader_epoch=-1, metadata="")
                        partition["error_code"] = Error.UNSTABLE_OFFSET_COMMIT
        self._rebalancer.metrics.offset_fetches += sum(len(topic["partitions"]) for topic in found)
        return found

    # -- deleting -------------------------------------------------------------------------------------------------------------------

    def delete(self, request: Message) -> Result:
        """OffsetDelete. Raises KafkaError GROUP_ID_NOT_FOUND, or NON_EMPTY_GROUP where subscriptions are not known."""
        group_id: str = request["group_id"]
        group = self._consumers.groups.get(group_id) or self._rebalancer.groups.get(group_id)
        if group is None or group.state is State.DEAD:
            raise KafkaError(Error.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
        if isinstance(group, ClassicGroup) and group.state is not State.EMPTY and not group.uses_consumer_protocol:
            raise KafkaError(Error.NON_EMPTY_GROUP)
        records: list[CoordinatorRecord] = []
        topics: list[Message] = []
        for topic in request["topics"]:
            name: str = topic["name"]
            subscribed = group.is_subscribed_to(name)
            error = Error.GROUP_SUBSCRIBED_TO_TOPIC if subscribed else Error.NONE
            indexes = [partition["partition_index"] for partition in topic["partitions"]]
            topics.append({"name": name, "partitions": [{"partition_index": index, "error_code": error} for index in indexes]})
            if not subscribed:
                records += [
                    OffsetRecord(group_id, name, index, None) for index in dict.fromkeys(indexes) if self._has(group_id, name, index)
                ]
        self._rebalancer.metrics.offset_deletions += len(records)
        return Result(records, {"error_code": Error.NONE, "topics": topics})

    def tombstones(self, group_id: str) -> list[CoordinatorRecord]:
        """Deletes all that a group has committed or is committing."""
        keys = dict.fromkeys((*self._keys(group_id), *self._arriving(group_id), *self.pending.of_group(group_id)))
        self._rebalancer.metrics.offset_deletions += len(keys)
        return [OffsetRecord(group_id, topic, partition, None) for topic, partition in keys]

    def tombstones_of_topic(self, topic: str) -> list[CoordinatorRecord]:
        """Deletes all commits for a topic that is gone."""
        groups = dict.fromkeys((*self.committed, *self._under_way, *self.pending.groups))
        records: list[CoordinatorRecord] = []
        for group_id in groups:
            partitions = dict.fromkeys(self.committed.get(group_id, {}).get(topic, ()))
            unsettled = (*self._arriving(group_id), *self.pending.of_group(group_id))
            partitions |= dict.fromkeys(index for name, index in unsettled if name == topic)
            records += [OffsetRecord(group_id, topic, index, None) for index in partitions]
        self._rebalancer.metrics.offset_deletions += len(records)
        return records

    def expire(self, group: ClassicGroup | ConsumerGroup) -> tuple[list[CoordinatorRecord], bool]:
        """Tombstones for the group's expired offsets, and whether it will have none left.

        Kafka's rule since 2.1 (KIP-211): while a group has members, those of topics it is not subscribed to expire by their commit; once it
        is empty all do, counted from then; those of consumers without a group, and of consumer groups, by their commit.
        """
        group_id = group.group_id
        topics = self.committed.get(group_id)
        waiting = {*self._arriving(group_id), *self.pending.of_group(group_id)}
        if not topics:
            return [], not waiting
        since_ms: int | None = None  # what retention counts from, None: each commit
        if isinstance(group, ClassicGroup) and group.protocol_type is not None:
            if group.state is State.EMPTY:
                since_ms = group.state_ms
            elif not (group.state is State.STABLE and group.uses_consumer_protocol and group.subscribed_topics is not None):
                return [], False
        now_ms = self._rebalancer.clock.now_ms()
        retention_ms = self._rebalancer.settings.retention_ms
        records: list[CoordinatorRecord] = []
        all_expired = not waiting
        for topic, partitions in topics.items():
            if group.is_subscribed_to(topic):
                all_expired = False
                continue
            for index, value in partitions.items():
                if value.expire_ms != -1:
                    expired = now_ms >= value.expire_ms
                else:
                    expired = now_ms - (value.commit_ms if since_ms is None else since_ms) >= retention_ms
                if expired and (topic, index) not in waiting:
                    records.append(OffsetRecord(group_id, topic, index, None))
                else:
                    all_expired = False
        self._rebalancer.metrics.offsets_expired += len(records)
        return records, all_expired

    # -- the log --------------------------------------------------------------------------------------------------------------------

    def begin(self, records: Sequence[CoordinatorRecord]) -> None:
        """These records of one operation are on their way to the log: commits of one group, or no commits at all."""
        if are_commits(records):
            self._under_way.setdefault(records[0].group, deque()).append(records)

    def end(self, records: Sequence[CoordinatorRecord]) -> None:
        """They have arrived or failed; first come, first served."""
        if are_commits(records):
            waiting = self._under_way[records[0].group]
            waiting.popleft()
            if not waiting:
                del self._under_way[records[0].group]

    def _arriving(self, group_id: str) -> dict[tuple[str, int], None]:
        """What commits of the group that are on their way are for: (topic, partition)."""
        waiting = self._under_way.get(group_id, ())
        return {(record.topic, record.partition): None for records in waiting for record in records}

    def replay(self, record: OffsetRecord, offset: int = 0, producer_id: int = -1) -> None:
        """Applies a record that the log has accepted; a group that is not there is made to hold the offset."""
        group_id, topic, index, value = record
        if value is None:
            self._remove(group_id, topic, index)
            self.pending.drop((group_id, topic, index))
            return
        if group_id not in self._rebalancer.groups and group_id not in self._consumers.groups:
            self._rebalancer.create(group_id)
        if producer_id >= 0:
            self.pending.add(producer_id, (group_id, topic, index), offset, value)
        else:
            self.pending.committed((group_id, topic, index), offset)
            self._hold(group_id, topic, index, value)

    def replay_commits(self, records: Sequence[OffsetRecord], offset: int) -> None:
        """`replay` for commits of one group, outside of transactions, of which the first is at `offset`."""
        group_id = records[0].group
        if group_id not in self._rebalancer.groups and group_id not in self._consumers.groups:
            self._rebalancer.create(group_id)
        if self.pending.of_group(group_id):
            for at, (_, topic, index, _) in enumerate(records, offset):
                self.pending.committed((group_id, topic, index), at)
        self.count += hold_commits(self.committed.setdefault(group_id, {}), records)

    def end_transaction(self, producer_id: int, commit: bool) -> None:
        for key, value in self.pending.end(producer_id, commit):
            self._hold(*key, value)

    def _hold(self, group_id: str, topic: str, index: int, value: OffsetValue) -> None:
        partitions = self.committed.setdefault(group_id, {}).setdefault(topic, {})
        self.count += index not in partitions
        partitions[index] = value

    def unload(self) -> None:
        self.committed.clear()
        self._under_way.clear()
        self.pending.clear()
        self.count = 0

    def _remove(self, group_id: str, topic: str, index: int) -> None:
        topics = self.committed.get(group_id, {})
        partitions = topics.get(topic, {})
        if partitions.pop(index, None) is None:
            return
        self.count -= 1
        if not partitions:
            del topics[topic]
            if not topics:
                del self.committed[group_id]

    def _keys(self, group_id: str) -> Iterator[tuple[str, int]]:
        for topic, partitions in self.committed.get(group_id, {}).items():
            for index in partitions:
                yield topic, index

    def _has(self, group_id: str, topic: str, index: int) -> bool:
        return (
            index in self.committed.get(group_id, {}).get(topic, ())
            or (topic, index) in self._arriving(group_id)
            or self.pending.is_open(group_id, topic, index)
        )


def _expiry_ms(request: Message, now_ms: int) -> int:
    retention_ms: int = request.get("retention_time_ms", -1)
    return -1 if retention_ms == -1 else now_ms + retention_ms


def _fetched(index: int, value: OffsetValue | None) -> Message:
    if value is None:
        return {"partition_index": index, "committed_offset": -1, "committed_leader_epoch": -1, "metadata": "", "error_code": Error.NONE}
    return {
        "partition_index": index,
        "committed_offset": value.offset,
        "committed_leader_epoch": value.leader_epoch,
        "metadata": value.metadata,
        "error_code": Error.NONE,
    }


def _of_topic(value: OffsetValue | None, topic_id: object) -> OffsetValue | None:
    """The offset, unless it was committed for another topic of the same name."""
    if value is None or NO_TOPIC_ID in {value.topic_id, topic_id} or value.topic_id == topic_id:
        return value
    return None


def are_commits(records: Sequence[CoordinatorRecord]) -> TypeGuard[Sequence[OffsetRecord]]:
    """Of the records of one operation: whether they are commits of a group, which it brings alone."""
    first = records[0] if records else None
    return isinstance(first, OffsetRecord) and first.value is not None
