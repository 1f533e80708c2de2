"""What an operator can set about groups and offsets, under Kafka's names (group coordinator configs of Kafka 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INT32_MAX: Final = 2**31 - 1
ASSIGNOR_CLASSES: Final = {
    "org.apache.kafka.coordinator.group.assignor.UniformAssignor": "uniform",
    "org.apache.kafka.coordinator.group.assignor.RangeAssignor": "range",
}
"""How Kafka's configuration files may name the assignors."""


def number_of(values: Mapping[str, Any], name: str, default: int) -> int:
    """A broker config by Kafka's name, or the default where it is not given."""
    value = values.get(name)
    return default if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in milliseconds, sizes in bytes unless a name says otherwise."""

    session_min_ms: int = 6_000
    session_max_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    group_size_max: int = INT32_MAX  # members
    consumer_session_ms: int = 45_000
    consumer_heartbeat_ms: int = 5_000
    consumer_settling_ms: int = 1_000  # between heartbeats of a group that has not come to rest
    consumer_group_size_max: int = INT32_MAX  # members
    consumer_assignors: tuple[str, ...] = ("uniform", "range")  # the first is a group's whose members ask for none
    consumer_migration: str = "bidirectional"  # which online changes of a group's protocol are allowed
    consumer_assignment_interval_ms: int = 1_000  # between two target assignments of a group
    consumer_regex_refresh_ms: int = 600_000
    new_member_join_ms: int = 300_000  # a member that joins for the first time can't heartbeat: how long its JoinGroup may wait
    metadata_size_max: int = 4_096
    retention_ms: int = 7 * 24 * 60 * 60_000
    retention_check_ms: int = 600_000
    commit_ms: int = 5_000
    load_buffer_size: int = 5 * 1024 * 1024
    topic_partitions: int = 50
    topic_segment_size: int = 100 * 1024 * 1024
    batch_size_max: int = 1_048_588  # of a record batch in __consumer_offsets

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """From broker configs by Kafka's name; those that `values` has not keep Kafka's default."""
        number = partial(number_of, values)
        d = cls()
        return cls(
            session_min_ms=number("group.min.session.timeout.ms", d.session_min_ms),
            session_max_ms=number("group.max.session.timeout.ms", d.session_max_ms),
            initial_rebalance_delay_ms=number("group.initial.rebalance.delay.ms", d.initial_rebalance_delay_ms),
            group_size_max=number("group.max.size", d.group_size_max),
            consumer_session_ms=number("group.consumer.session.timeout.ms", d.consumer_session_ms),
            consumer_heartbeat_ms=number("group.consumer.heartbeat.interval.ms", d.consumer_heartbeat_ms),
            consumer_settling_ms=number("fastlog.group.consumer.settling.heartbeat.interval.ms", d.consumer_settling_ms),
            consumer_group_size_max=number("group.consumer.max.size", d.consumer_group_size_max),
            consumer_assignors=_assignors(values.get("group.consumer.assignors")) or d.consumer_assignors,
            consumer_migration=str(values.get("group.consumer.migration.policy") or d.consumer_migration).lower(),
            consumer_assignment_interval_ms=number("group.consumer.assignment.interval.ms", d.consumer_assignment_interval_ms),
            metadata_size_max=number("offset.metadata.max.bytes", d.metadata_size_max),
            retention_ms=number("offsets.retention.minutes", d.retention_ms // 60_000) * 60_000,
            retention_check_ms=number("offsets.retention.check.interval.ms", d.retention_check_ms),
            commit_ms=number("offsets.commit.timeout.ms", d.commit_ms),
            load_buffer_size=number("offsets.load.buffer.size", d.load_buffer_size),
            topic_partitions=number("offsets.topic.num.partitions", d.topic_partitions),
            topic_segment_size=number("offsets.topic.segment.bytes", d.topic_segment_size),
            batch_size_max=number("message.max.bytes", d.batch_size_max),
        )


@dataclass(frozen=True, slots=True)
class OfGroup:
    """What a consumer group may set for itself. Times in milliseconds."""

    session_ms: int
    heartbeat_ms: int
    assignment_interval_ms: int


class GroupSettings:
    """What counts for each consumer group: its own settings, else the broker's."""

    def __init__(self, settings: Settings, value: Callable[[str, str], int] | None = None) -> None:
        """`value`: of a group's setting, by Kafka's name; None: no group sets anything."""
        self._default = OfGroup(settings.consumer_session_ms, settings.consumer_heartbeat_ms, settings.consumer_assignment_interval_ms)
        self._value = value
        self._known: dict[str, OfGroup] = {}

    def of(self, group_id: str) -> OfGroup:
        value = self._value
        if value is None:
            return self._default
        known = self._known.get(group_id)
        if known is None:
            known = self._known[group_id] = OfGroup(
                value(group_id, "consumer.session.timeout.ms"),
                value(group_id, "consumer.heartbeat.interval.ms"),
                value(group_id, "consumer.assignment.interval.ms"),
            )
        return known

    def forget(self) -> None:
        """Somebody changed something."""
        self._known.clear()


def _assignors(given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of assignors from names or names of Kafka's classes."""
    return tuple(ASSIGNOR_CLASSES.get(name, name) for name in given or ())
