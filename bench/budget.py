"""How long runs may be so that a session ends in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.rows import Row

SUSTAINED_SECONDS = 30.0  # what the rules ask for
OTHER_SECONDS = (4.0, 15.0)  # of rows that need not be sustained: at least, at most
OVERHEAD_SECONDS = 4.0  # of a run beside its own and its lead: topics, quiet disk, start of the generator
OWN_SECONDS = 20.0  # of a row that measures itself, which may start brokers
FIXED_SECONDS = 45.0  # limits, first starts


def fit(rows: list[Row], brokers: int, minutes: float, lead_seconds: float, warm_seconds: float) -> tuple[float, float]:
    """Seconds of a sustained run and of any other, for one repeat of all rows.

    Rows that measure themselves come last, and are left out when the time is up, before runs that ought to be sustained become bursts.
    """
    first = [row for row in rows if row.restarts]
    own = [row for row in rows if row.kind == "own" and not row.restarts]
    sustained = [row for row in rows if row.sustained]
    others = [row for row in rows if not row.sustained and row.kind != "own"]
    left = minutes * 60 - FIXED_SECONDS - brokers * (warm_seconds + OWN_SECONDS * len(first))
    left -= brokers * (OVERHEAD_SECONDS + lead_seconds) * (len(sustained) + len(others))
    least, most = OTHER_SECONDS
    wanted = brokers * (SUSTAINED_SECONDS * len(sustained) + least * len(others))
    if left < wanted:
        share = max(left / wanted, 0.1) if wanted else 1.0
        return max(SUSTAINED_SECONDS * share, 5.0), max(least * share, 2.0)
    spare = max(left - wanted - brokers * OWN_SECONDS * len(own), 0.0) / brokers / max(len(others), 1)
    return SUSTAINED_SECONDS, min(most, least + spare)
