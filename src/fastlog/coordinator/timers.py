"""Timers for very many deadlines that are nearly always moved before they are due.

A heartbeat moves its session's deadline, so moving a deadline back must cost next to nothing: it only stores the new deadline, and the
heap entry, which is now too early, is put back when it surfaces.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STALE_MIN = 64  # below this many dead entries the heap is not worth rebuilding


class Timer:
    """One deadline that can be armed, moved and disarmed any number of times; fires once per arming."""

    __slots__ = ("_fire", "_queue", "_queued_ms", "deadline_ms")

    def __init__(self, queue: TimerQueue, fire: Callable[[], None]) -> None:
        self._queue = queue
        self._fire = fire
        self._queued_ms: int | None = None  # deadline of the one heap entry that counts
        self.deadline_ms: int | None = None  # None: disarmed

    def arm(self, delay_ms: int) -> None:
        """Fires `delay_ms` from now (at once when it is not positive), instead of any earlier arming. O(1) when the deadline moves back."""
        deadline_ms = self._queue.now_ms() + max(delay_ms, 0)
        if self.deadline_ms is None:
            self._queue.armed += 1
        self.deadline_ms = deadline_ms
        if self._queued_ms is None or deadline_ms < self._queued_ms:
            self._queued_ms = deadline_ms
            self._queue.push(deadline_ms, self)

    def disarm(self) -> None:
        """Does not fire any more. O(1); its heap entry goes when it surfaces."""
        if self.deadline_ms is not None:
            self.deadline_ms = None
            self._queue.armed -= 1

    def surface(self, entry_ms: int) -> None:
        """The queue's side: this timer's heap entry of `entry_ms` has been taken out."""
        if entry_ms != self._queued_ms:
            return  # an older entry; an earlier one took its place
        self._queued_ms = None
        if self.deadline_ms is None:
            return
        if self.deadline_ms > entry_ms:  # moved back; among others that are due too it has its place
            self._queued_ms = self.deadline_ms
            self._queue.push(self.deadline_ms, self)
            return
        self.deadline_ms = None
        self._queue.armed -= 1
        self._fire()


class TimerQueue:
    """A heap of deadlines in milliseconds of a monotonic clock.

    Whoever drives it waits until `next_ms()` and calls `run_due()`; `on_earlier` is called when a push makes `next_ms()` earlier.
    """

    def __init__(self, now_ms: Callable[[], int], on_earlier: Callable[[], None] | None = None) -> None:
        self.now_ms = now_ms
        self.on_earlier = on_earlier
        self.armed = 0
        self._heap: list[tuple[int, int, Timer]] = []
        self._serial = 0

    def __len__(self) -> int:
        """Heap entries, those of disarmed timers included."""
        return len(self._heap)

    def timer(self, fire: Callable[[], None]) -> Timer:
        """A new disarmed timer."""
        return Timer(self, fire)

    def push(self, deadline_ms: int, timer: Timer) -> None:
        """A timer's side: puts an entry into the heap."""
        if len(self._heap) > 2 * self.armed + _STALE_MIN:
            self._rebuild()
        self._serial += 1
        earlier = not self._heap or deadline_ms < self._heap[0][0]
        heapq.heappush(self._heap, (deadline_ms, self._serial, timer))
        if earlier and self.on_earlier is not None:
            self.on_earlier()

    def next_ms(self) -> int | None:
        """When to call `run_due()` next; it may find nothing due, as deadlines move back without a trace in the heap."""
        return self._heap[0][0] if self._heap else None

    def run_due(self, fire_max: int = 1000) -> None:
        """Fires what is due, in order of deadlines, at most `fire_max` entries (the rest stays due)."""
        now_ms = self.now_ms()
        for _ in range(fire_max):
            if not self._heap or self._heap[0][0] > now_ms:
                return
            entry_ms, _, timer = heapq.heappop(self._heap)
            timer.surface(entry_ms)

    def _rebuild(self) -> None:
        """Drops the entries of disarmed timers and superseded ones, so that the heap stays within twice the armed timers."""
        live: list[tuple[int, int, Timer]] = []
        for entry in self._heap:
            timer = entry[2]
            if timer._queued_ms != entry[0]:
                continue
            if timer.deadline_ms is None:
                timer._queued_ms = None
            else:
                live.append(entry)
        heapq.heapify(live)
        self._heap = live
