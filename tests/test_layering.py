"""Dependencies point one way: between the packages by their imports, between the compiled rooms by their cimports."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/fastlog"

# What each package or module of fastlog may import, besides itself. The client never imports the broker, nor the other way round.
MAY_IMPORT = {
    "native": set(),
    "_core": {"native"},
    "_version": set(),
    "protocol": {"_core"},
    "config": {"protocol"},
    "metrics": {"protocol", "config"},
    "metadata": {"protocol", "config", "metrics"},
    "storage": {"protocol", "config", "metrics", "metadata", "_core"},
    "coordinator": {"protocol", "config", "metrics"},
    "broker": {"protocol", "config", "metrics", "metadata", "storage", "coordinator", "_core", "_version"},
    "loadgen": {"native"},  # of benchmarks: no broker nor client code, so that a bug there is not measured by itself
    "embedding": set(),  # runs the command, as a process
    "pytest_plugin": {"embedding", "client"},
    "client": {"protocol", "_core", "_version"},
    "cli": {"broker", "client", "loadgen", "config", "metrics", "metadata", "storage", "protocol", "_version"},
}

# The compiled rooms from the bottom up. A room may cimport rooms of its own layer and of those below.
LAYERS = {
    "pure": {
        "bytes",
        "crc32c",
        "batch",
        "batchcheck",
        "batchrecode",
        "batchrecords",
        "batchtool",
        "zigzag",
        "codec",
        "codecplan",
        "codecread",
        "codecwrite",
        "index",
        "aborted",
        "producers",
        "verify",
        "wire",
        "buf",
        "slab",
        "timer",
        "standing",
        "recordpack",
        "offsetpack",
        "offsetcommit",
        "compression",
        "keymap",
        "sift",
    },
    "kernel": {
        "ring",
        "ring_common",
        "ring_epoll",
        "ring_uring",
        "threads",
        "work",
        "driver",
        "disksync",
        "arena",
        "mail",
        "files",
        "flaws",
        "tape",
        "plant",
    },
    "storage": {
        "log",
        "store",
        "promise",
        "segment",
        "runway",
        "scan",
        "read",
        "vouch",
        "write",
        "flushgroup",
        "loadline",
        "accept",
        "relics",
        "recycle",
        "checkpoint",
        "directory",
        "compact",
        "compactread",
        "compacttxns",
        "compactwork",
        "compactwrite",
        "swap",
        "recovery",
        "recoverend",
        "recoverfiles",
        "recoverstate",
        "timequery",
        "control",
        "logdrive",
        "locallog",
        "logpump",
        "logtool",
    },
    "network": {
        "quota",
        "net",
        "table",
        "command",
        "conn",
        "connreceive",
        "conns",
        "connsend",
        "session",
        "produce",
        "fetchwork",
        "fetchread",
        "fetchwait",
        "fetchanswer",
        "fetch",
        "offsets",
        "shard",
        "bridge",
    },
    "client": {
        "clientlink",
        "clientcolumn",
        "clientbatch",
        "clientproduce",
        "clientsend",
        "clientproducer",
        "clientarrow",
        "clientrecords",
        "clientread",
        "clientfetch",
        "clientfetchask",
        "clientfetchanswer",
        "clientfetchloop",
        "clientdelivery",
        "clientheaders",
        "clientconsumer",
    },
    "load": {
        "loadclock",
        "loadpoll",
        "loadhistogram",
        "loadtemplate",
        "loadproduce",
        "loadconsume",
        "loadengine",
        "loadlimits",
        "loadpeers",
    },
}
# The client's rooms know nothing of the broker's: of the rest they use what is pure, and threads.
CLIENT_MAY_USE = LAYERS["pure"] | LAYERS["client"] | {"threads"}
# Lines of a compiled room's door or inside, at most.
LINES_MAX = 690


def _imports(source: str) -> set[str]:
    """The packages of fastlog that a Python source names in imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "fastlog" else node.module for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("fastlog.")}
    return found


def _package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_packages_import_downwards_only() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        package = _package(path)
        if package == "__init__":
            continue
        allowed = MAY_IMPORT.get(package)
        assert allowed is not None, f"{path}: say in MAY_IMPORT what {package} may import"
        wrong += [f"{path.relative_to(SOURCE)} imports {name}" for name in sorted(_imports(path.read_text()) - allowed - {package})]
    assert not wrong, "\n".join(wrong)


def test_what_may_be_imported_has_no_cycle() -> None:
    assert not _cycle({name: set(allowed) for name, allowed in MAY_IMPORT.items()})


def _cimports(path: Path) -> set[str]:
    """The rooms that a Cython source cimports."""
    found = set()
    for module, names in re.findall(r"^\s*from\s+fastlog\.native(?:\.(\w+))?\s+cimport\s+\(?([^)#\n]*)", path.read_text(), re.MULTILINE):
        found |= {module} if module else set(re.findall(r"\w+", names))
    return found - {path.stem}


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle as its nodes in order; empty when there is none."""
    state: dict[str, int] = {}  # 1: on the path now, 2: done

    def visit(node: str, path: list[str]) -> list[str]:
        if state.get(node) == 2:
            return []
        if state.get(node) == 1:
            return [*path[path.index(node) :], node]
        state[node] = 1
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        state[node] = 2
        return []

    for node in sorted(graph):
        if found := visit(node, []):
            return found
    return []


def test_rooms_cimport_downwards_only() -> None:
    level = {room: i for i, rooms in enumerate(LAYERS.values()) for room in rooms}
    names = list(LAYERS)
    wrong = []
    for path in sorted((SOURCE / "native").glob("*.p[yx][xd]")):
        if path.stem == "__init__":
            continue
        assert path.stem in level, f"{path.name}: say in LAYERS where this room belongs"
        above = [other for other in sorted(_cimports(path)) if level.get(other, -1) > level[path.stem]]
        wrong += [f"{path.name} ({names[level[path.stem]]}) cimports {other} ({names[level[other]]})" for other in above]
    assert not wrong, "\n".join(wrong)


def test_no_room_is_large() -> None:
    large = {path.name: n for path in (SOURCE / "native").glob("*.p[yx][xd]") if (n := len(path.read_text().splitlines())) > LINES_MAX}
    assert not large, f"more than one concern, or one that can be divided: {large}"


def test_the_client_cimports_no_broker() -> None:
    for room in LAYERS["client"]:
        for path in (SOURCE / "native").glob(f"{room}.p[yx][xd]"):
            assert not _cimports(path) - CLIENT_MAY_USE, path.name


def test_the_load_generator_shares_no_more_with_the_broker_than_reading_bytes() -> None:
    for room in LAYERS["load"]:
        for path in (SOURCE / "native").glob(f"{room}.p[yx][xd]"):
            assert not _cimports(path) - LAYERS["load"] - {"bytes"}, path.name


def test_doors_have_no_cycle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in (SOURCE / "native").glob("*.pxd"):
        graph[path.stem] = _cimports(path)
    assert not _cycle(graph)


def test_serving_imports_no_heavy_library() -> None:
    """`fastlog serve` starts fast and small: what it imports never includes numpy, the client library or test tools."""
    heavy = {"numpy", "confluent_kafka", "kafka", "aiokafka", "pytest", "asyncpg"}
    for package in ("broker", "coordinator", "storage", "metadata", "protocol"):
        for path in (SOURCE / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
            assert not names & heavy, f"{path}: {names & heavy}"


@pytest.mark.parametrize("graph", [{"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a": {"a"}}])
def test_a_cycle_is_found(graph: dict[str, set[str]]) -> None:
    assert _cycle(graph)
