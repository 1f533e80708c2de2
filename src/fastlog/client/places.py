"""Where a consumer reads on: offsets that leaders are asked for, positions that are not there any more, logs that were cut."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastlog._core import ConsumerCore
from fastlog.client.checks import checked_places
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for, truncated
from fastlog.client.logs import WARNING, say
from fastlog.client.records import OffsetAndTimestamp, Partition, TopicPartition

if TYPE_CHECKING:
    from fastlog.protocol.messages import Message

EARLIEST, LATEST = -2, -1
OFFSET_OUT_OF_RANGE, CORRUPT, DIVERGED = 1, -110, -111


class Places:
    """Of one consumer. In the user's thread."""

    def __init__(self, core: ConsumerCore, cluster: Cluster, settings: Mapping[str, Any]) -> None:
        self._core = core
        self._cluster = cluster
        self._reset_to: str = settings["auto_offset_reset"]
        self._committed_only = settings["isolation_level"] == "read_committed"
        self._timeout_s = settings["request_timeout_ms"] / 1000

    def find(self, wanted: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndTimestamp]:
        """The first record at or after a time, or EARLIEST or LATEST, in each partition. Raises ClientError, TypeError or ValueError."""
        found = self._ask(checked_places(wanted))
        return {TopicPartition(*p): OffsetAndTimestamp(e["offset"], e["timestamp"]) for p, e in found.items()}

    def _ask(self, wanted: Mapping[TopicPartition, int]) -> dict[Partition, "Message"]:
        if not wanted:
            return {}
        entries = {p: {"partition_index": p.partition, "timestamp": when} for p, when in wanted.items()}
        wrap = {"replica_id": -1, "isolation_level": 1 if self._committed_only else 0}
        return self._cluster.call_by_leader("ListOffsets", entries, wrap, "find the offset in", timeout_s=self._timeout_s)

    def seek_to(self, where: int, partitions: Iterable[Partition]) -> None:
        """To EARLIEST or LATEST."""
        for (topic, number), found in self._ask(checked_places(dict.fromkeys(partitions, where))).items():
            self._core._seek(topic, number, found["offset"], found["leader_epoch"])

    def reset(self, partitions: list[Partition]) -> None:
        """To where auto_offset_reset says. Raises OffsetOutOfRangeError where that is "none"."""
        if not partitions:
            return
        if self._reset_to == "none":
            raise error_for(OFFSET_OUT_OF_RANGE, f"{partitions[0][0]} [{partitions[0][1]}]", 'no position, and auto_offset_reset is "none"')
        self.seek_to(EARLIEST if self._reset_to == "earliest" else LATEST, partitions)

    def deal_with(self, topic: str, number: int, code: int, offset: int) -> None:
        """What the core could not read: goes on elsewhere, tries again, or raises the error."""
        if code == OFFSET_OUT_OF_RANGE and self._reset_to != "none":
            text = "%s [%d]: offset %d is not there; going on at the %s"
            say(WARNING, text, topic, number, offset, self._reset_to, topic=topic, partition=number)
            self.reset([(topic, number)])
            return
        if code == DIVERGED:
            self._go_back(topic, number)
            return
        what = f"read {topic} [{number}] at offset {offset}"
        if code == CORRUPT:
            raise error_for(2, what, "the broker sent a batch that can't be read; seek past it to go on")
        if code > 0 and error_for(code, what).retriable:
            self._core._forgive(topic, number)
            return
        raise error_for(code, what)

    def _go_back(self, topic: str, number: int) -> None:
        """The leader's log is not the one that was fetched."""
        state = self._core._state(topic, number)
        position, parted = state["position"], state["parted"]
        if position != state["fetched"]:  # what was fetched ahead is dropped; then it is asked for what was read
            self._core._seek(topic, number, position, state["taken_epoch"])
            return
        if self._reset_to == "none":
            raise truncated(TopicPartition(topic, number), position, parted if parted >= 0 else None)
        text = "%s [%d]: the log was cut: records up to offset %d were read, and some are no more; going on at %s"
        where = f"offset {parted}" if parted >= 0 else f"the {self._reset_to}"
        say(WARNING, text, topic, number, position, where, topic=topic, partition=number)
        if parted >= 0:
            self._core._seek(topic, number, parted, state["parted_epoch"])
        else:
            self.reset([(topic, number)])
