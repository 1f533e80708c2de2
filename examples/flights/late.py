"""Replays the stream from a moment in time, and writes the late departures to a second topic.

Arguments: BOOTSTRAP FROM_TOPIC TO_TOPIC MILLISECONDS.
"""

import json
import sys
import time

from examples.flights.source import LATE_MINUTES
from examples.flights.worker import Worker
from fastlog.client import Admin, Consumer, Producer

TELL_EVERY_S = 0.1


def main() -> None:
    worker = Worker()
    bootstrap, source, target, moment = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    admin = Admin(bootstrap)
    partitions = [(source, p.number) for p in admin.topic(source).partitions]
    starts = admin.time_offsets(partitions, moment)
    ends = admin.end_offsets(partitions)
    worker.tell("starts", offsets={str(number): offset for (_, number), offset in starts.items()})
    left = {p: ends[p] - starts[p] for p in partitions if ends[p] > starts[p]}
    producer = Producer(bootstrap_servers=bootstrap)
    read = cancelled = late = 0
    begun = told = time.monotonic()
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({p: starts[p] for p in left})
        while any(left.values()) and not worker.stopping:
            for record in consumer.poll(2000, 0.2):
                left[record.topic, record.partition] -= 1
                read += 1
                event = json.loads(record.value or b"")
                if event["cancelled"]:
                    cancelled += 1
                elif event["departure_delay_min"] >= LATE_MINUTES:
                    late += 1
                    producer.send(target, record.value, record.key, timestamp=record.timestamp)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                worker.tell("progress", count=read)
    producer.flush(60)
    written = producer.metrics()["records_acknowledged"]
    worker.tell("done", count=read, cancelled=cancelled, late=late, written=written, seconds=time.monotonic() - begun)


if __name__ == "__main__":
    main()
