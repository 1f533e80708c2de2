"""Builds the compiled rooms: every native/*.pyx, and _core.pyx, is an extension module of its own.

Environment:
  FASTLOG_ROOMS             names of the rooms to build (spaces between); unset: all
  FASTLOG_BUILD             release (default), asan (address and undefined behaviour) or ubsan
  FASTLOG_LIBURING_SDIST    path of the pinned source distribution of liburing, instead of asking the package index

Conventions: native/NAME_impl*.c is compiled into room NAME; headers lie beside it. C files that Cython makes go to the build directory.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

NATIVE = Path("src/fastlog/native")
BUILD = Path("build")
VARIANT = os.environ.get("FASTLOG_BUILD", "release")
SANITIZERS = {"release": "", "asan": "address,undefined", "ubsan": "undefined"}
if VARIANT not in SANITIZERS:
    sys.exit(f"FASTLOG_BUILD={VARIANT}: expected one of {', '.join(SANITIZERS)}")
OUTPUT = BUILD if VARIANT == "release" else BUILD / VARIANT

# Shared libraries of the system, by room.
LIBRARIES = {"compression": ["z", "lz4", "zstd", "snappy"], "clientproduce": ["z"], "clientproducer": ["z"]}

# io_uring's library is compiled from source into the one room that uses it: a wheel needs neither a shared library nor its headers.
LIBURING_VERSION = "2024.5.3"
LIBURING_SDIST = f"liburing-{LIBURING_VERSION}.tar.gz"
LIBURING_SHA256 = "e20420187e913d219109eccc15dcf014291da668c8b2ae9f44ccac043e6de270"
LIBURING_SOURCES = ("queue.c", "register.c", "setup.c", "syscall.c")
LIBURING_ROOMS = ("ring_uring",)

COMPILE_ARGS = [
    "-O3",
    "-g1",  # line numbers for profiles and sanitizers, without the bulk
    "-fno-strict-aliasing",  # headers are laid over byte buffers throughout
    "-fvisibility=hidden",  # what rooms share goes through Cython's doors; two rooms' helpers of one name must not meet
]
LINK_ARGS: list[str] = []
if platform.machine() in ("x86_64", "AMD64"):
    COMPILE_ARGS.append("-march=x86-64-v2")
if SANITIZERS[VARIANT]:
    COMPILE_ARGS += [f"-fsanitize={SANITIZERS[VARIANT]}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-O1"]
    LINK_ARGS += [f"-fsanitize={SANITIZERS[VARIANT]}"]


def fetch_liburing() -> Path:
    """The pinned source distribution, checked; from FASTLOG_LIBURING_SDIST, the build directory, or the package index."""
    given = os.environ.get("FASTLOG_LIBURING_SDIST")
    path = Path(given) if given else BUILD / LIBURING_SDIST
    if not path.exists() and not given:
        BUILD.mkdir(exist_ok=True)
        wanted = BUILD / "liburing.requirement"
        wanted.write_text(f"liburing=={LIBURING_VERSION} --hash=sha256:{LIBURING_SHA256}\n")
        # pip asks a source distribution for its metadata, which needs setuptools and Cython: those of this environment.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary=:all:", "--require-hashes", f"--dest={BUILD}", f"--requirement={wanted}"]
        subprocess.run(command, check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != LIBURING_SHA256:
        sys.exit(f"{path}: sha256 is {found}, expected {LIBURING_SHA256}")
    return path


def unpack_liburing() -> Path:
    """liburing's source tree, unpacked and configured for this system's headers."""
    place = BUILD / f"liburing-{LIBURING_VERSION}"
    inside = Path("libs/liburing")
    if not place.exists():
        archive_path = fetch_liburing()
        with tempfile.TemporaryDirectory(dir=BUILD) as work, tarfile.open(archive_path) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none; the digest was checked
            archive.extractall(work)
            tree = Path(work) / place.name / inside
            (tree / "configure").chmod(0o755)
            done = subprocess.run(["./configure", "--use-libc"], check=False, cwd=tree, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"liburing: configure failed\n{done.stdout}\n{done.stderr}")
            with contextlib.suppress(OSError):  # another build was first
                (Path(work) / place.name).rename(place)
    return place / inside


def extension(source: Path) -> Extension:
    room = source.stem
    made = Extension(
        ".".join(source.with_suffix("").parts[1:]),
        sources=[str(source), *(str(p) for p in sorted(NATIVE.glob(f"{room}_impl*.c")))],
        depends=["setup.py", *(str(p) for p in {NATIVE / "check.h", NATIVE / "siphash.h", *NATIVE.glob(f"{room}*.h")} if p.exists())],
        include_dirs=[str(NATIVE)],
        libraries=list(LIBRARIES.get(room, [])),
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=list(COMPILE_ARGS),
        extra_link_args=list(LINK_ARGS),
    )
    if room in LIBURING_ROOMS:
        tree = unpack_liburing()
        made.sources += [str(tree / "src" / name) for name in LIBURING_SOURCES]
        made.include_dirs.insert(0, str(tree / "src/include"))
        made.extra_compile_args += ["-include", str(tree / "config-host.h"), "-DLIBURING_INTERNAL", "-Wno-unused-parameter"]
    return made


def rooms() -> list[Extension]:
    sources = [p for p in [Path("src/fastlog/_core.pyx"), *sorted(NATIVE.glob("*.pyx"))] if p.exists()]
    wanted = os.environ.get("FASTLOG_ROOMS")
    if wanted is not None:
        unknown = set(wanted.split()) - {p.stem for p in sources}
        if unknown:
            sys.exit(f"no such room: {' '.join(sorted(unknown))}; there are: {' '.join(p.stem for p in sources)}")
        sources = [p for p in sources if p.stem in wanted.split()]
    if not sources:
        return []
    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
        "embedsignature": True,
    }
    try:
        made: list[Extension] = cythonize(
            [extension(p) for p in sources],
            build_dir=str(OUTPUT / "cython"),
            include_path=["src"],
            nthreads=min(os.cpu_count() or 1, len(sources)) if len(sources) > 1 else 0,
            compiler_directives=directives,
            emit_linenums=True,
        )
    except CompileError as error:  # what is wrong was printed; the traceback says nothing more
        sys.exit(f"does not compile: {error}")
    return made


class BuildRooms(build_ext):
    """Compiles the rooms in parallel."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = os.cpu_count() or 1


class SourceDistribution(sdist):
    """Carries liburing's sources, so that building from it asks no package index."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        target = Path(base_dir) / BUILD
        target.mkdir(exist_ok=True)
        shutil.copy2(fetch_liburing(), target / LIBURING_SDIST)


def needs_rooms() -> bool:
    """Whether a command given compiles: metadata and source distributions need no compiler."""
    return not {"sdist", "egg_info", "dist_info", "clean", "--version", "--name"} & set(sys.argv[1:])


setup(ext_modules=rooms() if needs_rooms() else [], cmdclass={"build_ext": BuildRooms, "sdist": SourceDistribution})
