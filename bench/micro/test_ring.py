"""What one round trip through a ring costs: a message there and back over loopback TCP, both ends on the same ring and thread.

    .venv/bin/pytest bench/micro/test_ring.py --benchmark-enable --benchmark-columns=min,median,rounds

Each measured round makes ROUND_TRIPS round trips: divide.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fastlog.native.driver import Driver, Workers

ROUND_TRIPS = 2000


@pytest.fixture(params=["uring", "epoll"])
def ring(request: pytest.FixtureRequest) -> Iterator[Any]:
    try:
        made = Driver(request.param, recv_buffers=256, recv_buffer_bytes=16384)
    except OSError as refused:
        pytest.skip(str(refused))
    made.start()
    yield made
    made.close()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(64):
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setblocking(False)
            made.append((near, far))
    yield made
    for near, far in made:
        near.close()
        far.close()


@pytest.mark.parametrize(("connections", "size"), [(1, 100), (64, 100), (64, 16384)])
def test_round_trip(benchmark: Any, ring: Any, pairs: list[tuple[socket.socket, socket.socket]], connections: int, size: int) -> None:
    used = [(near.fileno(), far.fileno()) for near, far in pairs[:connections]]
    benchmark.extra_info["round_trips"] = ROUND_TRIPS // connections * connections
    benchmark(lambda: ring.ping_pong(used, size, ROUND_TRIPS // connections))


def test_wait_without_anything_to_do(benchmark: Any, ring: Any) -> None:
    ring.wait(0)
    benchmark(lambda: ring.wait(0))


def test_job_there_and_back(benchmark: Any, ring: Any) -> None:
    workers = Workers(ring, 1)

    def one() -> None:
        workers.submit(0)
        while not workers.reap():
            ring.wait(-1)

    benchmark(one)
    workers.close()
