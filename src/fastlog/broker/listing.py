"""Topics and partitions as Metadata and DescribeTopicPartitions show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastlog.protocol.errors import Error

if TYPE_CHECKING:
    from fastlog.broker.context import Context
    from fastlog.broker.partitions import Topic

NO_ID: Final = UUID(int=0)
NOT_ASKED: Final = -(2**31)
TOPIC_OPERATIONS: Final = 3576
"""Bits of AclOperation: all that can be done to a topic, as everybody may while there is no authorizer."""
CLUSTER_OPERATIONS: Final = 8096
"""The same for the cluster."""
LISTING_AGE_MAX_MS: Final = 1000
"""How late a partition that failed is shown as offline."""


def partitions_of(ctx: Context, topic: Topic) -> list[dict[str, Any]]:
    """The partitions of a topic as Metadata shows them. Kept for a moment: don't change it."""
    now = ctx.clock.monotonic_ms()
    if topic.listed_ms is None or now - topic.listed_ms > LISTING_AGE_MAX_MS:
        topic.listing = [_partition(ctx, topic, index) for index in range(topic.partition_count)]
        topic.listed_ms = now
    return topic.listing


def _partition(ctx: Context, topic: Topic, index: int) -> dict[str, Any]:
    partition = topic.partitions[index]
    node = ctx.cluster.node_id
    at = ctx.plane.positions(topic.topic_id, index)
    offline = at is None or at.offline != 0
    return {
        # as Kafka shows a partition whose only replica is on a failed disk: it has no leader
        "error_code": Error.LEADER_NOT_AVAILABLE if offline else Error.NONE,
        "partition_index": index,
        "leader_id": -1 if offline else node,
        "leader_epoch": partition.epoch,
        "replica_nodes": [node],
        "isr_nodes": [node],
        "offline_replicas": [node] if offline else [],
    }
