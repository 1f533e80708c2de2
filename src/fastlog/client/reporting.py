"""The hook for metrics: a callable that is given what `metrics()` returns, at intervals, from the client's control thread."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastlog.client.logs import say_raised


class Reporter:
    """Calls `hook(metrics())` every `interval_ms`; a hook that raises is logged, and called again next time."""

    def __init__(self, hook: Callable[[Mapping[str, int]], object] | None, interval_ms: int, metrics: Callable[[], dict[str, int]]) -> None:
        self.hook = hook
        self.interval_s = interval_ms / 1000
        self.metrics = metrics
        self.due = time.monotonic() + self.interval_s

    def wait_s(self, limit_s: float) -> float:
        """How long the thread may wait, at most `limit_s`."""
        return limit_s if self.hook is None else max(0.01, min(limit_s, self.due - time.monotonic()))

    def report(self, *, last: bool = False) -> None:
        """Calls the hook where it is due; `last`: in any case, as the client closes."""
        if self.hook is None or (time.monotonic() < self.due and not last):
            return
        self.due = time.monotonic() + self.interval_s
        try:
            self.hook(self.metrics())
        except Exception:  # noqa: BLE001 - logged
            say_raised("the metrics hook raised")


def of_settings(settings: Mapping[str, Any], metrics: Callable[[], dict[str, int]]) -> Reporter:
    return Reporter(settings["metrics_hook"], settings["metrics_interval_ms"], metrics)
