"""Between an event loop and what is outside it: calls that wait for a broker, and a core that wakes the loop."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, Self, TypeVar

from fastlog._core import Delivery

P = ParamSpec("P")
R = TypeVar("R")
THREADS = 4  # of one client at most; more calls at once wait for one another


class Calls:
    """Runs calls that wait, in threads that stay: made when they are needed first, never more than THREADS, gone with `close`.

    They are daemons: a call that still waits when the interpreter ends does not hold it up.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0  # calls that were given and are not done

    async def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The call's result, or its exception. Where the wait is cancelled the call goes on, unless it has not begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def answer(result: Any, error: BaseException | None) -> None:
            self._busy -= 1
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            result, error = None, None
            if not future.cancelled():
                try:
                    result = function(*args, **kwargs)
                except BaseException as failed:  # noqa: BLE001 - raised in the task that called
                    error = failed
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(answer, result, error)

        self._busy += 1
        if self._threads < min(self._busy, THREADS):
            self._threads += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._work.put(run)
        return await future

    def _serve(self) -> None:
        while (run := self._work.get()) is not None:
            run()

    def close(self) -> None:
        """After the last call."""
        for _ in range(self._threads):
            self._work.put(None)
        self._threads = 0


def _arrived(future: "asyncio.Future[None]") -> None:
    if not future.done():  # the wait may have been cancelled
        future.set_result(None)


def future_of(delivery: Delivery, *, in_loop: bool) -> "asyncio.Future[None]":
    """Is done when the delivery is. `in_loop`: its producer's callbacks run in this loop, otherwise in a thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def done(_: Delivery) -> None:
        if in_loop:
            _arrived(future)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_arrived, future)

    delivery.add_done_callback(done)
    return future


class Signal:
    """A core's eventfd in the loop that runs: `told` is called when it is readable, and then all that wait go on."""

    def __init__(self, fd: int, told: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._fd = fd
        self._told = told
        self._waiting: set[asyncio.Future[None]] = set()
        self.loop.add_reader(fd, self._readable)

    def of(self, who: str) -> Self:
        """Itself; RuntimeError in another loop than its own. `who`: the client that it belongs to."""
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError(f"the {who} belongs to another event loop; make one in each")
        return self

    def _readable(self) -> None:
        self._told()
        self.wake()

    def wake(self) -> None:
        for future in self._waiting:
            _arrived(future)
        self._waiting.clear()

    async def wait(self, timeout: float | None = None) -> None:
        """Until the core has said something, or the time is over."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._waiting.add(future)
        timer = None if timeout is None else self.loop.call_later(timeout, _arrived, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        self.wake()
