"""The worker pool: every job once, done on the owner's thread, what is urgent first."""

import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fastlog.native.driver import Driver, Workers

SECOND = 1_000_000_000
SOON, LATER = 0, 1


@pytest.fixture(params=["uring", "epoll"])
def ring(request: pytest.FixtureRequest) -> Iterator[Any]:
    try:
        made = Driver(request.param)
    except OSError as refused:
        if refused.errno in {errno.ENOSYS, errno.EPERM}:
            pytest.skip(f"no io_uring here: {refused}")
        raise
    made.start()
    yield made
    made.close()


def reap(ring: Any, workers: Any, count: int) -> list[tuple[int, int]]:
    """Sleeps without a limit between reaps: a lost wake-up would hang here."""
    taken: list[tuple[int, int]] = []
    while True:
        taken += workers.reap()
        if len(taken) >= count:
            assert len(taken) == count
            return taken
        ring.wait(-1)


def test_every_job_is_done_once(ring: Any) -> None:
    workers = Workers(ring, 4)
    numbers = [workers.submit(number % 2) for number in range(2000)]
    assert 0 < workers.pending <= 2000
    assert sorted(number for number, _ in reap(ring, workers, 2000)) == numbers
    assert workers.pending == 0
    assert workers.reap() == []
    workers.close()


def test_jobs_one_after_another(ring: Any) -> None:
    workers = Workers(ring, 2)
    for _ in range(300):
        number = workers.submit(SOON)
        assert [n for n, _ in reap(ring, workers, 1)] == [number]
    workers.close()


def test_what_a_request_waits_for_goes_first(ring: Any) -> None:
    workers = Workers(ring, 1)
    workers.submit(LATER, 50_000_000)
    time.sleep(0.02)  # the one thread has it
    later = [workers.submit(LATER) for _ in range(5)]
    soon = [workers.submit(SOON) for _ in range(5)]
    began = dict(reap(ring, workers, 11))
    assert sorted(later + soon, key=began.__getitem__) == soon + later
    workers.close()


def test_a_thread_is_left_for_what_a_request_waits_for(ring: Any) -> None:
    workers = Workers(ring, 3)
    for _ in range(6):
        workers.submit(LATER, SECOND // 2)
    time.sleep(0.02)
    soon = workers.submit(SOON)
    assert reap(ring, workers, 1)[0][0] == soon
    reap(ring, workers, 6)
    workers.close()


def test_closing_finishes_what_is_queued(ring: Any) -> None:
    workers = Workers(ring, 2)
    for number in range(40):
        workers.submit(number % 2, 1_000_000)
    workers.close_pool()
    assert len(workers.reap()) == 40
    workers.close()


def test_refuses_a_senseless_number_of_threads(ring: Any) -> None:
    for threads in (-1, 1000):
        with pytest.raises(OSError, match="Invalid") as refused:
            Workers(ring, threads)
        assert refused.value.errno == errno.EINVAL
