"""One member of a consumer group. Arguments: BOOTSTRAP TOPIC GROUP RECORDS_PER_SECOND (0: as fast as it can).

It reads, looks into each event, tells its parent which offsets it has read, and then commits them: what was told but not committed when a
member dies is read again by the member that takes over.
"""

import json
import sys
import time
import zlib

from examples.flights.source import LATE_MINUTES
from examples.flights.worker import Worker
from fastlog.client import ClientError, Consumer, Record, TopicPartition

COMMIT_EVERY_S = 0.25
SESSION_TIMEOUT_MS = 6000  # the least that Kafka allows: a dead member is noticed after this


class Span:
    """What was read of one partition since the last commit: offsets from `start` up to, not including, `end`."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.count = self.cancelled = self.late = self.checksum = 0

    def add(self, record: Record) -> None:
        value = record.value or b""
        event = json.loads(value)
        self.count += 1
        self.end = record.offset + 1
        self.cancelled += event["cancelled"]
        self.late += event["departure_delay_min"] is not None and event["departure_delay_min"] >= LATE_MINUTES
        self.checksum += zlib.crc32(value)


class Member:
    def __init__(self, worker: Worker, consumer: Consumer, topic: str) -> None:
        self.worker = worker
        self.consumer = consumer
        self.topic = topic
        self.spans: dict[int, Span] = {}
        consumer.on_assign = self._assigned
        consumer.on_revoke = lambda _: self.commit()
        consumer.subscribe([topic])

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        self.spans.clear()
        self.worker.tell("assigned", partitions=sorted(number for _, number in partitions))

    def take(self, record: Record) -> None:
        span = self.spans.get(record.partition)
        if span is None or span.end != record.offset:  # reading went back to what is committed
            span = self.spans[record.partition] = Span(record.offset)
        span.add(record)

    def commit(self) -> None:
        """Tells and commits what was read; partitions that went to another member meanwhile are left to it."""
        mine = self.consumer.assignment()
        owned = {number: span for number, span in self.spans.items() if (self.topic, number) in mine}
        self.spans.clear()
        if not owned:
            return
        names = ("start", "end", "count", "cancelled", "late", "checksum")
        self.worker.tell("read", spans={str(number): {n: getattr(span, n) for n in names} for number, span in owned.items()})
        try:
            self.consumer.commit({(self.topic, number): span.end for number, span in owned.items()})
        except ClientError as error:
            if error.code not in ("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"):
                raise
            self.worker.tell("refused", why=error.code)  # the partitions are being shared out anew: they will be read again


def main() -> None:
    worker = Worker()
    bootstrap, topic, group, rate = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    settings = {"group_id": group, "session_timeout_ms": SESSION_TIMEOUT_MS, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    with Consumer({"bootstrap_servers": bootstrap, **settings}) as consumer:
        member = Member(worker, consumer, topic)
        begun = committed = time.monotonic()
        read = 0
        while not worker.stopping:
            for record in consumer.poll(2000, 0.1):
                member.take(record)
                read += 1
            if time.monotonic() - committed > COMMIT_EVERY_S:
                member.commit()
                committed = time.monotonic()
            if rate and (ahead := read / rate - (time.monotonic() - begun)) > 0:
                time.sleep(min(ahead, 0.2))
        member.commit()


if __name__ == "__main__":
    main()
