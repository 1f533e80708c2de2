"""The coordinator of one partition of `__consumer_offsets`: its groups and offsets, and what concerns both."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastlog.coordinator.classic import ClassicGroup, Message, State
from fastlog.coordinator.joining import Joining
from fastlog.coordinator.membership import Membership
from fastlog.coordinator.offsets import Offsets
from fastlog.coordinator.operation import Environment, Result, Run
from fastlog.coordinator.rebalance import Rebalancer
from fastlog.coordinator.records import CoordinatorRecord, GroupRecord, OffsetRecord, decode, encode
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("fastlog.groups")


class Shard:
    """Pure state. Requests go to its parts; records come back through `replay`, from a running log and from a loaded one alike."""

    def __init__(self, environment: Environment, run: Run) -> None:
        self._metrics = environment.metrics
        self._rebalancer = Rebalancer(environment, run)
        self.groups = self._rebalancer.groups
        self.joining = Joining(self._rebalancer)
        self.membership = Membership(self._rebalancer)
        self.offsets = Offsets(self._rebalancer)

    @property
    def member_count(self) -> int:
        return sum(len(group.members) for group in self.groups.values())

    # -- the log, see StateMachine --------------------------------------------------------------------------------------------------

    def encode(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        return encode(record)

    def decode(self, key: bytes, value: bytes | None) -> CoordinatorRecord | None:
        return decode(key, value)

    def begin(self, records: Sequence[CoordinatorRecord]) -> None:
        self.offsets.begin(records)

    def end(self, records: Sequence[CoordinatorRecord]) -> None:
        self.offsets.end(records)

    def replay(self, record: CoordinatorRecord, offset: int = 0, producer_id: int = -1) -> None:
        if isinstance(record, OffsetRecord):
            self.offsets.replay(record, offset, producer_id)
        else:
            self.membership.replay(record)

    def replay_marker(self, producer_id: int, commit: bool) -> None:
        self.offsets.end_transaction(producer_id, commit)

    def on_loaded(self) -> list[Result]:
        return self.membership.on_loaded()

    def summary(self) -> str:
        return f"{len(self.groups)} groups"

    # -- groups and offsets ---------------------------------------------------------------------------------------------------------

    def delete_groups(self, group_ids: list[str]) -> Result:
        """DeleteGroups results in the response's `results`; the groups are dead at once, and gone when the log has it."""
        records: list[CoordinatorRecord] = []
        results: list[Message] = []
        doomed: list[ClassicGroup] = []
        for group_id in group_ids:
            error = Error.NONE
            try:
                group = self.membership.check_delete(group_id)
            except KafkaError as failure:
                error = failure.code
            else:
                records += self.offsets.tombstones(group_id)
                records.append(GroupRecord(group_id, None))
                doomed.append(group)
                self._doom(group)
            results.append({"group_id": group_id, "error_code": error})
        return Result(records, {"results": results}, done=partial(self._deleted, doomed, False))

    def delete_topic(self, topic: str) -> Result:
        """Deletes all offsets of a topic that is gone."""
        return Result(self.offsets.tombstones_of_topic(topic), divisible=True)

    def sweep(self) -> Result:
        """Deletes offsets whose retention is over, and empty groups without any."""
        records: list[CoordinatorRecord] = []
        doomed: list[ClassicGroup] = []
        for group in list(self.groups.values()):
            if group.state is State.DEAD:
                continue
            expired, nothing_left = self.offsets.expire(group)
            records += expired
            if not nothing_left or group.state is not State.EMPTY or group.pending_joins:
                continue
            if expired or group.stored:
                records.append(GroupRecord(group.group_id, None))
                doomed.append(group)
                self._doom(group)
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
        self.offsets.unload()

    def _doom(self, group: ClassicGroup) -> None:
        """From here on a group does not change, so that nobody is in it when it goes."""
        group.previous_state = group.state
        group.state = State.DEAD

    def _deleted(self, doomed: list[ClassicGroup], expired: bool, error: Error) -> None:
        """How the deletion ended; groups that are still there live on."""
        gone = 0
        for group in doomed:
            if self.groups.get(group.group_id) is group:
                group.state = group.previous_state
            else:
                gone += 1
        if expired:
            self._metrics.groups_expired += gone
        else:
            self._metrics.groups_deleted += gone
        if error is not Error.NONE:
            log.warning("%d of %d groups could not be deleted: %s", len(doomed) - gone, len(doomed), error.name)
