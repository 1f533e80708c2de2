"""How partitions are shared out: even, without needless moves, and as other clients write down what they had."""

import random
import struct

import pytest

from fastlog.client.assignors import ASSIGNORS, Member, assign_cooperative, assign_sticky, owners
from fastlog.client.classic import read_sticky_data, sticky_data
from fastlog.client.records import Partition

TOPICS = {"a": 7, "b": 1, "c": 12, "gone": 0}


def loads_are_even(members: dict[str, Member], shares: dict[str, list[Partition]]) -> bool:
    """No partition could go to a member that has at least two fewer."""
    return not any(
        len(shares[giver]) - len(shares[taker]) >= 2 and any(topic in members[taker].topics for topic, _ in shares[giver])
        for giver in members
        for taker in members
    )


@pytest.mark.parametrize("strategy", ASSIGNORS)
@pytest.mark.parametrize("seed", range(20))
def test_everything_is_given_to_one_who_reads_it(strategy: str, seed: int) -> None:
    chance = random.Random(seed)
    members = {f"m{i}": Member(chance.sample(sorted(TOPICS), chance.randint(1, 4))) for i in range(chance.randint(1, 6))}
    shares = ASSIGNORS[strategy](members, TOPICS)
    wanted = {t for m in members.values() for t in m.topics}
    assert sorted(at for found in shares.values() for at in found) == sorted((t, p) for t in wanted for p in range(TOPICS[t]))
    assert all(topic in members[name].topics for name, found in shares.items() for topic, _ in found)
    if "sticky" in strategy:
        assert loads_are_even(members, shares)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("alike", [True, False])
def test_sticky_moves_no_more_than_needed(seed: int, alike: bool) -> None:
    chance = random.Random(seed)

    def topics() -> list[str]:
        return sorted(TOPICS) if alike else chance.sample(sorted(TOPICS), chance.randint(1, 4))

    members = {f"m{i}": Member(topics()) for i in range(chance.randint(1, 6))}
    before = assign_sticky(members, TOPICS)
    again = {name: Member(m.topics, None, before[name], 1) for name, m in members.items()}
    assert assign_sticky(again, TOPICS) == before
    joined = {**again, "new": Member(topics())}
    after = assign_sticky(joined, TOPICS)
    assert loads_are_even(joined, after)
    if alike:
        total = sum(map(len, before.values()))
        moved = sum(len(set(before[m]) - set(after[m])) for m in before)
        assert moved == len(after["new"]) == total // len(joined)
    gone, *stay = sorted(again)
    if stay:
        after = assign_sticky({name: again[name] for name in stay}, TOPICS)
        if alike:
            assert all(set(before[name]) <= set(after[name]) for name in stay)
        assert gone not in after


def test_cooperative_gives_nothing_that_another_has() -> None:
    members = {"one": Member(["a"], None, [("a", p) for p in range(7)], 4), "two": Member(["a"])}
    first = assign_cooperative(members, TOPICS)
    assert len(first["one"]) == 4
    assert first["two"] == []
    members["one"] = Member(["a"], None, first["one"], 5)
    assert len(assign_cooperative(members, TOPICS)["two"]) == 3


def test_the_newer_generation_owns() -> None:
    one, two = ("a", 1), ("a", 2)
    assert owners({"x": Member(["a"], None, [one, two], 3), "y": Member(["a"], None, [one], 4)}) == {one: "y", two: "x"}
    assert owners({"x": Member(["a"], None, [one], 4), "y": Member(["a"], None, [one, two], 4)}) == {two: "y"}
    assert owners({"x": Member(["a"], None, [one]), "y": Member(["a"])}) == {one: "x"}


def test_what_the_sticky_assignor_remembers() -> None:
    had = [("a", 0), ("a", 5), ("long-name", 2)]
    written = sticky_data(had, 9)
    assert written.startswith(b"\0\0\0\2\0\1a\0\0\0\2\0\0\0\0\0\0\0\5")
    assert read_sticky_data(written) == (had, 9)
    assert read_sticky_data(written[:-4]) == (had, -1), "version 0"
    for junk in (b"", b"\0\0", b"\xff" * 40, b"\x7f\xff\xff\xff" + b"\0" * 12, struct.pack(">ihi", 1 << 30, -1, -3)):
        assert read_sticky_data(junk) == ([], -1)
