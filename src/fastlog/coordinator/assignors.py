"""Which member of a consumer group should own which partitions: Kafka's two server-side assignors (KIP-848), equal in
balance and stickiness.

`uniform` spreads partitions evenly over all topics together and moves as few as it can; `range` gives each member neighbouring partitions
of every topic, the same ones of topics with the same number of partitions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from uuid import UUID

Assignment: TypeAlias = "Mapping[UUID, frozenset[int]]"
"""Partitions by topic id; no topic without any."""

_PASSES_MAX: Final = 16  # over all topics, while members of unlike subscriptions are balanced


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member to be assigned to. `topics`: the ids it is subscribed to, all of which exist. `before`: its assignment until now."""

    topics: frozenset[UUID]
    instance_id: str | None
    before: Assignment


Candidates: TypeAlias = Mapping[str, Candidate]
Assignor: TypeAlias = "Callable[[Candidates, Mapping[UUID, int]], dict[str, Assignment]]"
"""From the members and the number of partitions of every topic that anybody is subscribed to, to everybody's assignment."""


def assign_range(members: Candidates, partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    """Static members come first, by their instance id, so that they keep their ranges over restarts."""

    def order(member_id: str) -> tuple[bool, str]:
        instance_id = members[member_id].instance_id
        return instance_id is None, member_id if instance_id is None else instance_id

    given: dict[str, dict[UUID, frozenset[int]]] = {member_id: {} for member_id in members}
    subscribers: dict[UUID, list[str]] = {topic: [] for topic in partitions}
    for member_id in sorted(members, key=order):
        for topic in members[member_id].topics:
            subscribers[topic].append(member_id)
    for topic, member_ids in subscribers.items():
        if not member_ids:
            continue
        each, more = divmod(partitions[topic], len(member_ids))
        start = 0
        for position, member_id in enumerate(member_ids):
            end = start + each + (position < more)
            if start < end:
                given[member_id][topic] = frozenset(range(start, end))
            start = end
    return dict(given)


def assign_uniform(members: Candidates, partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    if not members:
        return {}
    subscriptions = {member.topics for member in members.values()}
    return _even(members, partitions) if len(subscriptions) == 1 else _Balancer(members, partitions).run()


def _even(members: Candidates, partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    """All are subscribed to the same topics: everybody gets its share, some one more, and keeps what it had as far as that goes."""
    topics = next(iter(members.values())).topics
    owned: dict[UUID, set[int]] = {topic: set() for topic in topics}
    for member in members.values():
        for topic in member.before.keys() & topics:
            owned[topic] |= member.before[topic]
    free = [(topic, index) for topic in topics for index in range(partitions[topic]) if index not in owned[topic]]
    share, extras = divmod(sum(partitions[topic] for topic in topics), len(members))
    given: dict[str, Assignment] = {}
    unfilled: list[tuple[str, int]] = []
    for position, (member_id, member) in enumerate(members.items()):
        extra = extras > 0
        room = share + extra
        kept: dict[UUID, frozenset[int]] = {}
        for topic, indexes in member.before.items():
            if topic not in topics:
                continue
            if len(indexes) <= room:
                kept[topic] = indexes
                room -= len(indexes)
                continue
            ordered = sorted(indexes)
            if room:
                kept[topic] = frozenset(ordered[:room])
            free += [(topic, index) for index in ordered[room:]]
            room = 0
        if room and extra and len(members) - position > extras:
            # One of those behind may own enough already to make use of it.
            room -= 1
            extra = False
        if room:
            unfilled.append((member_id, room))
        extras -= extra
        given[member_id] = kept
    taken = 0
    for member_id, room in unfilled:
        more: dict[UUID, set[int]] = {}
        for topic, index in free[taken : taken + room]:
            more.setdefault(topic, set()).add(index)
        taken += room
        kept = dict(given[member_id])
        for topic, indexes_more in more.items():
            kept[topic] = kept.get(topic, frozenset()) | indexes_more
        given[member_id] = kept
    assert taken >= len(free)
    return given


class _Balancer:
    """Members with unlike subscriptions: what is free goes to whoever has least, then partitions move from the most loaded to the least."""

    def __init__(self, members: Candidates, partitions: Mapping[UUID, int]) -> None:
        self._ids = list(members)
        self._partitions = partitions
        self._sizes = [0] * len(self._ids)
        self._subscribers: dict[UUID, list[int]] = {}
        self._owners: dict[UUID, list[int]] = {}
        for member, candidate in enumerate(members.values()):
            for topic in candidate.topics:
                self._subscribers.setdefault(topic, []).append(member)
                if topic not in self._owners:
                    self._owners[topic] = [-1] * partitions[topic]
        for member, candidate in enumerate(members.values()):
            for topic in candidate.before.keys() & candidate.topics:
                for index in candidate.before[topic]:
                    self._owners[topic][index] = member
                self._sizes[member] += len(candidate.before[topic])

    def run(self) -> dict[str, Assignment]:
        # Those with most partitions for each subscriber first, then those with fewest subscribers: they leave the least choice.
        topics = sorted(
            self._subscribers,
            key=lambda topic: (-self._partitions[topic] / len(self._subscribers[topic]), len(self._subscribers[topic]), topic.bytes),
        )
        for topic in topics:
            self._fill(topic)
        self._balance([topic for topic in topics if len(self._subscribers[topic]) > 1])
        found: list[dict[UUID, set[int]]] = [{} for _ in self._ids]
        for topic, owners in self._owners.items():
            for index, member in enumerate(owners):
                found[member].setdefault(topic, set()).add(index)
        return {
            member_id: {topic: frozenset(indexes) for topic, indexes in given.items()}
            for member_id, given in zip(self._ids, found, strict=True)
        }

    def _fill(self, topic: UUID) -> None:
        """Gives the topic's free partitions away."""
        owners = self._owners[topic]
        free = [index for index, owner in enumerate(owners) if owner < 0]
        if not free:
            return
        loads = [(self._sizes[member], member) for member in self._subscribers[topic]]
        heapq.heapify(loads)
        for index in free:
            size, member = loads[0]
            owners[index] = member
            self._sizes[member] += 1
            heapq.heapreplace(loads, (size + 1, member))

    def _balance(self, topics: list[UUID]) -> None:
        """Topic after topic, until a whole round changes nothing."""
        last = 0
        for turn in range(_PASSES_MAX):
            for at, topic in enumerate(topics):
                if turn and at == last:
                    return
                if self._balance_topic(topic):
                    last = at

    def _balance_topic(self, topic: UUID) -> bool:
        """Whether a partition of it changed hands."""
        owners = self._owners[topic]
        subscribers = self._subscribers[topic]
        sizes = self._sizes
        if max(sizes[member] for member in subscribers) - min(sizes[member] for member in subscribers) <= 1:
            return False
        owned: dict[int, list[int]] = {}
        for index, owner in enumerate(owners):
            owned.setdefault(owner, []).append(index)
        least = [(sizes[member], member) for member in subscribers]
        most = [(-sizes[member], -member) for member in owned]
        heapq.heapify(least)
        heapq.heapify(most)
        changed = False
        while most:
            giver, taker = -most[0][1], least[0][1]
            if -most[0][0] != sizes[giver]:
                heapq.heapreplace(most, (-sizes[giver], -giver))  # it took something meanwhile
                continue
            if least[0][0] != sizes[taker]:
                heapq.heappop(least)  # an older entry
                continue
            if sizes[giver] - sizes[taker] <= 1:
                break
            if not owned[giver]:
                heapq.heappop(most)
                continue
            owners[owned[giver].pop()] = taker
            sizes[giver] -= 1
            sizes[taker] += 1
            heapq.heapreplace(most, (-sizes[giver], -giver))
            heapq.heapreplace(least, (sizes[taker], taker))
            heapq.heappush(least, (sizes[giver], giver))  # its older entry is too high now, and would hide it
            changed = True
        return changed


ASSIGNORS: Final[dict[str, Assignor]] = {"uniform": assign_uniform, "range": assign_range}
"""By the name that members ask for; the first of `group.consumer.assignors` is a group's when none asks."""
