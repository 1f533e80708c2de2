"""One sample, in a process of its own: python -m bench.clients.worker CORE CALL TASK; prints what it measured as JSON.

For an import, TASK is "import": what is told is how long the interpreter took with it, without the start of the interpreter itself.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time

from bench.clients.task import Task


def import_seconds(call: str) -> float:
    module, _, names = call.partition(":")
    begun = time.perf_counter()
    found = importlib.import_module(module)
    for name in filter(None, names.split(",")):
        getattr(found, name)
    return time.perf_counter() - begun


def main() -> None:
    core, call, given = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    if given == "import":
        print(json.dumps({"seconds": import_seconds(call)}))
        return
    task = Task(**json.loads(given))
    module, _, name = call.partition(":")
    made = getattr(importlib.import_module(module), name)(task)
    if inspect.iscoroutine(made):
        asyncio.run(made)
    print(json.dumps(task.measured))


if __name__ == "__main__":
    main()
