"""Runs Kafka's command-line tools against one broker."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.compatibility.printed import Printed, normal
from tests.compatibility.scenario import runs
from tests.support.java import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S: Final = 100.0


def printed(classpath: str, bootstrap: str, data: Path, files: Path, *, settle_s: float = 0.0) -> Iterator[tuple[str, Printed]]:
    """Runs the tools against the broker at `bootstrap` (HOST:PORT), whose directory is `data`.

    `files`: an empty directory for theirs. `settle_s`: how long the broker is left alone after each. Each comes with its name, numbered
    when it comes again.
    """
    times: Counter[str] = Counter()
    own = {bootstrap: "<broker>", str(data): "<data>", str(files): "<files>"}
    for run in runs(bootstrap, files):
        times[run.name] += 1
        name = run.name if times[run.name] == 1 else f"{run.name} ({times[run.name]})"
        time.sleep(settle_s)
        try:
            status, text = outcome(classpath, run.tool, run.args, run.given.encode(), TIMEOUT_S)
        except AssertionError as error:
            yield name, Printed(-1, (f"<did not end> {error}",))
            continue
        yield name, Printed(status, normal(text, own, run))
