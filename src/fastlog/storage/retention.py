"""Which old segments a partition may drop: Kafka's rules for cleanup.policy=delete.

Whole segments go, from the oldest on, each for one of two reasons: all of its records are older than retention.ms, or the log without
it still has retention.bytes. The newest segment goes only when everything in the log is too old.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass
from typing import Final

_SEGMENT: Final = re.compile(r"([0-9]{20})\.log")


@dataclass(frozen=True, slots=True)
class Segment:
    base_offset: int
    bytes: int
    """Of its file. That of the newest one has zeroes at its end, and counts for nothing here."""


def list_segments(directory: str) -> list[Segment]:
    """The segments of a partition, oldest first. Blocks. Raises OSError."""
    with os.scandir(directory) as entries:
        named = [(int(match[1]), entry) for entry in entries if (match := _SEGMENT.fullmatch(entry.name)) is not None]
    found = []
    for base_offset, entry in named:
        with contextlib.suppress(FileNotFoundError):  # it was dropped just now
            found.append(Segment(base_offset, entry.stat().st_size))
    return sorted(found, key=lambda segment: segment.base_offset)


def first_kept(segments: list[Segment], log_bytes: int, high_watermark: int, first_young: int | None, bytes_max: int) -> int:
    """The offset from which on the log is kept; 0 when nothing goes.

    `first_young`: the first record that is not too old, -1 when all are, None when age does not matter. `bytes_max`: -1 for no limit.
    """
    if first_young == -1:
        return high_watermark
    kept = 0
    for segment, following in itertools.pairwise(segments):
        if following.base_offset > high_watermark:
            break  # not all of it is visible yet
        old = first_young is not None and following.base_offset <= first_young
        log_bytes -= segment.bytes
        if not old and not 0 <= bytes_max <= log_bytes:
            break
        kept = following.base_offset
    return kept
