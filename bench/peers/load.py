"""`python -m bench.peers.load resp|nats`: the load of a `fastlog.loadgen.job.Job` (JSON on standard input) as a peer's commands.

A batch of n records is n commands in one write: XADD to a stream for Valkey, a publish for NATS JetStream; it is acknowledged when all are.
Partitions, consumers and topic settings mean nothing here. Prints the result as one JSON object, with the names of the Kafka generator's.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from typing import Any

from fastlog.loadgen.job import Job, split_address


def commands(protocol: str, job: Job, connection: str) -> bytes:
    """One batch."""
    value = random.Random(job.seed).randbytes(job.record_bytes)
    if protocol == "resp":
        head = f"*5\r\n$4\r\nXADD\r\n${len(job.topic)}\r\n{job.topic}\r\n$1\r\n*\r\n$1\r\nd\r\n${len(value)}\r\n".encode()
    else:
        # Bytes of a payload that ends a line would still be counted by its length: nothing is to be escaped.
        head = f"PUB {job.topic} {connection} {len(value)}\r\n".encode()
    return (head + value + b"\r\n") * job.records


def connect(protocol: str, job: Job, inbox: str) -> socket.socket:
    made = socket.create_connection(split_address(job.address), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if protocol == "nats":
        made.sendall(f'CONNECT {{"verbose":false,"headers":true,"no_responders":true}}\r\nSUB {inbox} 1\r\nPING\r\n'.encode())
        said = b""
        while b"PONG\r\n" not in said:
            piece = made.recv(4096)
            if not piece:
                raise ConnectionResetError("nats closed the connection")
            said += piece
    made.setblocking(False)
    return made


def run(protocol: str, job: Job) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    from fastlog.native import loadpeers

    inbox = f"_I.{os.getpid()}"
    if protocol == "nats" and job.connections > 1:
        raise ValueError("NATS is loaded over one connection: all that subscribe to the inbox would hear every answer")
    sockets: list[socket.socket] = []
    try:
        sockets.extend(connect(protocol, job, inbox) for _ in range(job.connections))
        before = time.process_time()
        result: dict[str, Any] = loadpeers.run(
            protocol,
            [each.fileno() for each in sockets],
            commands(protocol, job, inbox),
            job.records,
            window=job.window,
            rate=job.rate,
            seconds=job.seconds,
            settle_seconds=job.settle_seconds,
            drain_seconds=job.drain_seconds,
            interval_seconds=job.interval_seconds,
            batches_max=-(-job.bytes_max // job.batch_value_bytes),
            spin=job.spin,
        )
        result["generator_cpu_share"] = round((time.process_time() - before) / max(result["seconds"], 1e-9), 3)
    finally:
        for each in sockets:
            each.close()
    acked = result["batches_acked_in_time"] / max(result["seconds"], 1e-9)
    nothing = {"count": 0, "buckets": []}
    return {
        **result,
        "MB_per_s": round(acked * job.batch_value_bytes / 1e6, 3),
        "batches_per_s": round(acked, 1),
        "records_per_s": round(acked * job.records, 1),
        "acked_bytes": result["batches_acked"] * job.batch_value_bytes,
        "batches_read": 0,
        "bytes_read": 0,
        "end_to_end": nothing,
        "fetch": nothing,
        "sound": not result["trouble"] and not result["incomplete"] and not result["records_failed"],
    }


def main() -> int:
    result = run(sys.argv[1], Job(**json.loads(sys.stdin.read())))
    print(json.dumps(result))
    return 0 if result["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
