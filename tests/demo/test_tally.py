"""Counting what a group read when one of its members died."""

from examples.flights.tally import Span, Tally


def span(start: int, end: int) -> Span:
    """A span whose records count one each, and whose checksum is the sum of their offsets."""
    return Span(start, end, end - start, 0, 0, sum(range(start, end)))


def test_members_that_hand_over_cleanly() -> None:
    tally = Tally()
    for start, end in ((0, 10), (10, 25), (25, 100)):
        tally.add(0, span(start, end))
    tally.add(1, span(0, 7))
    assert (tally.count, tally.again) == (107, 0)
    assert tally.checksum == sum(range(100)) + sum(range(7))
    assert tally.end(0) == 100
    assert tally.end(2) == 0


def test_what_a_dead_member_had_not_committed_counts_once() -> None:
    tally = Tally()
    tally.add(0, span(0, 10))
    tally.add(0, span(10, 30))  # told, but the member died before the commit
    tally.add(0, span(10, 18))  # its successor reads from the last commit
    tally.add(0, span(18, 50))
    assert (tally.count, tally.again) == (50, 20)
    assert tally.checksum == sum(range(50))


def test_a_gap_ends_the_count() -> None:
    tally = Tally()
    tally.add(0, span(0, 10))
    tally.add(0, span(20, 30))
    assert tally.count == 10
