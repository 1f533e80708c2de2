"""Records that tests send and compare: the awkward ones, and many."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

# A time of the past, so that a broker that stamps records by itself is found out.
EPOCH_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """A record as a client sees it. `timestamp`: milliseconds since the epoch."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = EPOCH_MS


def awkward() -> list[Event]:
    """Null, empty, binary, large and not-ASCII, each alone."""
    return [
        Event(None, b"no key"),
        Event(b"", b"empty key"),
        Event(b"empty value", b""),
        Event(b"no value", None),
        Event(bytes(range(256)), bytes(reversed(range(256)))),
        Event("Schlüssel".encode(), "значение 値 🚀".encode()),
        Event(b"headers", b"v", (("a", b"1"), ("a", b"again"), ("empty", b""), ("Ünïcode", bytes(range(256))))),
        Event(b"large", random.Random(1).randbytes(300_000)),
        Event(b"compressible", b"x" * 500_000),
    ]


def many(count: int, *, seed: int = 7, size: int = 100) -> list[Event]:
    """`count` records of random sizes up to `size` bytes, a tenth without a key, times rising by one millisecond."""
    rng = random.Random(seed)
    return [
        Event(
            None if rng.random() < 0.1 else b"key-%d" % rng.randrange(50),
            b"%d:" % i + rng.randbytes(rng.randrange(size)),
            timestamp=EPOCH_MS + i,
        )
        for i in range(count)
    ]


def by_key(events: Iterable[Event]) -> dict[bytes | None, list[Event]]:
    """The events of each key in order: what must be equal on both sides, as a key stays in one partition; those without any, sorted."""
    made: dict[bytes | None, list[Event]] = {}
    for event in events:
        made.setdefault(event.key, []).append(event)
    if None in made:
        made[None].sort(key=lambda e: (e.timestamp, e.value or b""))
    return made
