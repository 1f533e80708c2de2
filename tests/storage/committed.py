"""What a consumer that reads committed records makes of what a log answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.protocol.records import Batch, iter_batches
from tests.storage.build import split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def is_abort(control: Batch) -> bool:
    assert control.records[0].key is not None
    return control.records[0].key[:4] == b"\0\0\0\0"


def committed(found: bytes, aborted: Sequence[tuple[int, int]]) -> Iterator[Batch]:
    """What a consumer that reads committed records gives its user, from one fetch."""
    left = sorted(aborted, key=lambda entry: entry[1])
    inside: set[int] = set()
    for one in iter_batches(b"".join(split(found))):
        while left and left[0][1] <= one.last_offset:
            inside.add(left.pop(0)[0])
        if one.control:
            if is_abort(one):
                inside.discard(one.producer_id)
        elif not (one.transactional and one.producer_id in inside):
            yield one
