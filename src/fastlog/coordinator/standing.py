"""Heartbeats that are answered without the coordinator.

As long as nothing changes, a member's heartbeat and its answer are the same bytes every time. So the coordinator gives out such an answer
as one that stands: the data plane repeats it, and notes when it did, until the answer is revoked. Whatever could change an answer revokes
it first. A session's timer knows nothing of heartbeats answered meanwhile: it asks here when it is due, and is moved when an answer is
revoked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlog.coordinator.operation import Clock
    from fastlog.coordinator.ports import StandingAnswer
    from fastlog.coordinator.timers import Timer

Give: TypeAlias = "Callable[[StandingAnswer], None]"
"""Makes the response of the request that is being handled one that stands."""


class _Held(NamedTuple):
    answer: StandingAnswer
    session: Timer
    timeout_ms: int


class Standings:
    """The answers of one group that stand, one for each member at the most."""

    __slots__ = ("_clock", "_held", "_make")

    def __init__(self, make: Callable[[], StandingAnswer], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def grant(self, member_id: str, session: Timer, timeout_ms: int) -> StandingAnswer:
        """An answer to a member whose session has just been armed; the one before, perhaps on a connection that is gone, is revoked."""
        before = self._held.get(member_id)
        if before is not None:
            before.answer.revoke()
        answer = self._make()
        self._held[member_id] = _Held(answer, session, timeout_ms)
        return answer

    def heard_of(self, member_id: str) -> bool:
        """The member's session is due: whether it was heard of without us. Then the timer is armed again."""
        held = self._held.get(member_id)
        left_ms = 0 if held is None else self._left_ms(held)
        if held is None or left_ms <= 0:
            return False
        held.session.arm(left_ms)
        return True

    def revoke(self, member_id: str) -> None:
        """The member's next heartbeat comes here."""
        held = self._held.pop(member_id, None)
        if held is not None:
            self._end(held)

    def revoke_all(self) -> None:
        if self._held:
            ended, self._held = self._held, {}
            for held in ended.values():
                self._end(held)

    def _end(self, held: _Held) -> None:
        held.answer.revoke()
        if held.session.deadline_ms is not None and held.answer.seen_ms:
            held.session.arm(self._left_ms(held))

    def _left_ms(self, held: _Held) -> int:
        """Of a session that was heard of last by an answer given without us; what is over is 0 or less."""
        seen_ms = held.answer.seen_ms
        return seen_ms + held.timeout_ms - self._clock.monotonic_ms() if seen_ms else 0
