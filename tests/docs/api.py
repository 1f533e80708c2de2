"""docs/api/: the client's classes, signatures and docstrings, from the sources alone: nothing is imported or need be built."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND: Final = "python -m tests.docs.pages"
SOURCE: Final = Path(__file__).parents[2] / "src"
Function = ast.FunctionDef | ast.AsyncFunctionDef

# What each page has: MODULE:NAME, in this order; without a module, of whichever compiled one has it.
CONTENTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "producer": (
        "The producer",
        "Sending records; [client.md](../client.md) is the introduction.",
        (
            "fastlog.client.producer:Producer",
            ":Delivery",
            ":Deliveries",
            "fastlog.client.records:RecordMetadata",
        ),
    ),
    "consumer": (
        "The consumer",
        "Reading records; [client.md](../client.md) is the introduction.",
        (
            "fastlog.client.consumer:Consumer",
            ":Record",
            ":RecordBatch",
            ":RecordBatches",
            "fastlog.client.records:TopicPartition",
            "fastlog.client.records:OffsetAndTimestamp",
            "fastlog.client.transactions:GroupMetadata",
        ),
    ),
    "admin": (
        "The admin",
        "Looking at a cluster and changing it.",
        (
            "fastlog.client.admin:*",
            *(f"fastlog.client.admin_transactions:{name}" for name in ("TransactionalId", "Transaction", "PartitionProducer", "Fenced")),
        ),
    ),
    "asyncio": (
        "asyncio",
        "The same for an event loop; [asyncio.md](../asyncio.md) is the introduction.",
        ("fastlog.client.aio.producer:AsyncProducer", "fastlog.client.aio.consumer:AsyncConsumer", "fastlog.client.aio.admin:AsyncAdmin"),
    ),
    "embedded": ("The embedded broker", "A real broker for a program or a test.", ("fastlog.embedding:*", "fastlog.pytest_plugin:*")),
    "errors": ("Errors", "What the client raises.", ("fastlog.client.failures:*",)),
}


@cache
def _source(module: str) -> tuple[list[str], dict[str, ast.stmt]]:
    """The lines of a module, or of its stub where it is compiled, and what it defines."""
    place = SOURCE.joinpath(*module.split("."))
    path = next(p for p in (place.with_suffix(".pyi"), place.with_suffix(".py"), place / "__init__.py") if p.exists())
    text = path.read_text("utf-8")
    defined = {n.name: n for n in ast.parse(text).body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and not n.name.startswith("_")}
    return text.splitlines(), dict(defined)


@cache
def _stub(name: str) -> str:
    """The compiled module that has a class; "" where none has."""
    for path in sorted((SOURCE / "fastlog/native").glob("client*.pyi")):
        module = f"fastlog.native.{path.stem}"
        if name in _source(module)[1]:
            return module
    return ""


@cache
def _compiled(module: str) -> dict[str, str]:
    """Docstrings by CLASS or CLASS.NAME, of a compiled module's source."""
    path = SOURCE.joinpath(*module.split(".")).with_suffix(".pyx")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    made: dict[str, str] = {}
    owner = ""
    for at, line in enumerate(lines):
        found = re.match(r"(?:cdef )?class (\w+)|    def (\w+)\(|(?:cdef|cpdef|def) ", line)
        if found is None:
            continue
        if found[2] is None:
            owner = found[1] or ""
        head = next(i for i in range(at, len(lines)) if lines[i].endswith(":"))
        rest = "\n".join(lines[head + 1 :]).lstrip()
        if owner and rest.startswith('"""'):
            made[f"{owner}.{found[2]}" if found[2] else owner] = inspect.cleandoc(rest[3 : rest.index('"""', 3)])
    return made


def _doc(module: str, node: ast.ClassDef | Function, owner: str = "") -> str:
    if (said := ast.get_docstring(node)) is not None:
        return said
    return _compiled(module).get(f"{owner}.{node.name}" if owner else node.name, "")


