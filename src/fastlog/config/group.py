"""The settings of a group (KIP-848, KIP-932, KIP-1071): all of Kafka 4.3's. What a group does not set counts as the broker has it.

Those of share and streams groups, which are not served, are kept and shown.
"""

from __future__ import annotations

import re
from typing import Any, Final

from fastlog.config.keys import Key, Type, invalid, one_of

_SHARE: Final = " Kept and shown; without effect: share groups are not served."
_BY_DURATION: Final = re.compile(r"by_duration:P(?=\d|T\d)(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d{1,9})?S)?)?", re.IGNORECASE)
_STREAMS: Final = " Kept and shown; without effect: the streams group protocol is not served."


def _start_of_share_group(name: str, value: Any) -> None:
    if value not in ("earliest", "latest") and not _BY_DURATION.fullmatch(value):
        why = (
            f"Invalid value `{value}` for configuration {name}. The value must be either 'earliest', 'latest' or of the format "
            "'by_duration:<PnDTnHnMn.nS>'."
        )
        raise invalid(name, value, why)


def _of_broker(name: str, default: str, doc: str) -> Key:
    """A setting that the broker has for all groups under "group." and the same name."""
    return Key(name, Type.INT, default, doc, None, ((f"group.{name}", 1),))


_KEYS: Final = (
    _of_broker("consumer.assignment.interval.ms", "1000", "Shortest time between two assignments that the broker makes for the group."),
    _of_broker("consumer.heartbeat.interval.ms", "5000", "How often the group's members are told to send a heartbeat."),
    _of_broker("consumer.session.timeout.ms", "45000", "A member that sent no heartbeat for so long is out of the group."),
    _of_broker("share.assignment.interval.ms", "1000", "Shortest time between two assignments." + _SHARE),
    Key("share.auto.offset.reset", Type.STRING, "latest", "Where a share group begins." + _SHARE, _start_of_share_group),
    _of_broker("share.delivery.count.limit", "5", "Most times that a record is delivered." + _SHARE),
    _of_broker("share.heartbeat.interval.ms", "5000", "How often members send a heartbeat." + _SHARE),
    Key(
        "share.isolation.level",
        Type.STRING,
        "read_uncommitted",
        "Whether records of open transactions are delivered." + _SHARE,
        one_of("read_committed", "read_uncommitted"),
    ),
    _of_broker("share.partition.max.record.locks", "2000", "Most records of a partition that are locked at once." + _SHARE),
    _of_broker("share.record.lock.duration.ms", "30000", "How long a delivered record stays locked." + _SHARE),
    Key("share.renew.acknowledge.enable", Type.BOOLEAN, "true", "Whether a lock can be renewed." + _SHARE),
    _of_broker("share.session.timeout.ms", "45000", "A member that sent no heartbeat for so long is out." + _SHARE),
    _of_broker("streams.assignment.interval.ms", "1000", "Shortest time between two assignments." + _STREAMS),
    _of_broker("streams.heartbeat.interval.ms", "5000", "How often members send a heartbeat." + _STREAMS),
    _of_broker("streams.initial.rebalance.delay.ms", "3000", "How long a new group waits for more members." + _STREAMS),
    _of_broker("streams.num.standby.replicas", "0", "Standby replicas of each task." + _STREAMS),
    _of_broker("streams.session.timeout.ms", "45000", "A member that sent no heartbeat for so long is out." + _STREAMS),
)

GROUP_KEYS: Final[dict[str, Key]] = {key.name: key for key in _KEYS}
BOUNDED: Final = {
    "consumer.assignment.interval.ms": ("group.consumer.min.assignment.interval.ms", "group.consumer.max.assignment.interval.ms"),
    "consumer.heartbeat.interval.ms": ("group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"),
    "consumer.session.timeout.ms": ("group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
    "share.assignment.interval.ms": ("group.share.min.assignment.interval.ms", "group.share.max.assignment.interval.ms"),
    "share.delivery.count.limit": ("group.share.min.delivery.count.limit", "group.share.max.delivery.count.limit"),
    "share.heartbeat.interval.ms": ("group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"),
    "share.partition.max.record.locks": ("group.share.min.partition.max.record.locks", "group.share.max.partition.max.record.locks"),
    "share.record.lock.duration.ms": ("group.share.min.record.lock.duration.ms", "group.share.max.record.lock.duration.ms"),
    "share.session.timeout.ms": ("group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"),
    "streams.assignment.interval.ms": ("group.streams.min.assignment.interval.ms", "group.streams.max.assignment.interval.ms"),
    "streams.heartbeat.interval.ms": ("group.streams.min.heartbeat.interval.ms", "group.streams.max.heartbeat.interval.ms"),
    "streams.session.timeout.ms": ("group.streams.min.session.timeout.ms", "group.streams.max.session.timeout.ms"),
}
"""Settings that must lie between two of the broker's."""
