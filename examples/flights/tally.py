"""What a consumer group has read, from what its members told: each offset once, whoever read it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets `start` up to, not including, `end` of a partition, read by one member; `checksum`: the sum of the values' CRC-32."""

    start: int
    end: int
    count: int
    cancelled: int
    late: int
    checksum: int


class Tally:
    """Spans chained from offset 0 on.

    A member that takes over begins at a committed offset, which is where some span told before begins. Of two that begin at the same offset
    the one told later counts: the other was read by a member that died before it had committed.
    """

    def __init__(self) -> None:
        self._spans: dict[int, dict[int, Span]] = {}  # partition -> start -> span
        self.told = 0  # records in all spans, those read twice counted twice

    def add(self, partition: int, span: Span) -> None:
        self._spans.setdefault(partition, {})[span.start] = span
        self.told += span.count

    def chain(self) -> list[Span]:
        """The spans that make up the stream, without gap or overlap."""
        made = []
        for spans in self._spans.values():
            at = 0
            while at in spans:
                made.append(spans[at])
                at = spans[at].end
        return made

    def end(self, partition: int) -> int:
        """The offset up to which a partition was read."""
        at = 0
        while at in self._spans.get(partition, {}):
            at = self._spans[partition][at].end
        return at

    @property
    def count(self) -> int:
        return sum(span.count for span in self.chain())

    @property
    def cancelled(self) -> int:
        return sum(span.cancelled for span in self.chain())

    @property
    def late(self) -> int:
        return sum(span.late for span in self.chain())

    @property
    def checksum(self) -> int:
        return sum(span.checksum for span in self.chain())

    @property
    def again(self) -> int:
        """Records that were read more than once: by a member that was killed before it had committed them, and by its successor."""
        return self.told - self.count
