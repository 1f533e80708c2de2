"""A process that appends until it is killed. Arguments: directory, engine, arena path or "-", acks, batch bytes, lock file.

Each line on standard output is the base offset of an acknowledged append.
"""

import fcntl
import os
import sys
from collections import deque

from fastlog.native.logtool import LocalStore, Pending
from tests.storage.build import batch


def main() -> None:
    path, engine, arena, acks, size, lock_path = sys.argv[1:]
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    store = LocalStore(engine=engine, arena=None if arena == "-" else arena, memory=8 << 20, lock=lock)
    log = store.open(path, segment_bytes=3_000_000)
    number = 0
    pending: deque[Pending] = deque()
    while True:
        while len(pending) < 8:
            pending.append(
                log.submit(batch(1, int(size), timestamp=number, producer_id=1, producer_epoch=0, base_sequence=number), int(acks))
            )
            number += 1
        result = pending.popleft().result()
        if result.error:
            print("error", result.error, flush=True)
            return
        print(result.base_offset, flush=True)


main()
