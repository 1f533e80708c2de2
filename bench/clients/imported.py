"""How long an import takes in an interpreter that has imported nothing else: python -P bench/clients/imported.py CORE MODULE[:NAME,...]"""

import os
import sys
import time


def main() -> None:
    core, call = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    module, _, names = call.partition(":")
    begun = time.perf_counter()
    __import__(module)
    for name in filter(None, names.split(",")):
        getattr(sys.modules[module], name)
    print(f'{{"seconds": {time.perf_counter() - begun}}}')


if __name__ == "__main__":
    main()
