"""How a group's leader shares partitions out: Kafka's range and roundrobin, by their definitions in the Java client."""

from collections.abc import Mapping, Sequence

Shares = dict[str, list[tuple[str, int]]]


def _member_order(members: Mapping[str, tuple[Sequence[str], str | None]]) -> list[str]:
    """Static members by their instance id, before the others by member id (KIP-345)."""
    return sorted(members, key=lambda m: (members[m][1] is None, members[m][1] or m))


def assign_range(members: Mapping[str, tuple[Sequence[str], str | None]], partitions: Mapping[str, int]) -> Shares:
    """Each topic's partitions in runs. `members`: member id -> (topics, instance id); `partitions`: how many each topic has."""
    made: Shares = {m: [] for m in members}
    order = _member_order(members)
    for topic in sorted({t for topics, _ in members.values() for t in topics}):
        takers = [m for m in order if topic in members[m][0]]
        each, more = divmod(partitions.get(topic, 0), len(takers))
        at = 0
        for i, member in enumerate(takers):
            n = each + (i < more)
            made[member] += [(topic, p) for p in range(at, at + n)]
            at += n
    return made


def assign_roundrobin(members: Mapping[str, tuple[Sequence[str], str | None]], partitions: Mapping[str, int]) -> Shares:
    """All partitions in turn to the members that read their topics."""
    made: Shares = {m: [] for m in members}
    order = _member_order(members)
    at = 0
    for topic in sorted({t for topics, _ in members.values() for t in topics}):
        for number in range(partitions.get(topic, 0)):
            while topic not in members[order[at % len(order)]][0]:
                at += 1
            made[order[at % len(order)]].append((topic, number))
            at += 1
    return made


ASSIGNORS = {"range": assign_range, "roundrobin": assign_roundrobin}