def _signature(node: Function, *, method: bool, coroutine: bool) -> str:
    given = node.args
    if method:
        given = ast.arguments(
            posonlyargs=[a for a in given.posonlyargs if a.arg != "self"],
            args=[a for a in given.args if a.arg != "self"],
            vararg=given.vararg,
            kwonlyargs=given.kwonlyargs,
            kw_defaults=given.kw_defaults,
            kwarg=given.kwarg,
            defaults=given.defaults,
        )
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{'await ' if coroutine else ''}{node.name}({ast.unparse(given)}){returns}"


def _is(node: Function, decorator: str) -> bool:
    return any(ast.unparse(d).endswith(decorator) for d in node.decorator_list)


def _class(module: str, node: ast.ClassDef) -> Iterator[str]:
    yield from (f"## {node.name}", "", _doc(module, node), "")
    attributes: list[str] = []
    methods: list[tuple[str, str, Function, bool]] = []
    bases = [(_stub(ast.unparse(b)), ast.unparse(b)) for b in node.bases]
    for where, name in [*((m, n) for m, n in bases if m), (module, node.name)]:
        lines, defined = _source(where)
        body = defined[name]
        for item in body.body if isinstance(body, ast.ClassDef) else ():
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
                comment = lines[item.lineno - 1].partition("  # ")[2]
                attributes.append(f"- `{item.target.id}: {ast.unparse(item.annotation)}`{f': {comment}' if comment else ''}")
            elif isinstance(item, Function) and _is(item, "property") and not item.name.startswith("_"):
                said = " ".join(_doc(where, item, name).split())
                returns = ast.unparse(item.returns) if item.returns is not None else ""
                attributes.append(f"- `{item.name}: {returns}`{f': {said}' if said else ''}")
            elif isinstance(item, Function) and not item.name.startswith("_") and not _is(item, "overload"):
                methods = [m for m in methods if m[2].name != item.name]
                methods.append((where, name, item, isinstance(item, ast.AsyncFunctionDef)))
            elif isinstance(item, ast.Assign) and ast.unparse(item.value).startswith("_awaited("):
                admin = "fastlog.client.admin"
                other = _source(admin)[1]["Admin"]
                assert isinstance(other, ast.ClassDef)
                call = ast.unparse(item.value).partition(".")[2].rstrip(")")
                methods += [(admin, "Admin", n, True) for n in other.body if isinstance(n, ast.FunctionDef) and n.name == call]
    yield from [*attributes, ""] if attributes else ()
    for where, name, method, coroutine in methods:
        yield from (f"### {node.name}.{method.name}", "", "```python", _signature(method, method=True, coroutine=coroutine), "```", "")
        if said := _doc(where, method, name):
            yield from (said, "")


def _entry(module: str, name: str) -> Iterator[str]:
    node = _source(module)[1][name]
    if isinstance(node, ast.ClassDef):
        yield from _class(module, node)
    elif isinstance(node, ast.FunctionDef):
        fixture = module.endswith("pytest_plugin")
        call = name if fixture else _signature(node, method=False, coroutine=False)
        yield from (f"## {name}", "", "```python", call, "```", "", ast.get_docstring(node) or "", "")


def _codes() -> Iterator[str]:
    """A class for each of Kafka's codes."""
    from fastlog.client.errors import BY_CODE

    yield from ("## A class for each of Kafka's codes", "", "In `fastlog.client.errors`; all are `ClientError`.", "")
    yield from ("| code | class | retriable |", "|---|---|---|")
    for code, made in sorted(BY_CODE.items()):
        yield f"| {code} {made.__dict__['kafka_name']} | `{made.__name__}` | {'yes' if made.retriable else ''} |"
    yield ""


def page(name: str) -> str:
    title, said, contents = CONTENTS[name]
    lines = [f"# {title}", "", said, "", f"Made from the code's docstrings by `{COMMAND}`; a test holds it to them.", ""]
    for entry in contents:
        module, _, what = entry.partition(":")
        module = module or _stub(what)
        for each in _source(module)[1] if what == "*" else (what,):
            lines += _entry(module, each)
    if name == "errors":
        lines += _codes()
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"
