"""Builds the load generator's extension modules in place: `python -m bench.build`. They are no part of the installed package.

Only what changed is compiled; C files and objects go to build/bench.
"""

import fcntl
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = Path("bench/loadgen")
OUTPUT = ROOT / "build" / "bench"


def build() -> None:
    """Compiles what is out of date. Raises SystemExit when a compiler fails; safe to run from several processes."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    OUTPUT.mkdir(parents=True, exist_ok=True)
    with (OUTPUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = Path.cwd()
        os.chdir(ROOT)
        try:
            arguments = ["-O3", "-g1", "-fno-strict-aliasing"]
            if platform.machine() == "x86_64":
                arguments.append("-march=x86-64-v2")
            headers = [str(path) for path in sorted(ROOMS.glob("*.h"))]
            modules = [
                Extension(
                    ".".join(path.with_suffix("").parts),
                    [str(path)],
                    depends=headers,
                    include_dirs=[str(ROOMS)],
                    define_macros=[("_GNU_SOURCE", "1")],
                    extra_compile_args=arguments,
                )
                for path in sorted(ROOMS.glob("*.pyx"))
            ]
            directives = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}
            made = cythonize(  # type: ignore[no-untyped-call]
                modules,
                build_dir=str(OUTPUT / "cython"),
                include_path=["src"],
                compiler_directives=directives,
                quiet=True,
                show_all_warnings=False,
            )
            command = Distribution({"name": "bench", "ext_modules": made}).get_command_obj("build_ext")
            command.inplace = True
            command.build_temp = str(OUTPUT / "objects")
            command.parallel = os.cpu_count() or 1
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    build()
