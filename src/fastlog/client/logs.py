"""Log lines of the client, by the logger "fastlog.client": text for people, and the same facts as fields for programs.

Each log record has `record.kafka`, a dict: `client_id` or `group`, and where they apply `broker`, `topic`, `partition`, `code` (as of
ClientError), `records` (how many were lost). A formatter that writes JSON takes it as it is.
"""

import time
from typing import Any

from fastlog.client.failures import ClientError

INFO, WARNING, ERROR = 20, 30, 40  # logging's, which is imported with the first line
SELDOM_S = 10.0
_said: dict[str, float] = {}  # when a line was last written
_SAID_MAX = 1000


def say(level: int, text: str, /, *args: object, **facts: Any) -> None:
    """As `log.log(level, text, *args)`; an error among `args` gives the line its code."""
    import logging

    code = next((a.code for a in args if isinstance(a, ClientError)), None)
    log = logging.getLogger("fastlog.client")
    log.log(level, text, *args, extra={"kafka": facts if code is None else {**facts, "code": code}}, stacklevel=2)


def say_raised(text: str) -> None:
    """With the exception that is being handled: code of the user's raised it."""
    import logging

    logging.getLogger("fastlog.client").exception(text, extra={"kafka": {}}, stacklevel=2)  # noqa: LOG004 - the caller's


def say_seldom(level: int, text: str, /, *args: object, **facts: Any) -> None:
    """As `say`, for what is tried over and over: the same line once in SELDOM_S."""
    line, now = text % args, time.monotonic()
    if now - _said.get(line, -SELDOM_S) < SELDOM_S:
        return
    if len(_said) >= _SAID_MAX:
        _said.clear()
    _said[line] = now
    say(level, text, *args, **facts)
