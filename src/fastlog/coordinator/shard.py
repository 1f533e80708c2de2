"""The coordinator of one partition of `__consumer_offsets`: its groups and offsets, and what concerns both."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.classic import ClassicGroup, Message, Reply, State
from fastlog.coordinator.consumer_classic import ClassicMembers
from fastlog.coordinator.consumer_group import ConsumerGroup
from fastlog.coordinator.consumer_heartbeat import Heartbeats
from fastlog.coordinator.consumer_records import group_tombstones
from fastlog.coordinator.consumers import Consumers
from fastlog.coordinator.joining import Joining
from fastlog.coordinator.membership import Membership
from fastlog.coordinator.migration import Migration
from fastlog.coordinator.offsets import Offsets, are_commits
from fastlog.coordinator.operation import Client, Environment, Result, Run
from fastlog.coordinator.rebalance import Rebalancer
from fastlog.coordinator.records import ConsumerRecord, CoordinatorRecord, GroupRecord, OffsetRecord, decode, encode
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlog.coordinator.ports import StandingAnswer

log = logging.getLogger("fastlog.groups")


class Shard:
    """Pure state. Requests go to its parts; records come back through `replay`, from a running log and from a loaded one alike."""

    def __init__(self, environment: Environment, run: Run) -> None:
        self._metrics = environment.metrics
        self._rebalancer = Rebalancer(environment, run)
        self.groups = self._rebalancer.groups
        self.joining = Joining(self._rebalancer)
        self.membership = Membership(self._rebalancer)
        self.consumers = Consumers(environment, run, self._rebalancer)
        self.consumers.migration = Migration(self.consumers, self._rebalancer)
        self.heartbeats = Heartbeats(self.consumers)
        self.classic_members = ClassicMembers(self.consumers, self.heartbeats)
        self.offsets = Offsets(self._rebalancer, self.consumers)

    @property
    def group_count(self) -> int:
        return len(self.groups) + len(self.consumers.groups)

    @property
    def member_count(self) -> int:
        groups: list[ClassicGroup | ConsumerGroup] = [*self.groups.values(), *self.consumers.groups.values()]
        return sum(len(group.members) for group in groups)

    # -- the classic protocol, to a group of either kind ----------------------------------------------------------------------------

    def join(self, client: Client, request: Message, reply: Reply) -> Result:
        group = self.consumers.groups.get(request["group_id"])
        if group is None:
            return self.joining.join(client, request, reply)
        if group.members:
            return self.classic_members.join(client, group, request, reply)
        if group.doomed or request["member_id"]:
            error = Error.COORDINATOR_NOT_AVAILABLE if group.doomed else Error.UNKNOWN_MEMBER_ID
            reply({"error_code": error, "member_id": request["member_id"]})
            return Result()
        # Nobody is in it: it makes room for a classic group.
        self.consumers.forget(group.group_id)
        result = self.joining.join(client, request, reply)
        return Result([*group_tombstones(group), *result.records], result.response, replay=False, done=result.done, at_once=True)

    def sync(self, request: Message, reply: Reply) -> Result:
        group = self.consumers.groups.get(request["group_id"])
        return self.membership.sync(request, reply) if group is None else self.classic_members.sync(group, request, reply)

    def heartbeat(self, request: Message) -> Error:
        group = self.consumers.groups.get(request["group_id"])
        return self.membership.heartbeat(request) if group is None else self.classic_members.heartbeat(group, request)

    def stand(self, request: Message) -> StandingAnswer | None:
        """Of a heartbeat of the classic protocol that was found good: its answer as one that stands, if it can. Not in groups that mix both
        protocols, which do not stay so."""
        group = self.groups.get(request["group_id"])
        return None if group is None else group.stand(request["member_id"])

    def leave(self, request: Message) -> Result:
        group = self.consumers.groups.get(request["group_id"])
        return self.membership.leave(request) if group is None else self.classic_members.leave(group, request)

    # -- the log, see StateMachine --------------------------------------------------------------------------------------------------

    def encode(self, records: Sequence[CoordinatorRecord]) -> list[tuple[bytes, bytes | None]]:
        return [encode(record) for record in records]

    def decode(self, key: bytes, value: bytes | None) -> CoordinatorRecord | None:
        return decode(key, value)

    def begin(self, records: Sequence[CoordinatorRecord]) -> None:
        self.offsets.begin(records)

    def end(self, records: Sequence[CoordinatorRecord]) -> None:
        self.offsets.end(records)

    def replay(self, record: CoordinatorRecord, offset: int = 0, producer_id: int = -1) -> None:
        if isinstance(record, OffsetRecord):
            self.offsets.replay(record, offset, producer_id)
        elif isinstance(record, ConsumerRecord):
            self.consumers.replay(record)
        else:
            self.consumers.forget(record.group)
            self.membership.replay(record)

    def replay_all(self, records: Sequence[CoordinatorRecord], offset: int, producer_id: int) -> None:
        if producer_id < 0 and are_commits(records):
            self.offsets.replay_commits(records, offset)
            return
        for index, record in enumerate(records, offset):
            self.replay(record, index, producer_id)

    def replay_marker(self, producer_id: int, commit: bool) -> None:
        self.offsets.end_transaction(producer_id, commit)

    def on_loaded(self) -> list[Result]:
        self.consumers.on_loaded()
        return self.membership.on_loaded()

    def summary(self) -> str:
        return f"{self.group_count} groups"

    # -- groups and offsets ---------------------------------------------------------------------------------------------------------

    def listed(self, states: set[str], types: set[str]) -> list[Message]:
        """ListGroups entries of the groups in these states and of these types (lower case; empty: all)."""
        return self.membership.listed(states, types) + self.consumers.listed(states, types)

    def delete_groups(self, group_ids: list[str]) -> Result:
        """DeleteGroups results in the response's `results`; the groups are dead at once, and gone when the log has it."""
        records: list[CoordinatorRecord] = []
        results: list[Message] = []
        doomed: list[ClassicGroup | ConsumerGroup] = []
        for group_id in group_ids:
            error = Error.NONE
            try:
                group = self.consumers.check_delete(group_id) or self.membership.check_delete(group_id)
            except KafkaError as failure:
                error = failure.code
            else:
                records += self.offsets.tombstones(group_id)
                records += self._doom(group)
                doomed.append(group)
            results.append({"group_id": group_id, "error_code": error})
        return Result(records, {"results": results}, done=partial(self._deleted, doomed, False))

    def delete_topic(self, topic: str) -> Result:
        """Deletes all offsets of a topic that is gone."""
        return Result(self.offsets.tombstones_of_topic(topic), divisible=True)

    def sweep(self) -> Result:
        """Deletes offsets whose retention is over, and empty groups without any."""
        records: list[CoordinatorRecord] = []
        doomed: list[ClassicGroup | ConsumerGroup] = []
        for consumer_group in self.consumers.groups.values():
            if consumer_group.doomed:
                continue
            expired, nothing_left = self.offsets.expire(consumer_group)
            records += expired
            if nothing_left and not consumer_group.members:
                records += self._doom(consumer_group)
                doomed.append(consumer_group)
        for group in list(self.groups.values()):
            if group.state is State.DEAD:
                continue
            expired, nothing_left = self.offsets.expire(group)
            records += expired
            if not nothing_left or group.state is not State.EMPTY or group.pending_joins:
                continue
            if expired or group.stored:
                records += self._doom(group)
                doomed.append(group)
            else:
                # Nothing of it is in the log: it came with a request that led to nothing.
                del self.groups[group.group_id]
                group.disarm()
        if records:
            log.info("%d records delete expired offsets, and %d groups", len(records), len(doomed))
        return Result(records, done=partial(self._deleted, doomed, True), divisible=True)

    def unload(self) -> None:
        """Forgets everything; whoever waits is told that this is not the coordinator (any more)."""
        self.membership.unload()
        self.consumers.unload()
        self.offsets.unload()

    def _doom(self, group: ClassicGroup | ConsumerGroup) -> list[CoordinatorRecord]:
        """From here on a group does not change, so that nobody is in it when it goes. The records that end it."""
        if isinstance(group, ConsumerGroup):
            self.consumers.revoke_standing(group.group_id)
            group.doomed = True
            return [*group_tombstones(group)]
        group.die()
        return [GroupRecord(group.group_id, None)]

    def _deleted(self, doomed: list[ClassicGroup | ConsumerGroup], expired: bool, error: Error) -> None:
        """How the deletion ended; groups that are still there live on."""
        gone = 0
        for group in doomed:
            if isinstance(group, ConsumerGroup):
                group.doomed = False
                gone += self.consumers.groups.get(group.group_id) is not group
            elif self.groups.get(group.group_id) is group:
                group.state = group.previous_state
            else:
                gone += 1
        if expired:
            self._metrics.groups_expired += gone
        else:
            self._metrics.groups_deleted += gone
        if error is not Error.NONE:
            log.warning("%d of %d groups could not be deleted: %s", len(doomed) - gone, len(doomed), error.name)
