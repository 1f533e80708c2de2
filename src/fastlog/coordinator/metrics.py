"""Counters of the group coordinator since start, and nothing else: plain integers that anyone may read at any time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Metrics:
    """Counts of events unless a name says otherwise."""

    joins: int = 0  # JoinGroup requests that reached a group
    syncs: int = 0
    heartbeats: int = 0
    leaves: int = 0  # members that left by themselves
    members_expired: int = 0  # members removed: no heartbeat, no rejoin or no sync in time
    members_fenced: int = 0  # static members replaced by a newer instance
    rebalances_started: int = 0
    rebalances_completed: int = 0
    offset_commits: int = 0  # partitions
    offset_fetches: int = 0  # partitions
    offset_deletions: int = 0  # partitions
    offsets_expired: int = 0  # partitions
    groups_deleted: int = 0
    groups_expired: int = 0
    append_batches: int = 0
    append_records: int = 0
    append_bytes: int = 0
    append_errors: int = 0
    loads: int = 0  # partitions of __consumer_offsets
    load_errors: int = 0
    load_records: int = 0
    load_records_skipped: int = 0  # of kinds this coordinator does not know, or unreadable
    load_ms: int = 0  # time of all loads together
