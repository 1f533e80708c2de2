"""Timers: they fire once, in order, and moving them costs no heap entry."""

import random
from functools import partial

from fastlog.coordinator.timers import TimerQueue
from tests.coordinator.fakes import FakeClock


def test_fires_once_at_its_time() -> None:
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    fired: list[int] = []
    timer = queue.timer(lambda: fired.append(clock.at_ms))
    timer.arm(10)
    assert queue.next_ms() == 10
    clock.at_ms = 9
    queue.run_due()
    assert fired == []
    clock.at_ms = 10
    queue.run_due()
    queue.run_due()
    assert fired == [10]
    assert (queue.armed, len(queue)) == (0, 0)


def test_a_disarmed_timer_does_not_fire_and_can_be_armed_again() -> None:
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    fired: list[int] = []
    timer = queue.timer(lambda: fired.append(clock.at_ms))
    timer.arm(10)
    timer.disarm()
    clock.at_ms = 20
    queue.run_due()
    assert fired == []
    timer.arm(5)
    clock.at_ms = 25
    queue.run_due()
    assert fired == [25]


def test_moving_back_leaves_one_heap_entry() -> None:
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    fired: list[int] = []
    timer = queue.timer(lambda: fired.append(clock.at_ms))
    for now in range(10_000):
        clock.at_ms = now
        timer.arm(1_000)
        assert len(queue) == 1
        queue.run_due()
    clock.at_ms = 10_998
    queue.run_due()
    assert fired == []
    clock.at_ms = 10_999
    queue.run_due()
    assert fired == [10_999]


def test_moving_forward_fires_earlier_and_only_once() -> None:
    clock = FakeClock()
    earlier: list[int | None] = []
    queue = TimerQueue(clock.monotonic_ms)
    queue.on_earlier = lambda: earlier.append(queue.next_ms())
    fired: list[int] = []
    timer = queue.timer(lambda: fired.append(clock.at_ms))
    timer.arm(100)
    timer.arm(10)
    assert earlier == [100, 10]
    clock.at_ms = 10
    queue.run_due()
    clock.at_ms = 100
    queue.run_due()
    assert fired == [10]


def test_the_heap_stays_within_the_armed_timers() -> None:
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    timers = [queue.timer(lambda: None) for _ in range(100)]
    for step in range(100):
        for timer in timers:
            timer.arm(1_000_000 - step)  # always earlier: each arming is a new entry
    assert queue.armed == 100
    assert len(queue) <= 2 * 100 + 66


def test_a_timer_may_arm_itself_and_others_when_it_fires() -> None:
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    fired: list[str] = []
    second = queue.timer(lambda: fired.append("second"))

    def fire() -> None:
        fired.append("first")
        second.arm(0)

    queue.timer(fire).arm(1)
    clock.at_ms = 1
    queue.run_due()
    queue.run_due()
    assert fired == ["first", "second"]


def test_against_a_plain_model() -> None:
    chance = random.Random(11)
    clock = FakeClock()
    queue = TimerQueue(clock.monotonic_ms)
    model: dict[int, int] = {}
    fired: list[int] = []
    timers = [queue.timer(partial(fired.append, name)) for name in range(50)]
    for _ in range(5_000):
        name = chance.randrange(50)
        if chance.random() < 0.3:
            timers[name].disarm()
            model.pop(name, None)
        else:
            delay = chance.randrange(200)
            timers[name].arm(delay)
            model[name] = clock.at_ms + delay
        if chance.random() < 0.4:
            clock.at_ms += chance.randrange(50)
            fired.clear()
            queue.run_due()
            due = [name for name, at in model.items() if at <= clock.at_ms]
            assert sorted(fired) == sorted(due)
            assert [model[name] for name in fired] == sorted(model[name] for name in fired)
            for name in due:
                del model[name]
        assert queue.armed == len(model)
