"""A consumer's commits: what there is to commit, and the thread that does it behind those who do not wait."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastlog._core import ConsumerCore
from fastlog.client.checks import checked_mark, checked_places
from fastlog.client.failures import ClientError
from fastlog.client.logs import WARNING, say, say_raised
from fastlog.client.records import Mark, Partition

if TYPE_CHECKING:
    import queue

    from fastlog.client.group import Membership

Done = Callable[[dict[Partition, int], ClientError | None], object]


class Commits:
    """Of one consumer. `group`: its membership, made when it is first asked for."""

    def __init__(self, core: ConsumerCore, group: "Callable[[], Membership]", name: str | None) -> None:
        self._core = core
        self._group = group
        self._name = name
        self.stored: dict[Partition, int] = {}  # what was last committed here, or read
        self._waiting: queue.SimpleQueue[tuple[dict[Partition, Mark], Done | None] | None] | None = None

    def wanted(self, offsets: Mapping[Partition, int | tuple[int, str]] | None) -> dict[Partition, Mark]:
        """What `offsets` asks to be committed, or where all that is assigned has come to since the last commit; with the epochs, by which
        who reads on from there learns whether the log is still the same. Raises TypeError or ValueError."""
        made: dict[Partition, Mark] = {}
        if offsets is None:
            for p in self._core._assigned():
                state = self._core._state(*p)
                if state["position"] >= 0 and self.stored.get(p) != state["position"]:
                    made[p] = Mark(state["position"], "", state["taken_epoch"])
            return made
        for p, at in checked_places(offsets).items():
            mark, state = checked_mark(at), self._core._state(*p)
            made[p] = mark._replace(epoch=state["taken_epoch"]) if mark.offset <= state["position"] else mark
        return made

    def commit(self, wanted: dict[Partition, Mark], timeout_s: float | None = None) -> None:
        """Returns when they are stored. Raises ClientError."""
        group = self._group()
        if wanted:
            group.commit(wanted, timeout_s)
            self.stored.update({p: mark.offset for p, mark in wanted.items()})

    def behind(self, wanted: dict[Partition, Mark], on_done: Done | None) -> None:
        """As `commit`, in a thread of its own, in the order of the calls."""
        if on_done is not None and not callable(on_done):
            raise TypeError(f"on_done: expected a callable, not {on_done!r}")
        self._group()
        if not wanted:
            return
        if self._waiting is None:
            import queue  # most never need it

            self._waiting = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(self._waiting,), name="fastlog-commit", daemon=True).start()
        self._waiting.put((wanted, on_done))

    def _serve(self, waiting: "queue.SimpleQueue[tuple[dict[Partition, Mark], Any] | None]") -> None:
        while (item := waiting.get()) is not None:
            wanted, on_done = item
            error: ClientError | None = None
            try:
                self.commit(wanted)
            except ClientError as failed:
                error = failed
            if on_done is not None:
                try:
                    on_done({p: mark.offset for p, mark in wanted.items()}, error)
                except Exception:  # noqa: BLE001 - logged
                    say_raised("a commit callback raised")
            elif error is not None:
                say(WARNING, "%s", error, group=self._name)

    def close(self) -> None:
        """Ends the thread, behind what waits."""
        if self._waiting is not None:
            self._waiting.put(None)
