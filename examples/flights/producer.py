"""Sends all departures in the order of their time. Arguments: BOOTSTRAP TOPIC FLIGHTS_CSV."""

import sys
import time
import zlib
from pathlib import Path

from examples.flights.source import departures
from examples.flights.worker import Worker
from fastlog.client import Producer

TELL_EVERY_S = 0.1


def main() -> None:
    worker = Worker()
    bootstrap, topic, flights = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    events = departures(flights)
    worker.tell("ready", events=len(events))
    # acks=all and idempotence are the defaults: every acknowledged record is on stable storage, once.
    producer = Producer(bootstrap_servers=bootstrap)
    begun = told = time.monotonic()
    checksum = size = keyless = 0
    for event in events:
        producer.send(topic, event.value, event.key, timestamp=event.time)
        checksum += zlib.crc32(event.value)
        size += len(event.value) + len(event.key or b"")
        keyless += event.key is None
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            worker.tell("progress", count=producer.metrics()["records_acknowledged"])
        if worker.stopping:
            return
    producer.flush(120)
    count = producer.metrics()["records_acknowledged"]
    worker.tell("done", count=count, keyless=keyless, bytes=size, checksum=checksum, seconds=time.monotonic() - begun)


if __name__ == "__main__":
    main()
