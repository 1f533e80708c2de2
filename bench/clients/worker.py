"""One sample, in a process of its own: python -m bench.clients.worker CORE CALL TASK; prints what it measured as JSON."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys

from bench.clients.task import Task


def main() -> None:
    core, call, given = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    task = Task(**json.loads(given))
    module, _, name = call.partition(":")
    made = getattr(importlib.import_module(module), name)(task)
    if inspect.iscoroutine(made):
        asyncio.run(made)
    print(json.dumps(task.measured))


if __name__ == "__main__":
    main()
