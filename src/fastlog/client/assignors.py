"""How a group's leader shares partitions out: range and roundrobin by their definitions in the Java client, and the sticky ones.

`sticky` and `cooperative-sticky` (KIP-54, KIP-429) keep what members have as far as the shares stay even: among members that could read the
same partitions no one has two more than another. The cooperative one never gives a partition to a member while another still has it: that
one lets go first, and the group shares out once more.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastlog.client.records import Partition

Shares = dict[str, list[Partition]]


@dataclass(frozen=True, slots=True)
class Member:
    """What a member says when it joins. `owned`: what it had in `generation` (-1: unknown)."""

    topics: Sequence[str]
    instance_id: str | None = None
    owned: Sequence[Partition] = field(default=())
    generation: int = -1


Members = Mapping[str, Member]


def _member_order(members: Members) -> list[str]:
    """Static members by their instance id, before the others by member id (KIP-345)."""
    return sorted(members, key=lambda m: (members[m].instance_id is None, members[m].instance_id or m))


def assign_range(members: Members, partitions: Mapping[str, int]) -> Shares:
    """Each topic's partitions in runs. `partitions`: how many each topic has."""
    made: Shares = {m: [] for m in members}
    order = _member_order(members)
    for topic in sorted({t for m in members.values() for t in m.topics}):
        takers = [m for m in order if topic in members[m].topics]
        each, more = divmod(partitions.get(topic, 0), len(takers))
        at = 0
        for i, member in enumerate(takers):
            n = each + (i < more)
            made[member] += [(topic, p) for p in range(at, at + n)]
            at += n
    return made


def assign_roundrobin(members: Members, partitions: Mapping[str, int]) -> Shares:
    """All partitions in turn to the members that read their topics."""
    made: Shares = {m: [] for m in members}
    order = _member_order(members)
    at = 0
    for topic in sorted({t for m in members.values() for t in m.topics}):
        for number in range(partitions.get(topic, 0)):
            while topic not in members[order[at % len(order)]].topics:
                at += 1
            made[order[at % len(order)]].append((topic, number))
            at += 1
    return made


def owners(members: Members) -> dict[Partition, str]:
    """Who has what. The newer generation counts; where two of the same one say that they have a partition, nobody has."""
    newest: dict[Partition, int] = {}
    made: dict[Partition, str | None] = {}
    for name in sorted(members):
        member = members[name]
        for at in member.owned:
            if member.generation > newest.get(at, -2):
                newest[at], made[at] = member.generation, name
            elif member.generation == newest[at] and made[at] != name:
                made[at] = None
    return {at: name for at, name in made.items() if name is not None}


def assign_sticky(members: Members, partitions: Mapping[str, int]) -> Shares:
    """Even shares, with as few moves as that takes."""
    made: Shares = {m: [] for m in members}
    topics = {m: set(member.topics) for m, member in members.items()}
    everything = [(topic, p) for topic in sorted(set().union(*topics.values())) for p in range(partitions.get(topic, 0))]
    left = set(everything)
    for at, name in owners(members).items():
        if at in left and at[0] in topics[name]:
            made[name].append(at)
            left.discard(at)
    if len({frozenset(t) for t in topics.values()}) == 1:
        _trim(made, len(everything), left)
    takers = Counter(t for wanted in topics.values() for t in wanted)
    for at in sorted(left, key=lambda at: (takers[at[0]], at)):
        made[min((m for m in made if at[0] in topics[m]), key=lambda m: (len(made[m]), m))].append(at)
    _even_out(made, topics)
    return {m: sorted(found) for m, found in made.items()}


def _trim(made: Shares, total: int, left: set[Partition]) -> None:
    """Members that all read the same: takes away at once what is over the share of each."""
    each, more = divmod(total, len(made))
    for name in sorted(made, key=lambda m: (-len(made[m]), m)):
        most = each + (more > 0 and len(made[name]) > each)
        more -= most > each
        made[name].sort()
        left.update(made[name][most:])
        del made[name][most:]


def _even_out(made: Shares, topics: Mapping[str, set[str]]) -> None:
    """Moves partitions from who has more to who has at least two fewer, until nobody has. Each move makes the sum of squares less."""
    moved = True
    while moved:
        moved = False
        for taker in sorted(made, key=lambda m: (len(made[m]), m)):
            for giver in sorted(made, key=lambda m: (-len(made[m]), m)):
                if len(made[giver]) - len(made[taker]) < 2:
                    break
                at = next((i for i in range(len(made[giver]) - 1, -1, -1) if made[giver][i][0] in topics[taker]), -1)
                if at >= 0:
                    made[taker].append(made[giver].pop(at))
                    moved = True
                    break
            if moved:
                break


def assign_cooperative(members: Members, partitions: Mapping[str, int]) -> Shares:
    """As `assign_sticky`, without what others still have."""
    have = owners(members)
    return {name: [at for at in found if have.get(at, name) == name] for name, found in assign_sticky(members, partitions).items()}


ASSIGNORS: dict[str, Callable[[Members, Mapping[str, int]], Shares]] = {
    "range": assign_range,
    "roundrobin": assign_roundrobin,
    "sticky": assign_sticky,
    "cooperative-sticky": assign_cooperative,
}
