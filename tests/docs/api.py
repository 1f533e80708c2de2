"""docs/api/: the client's classes from their sources, signatures as they are written there and docstrings as Python has them."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND: Final = "python -m tests.docs.pages"
SOURCE: Final = Path(__file__).parents[2] / "src"
Function = ast.FunctionDef | ast.AsyncFunctionDef

# What each page has: MODULE:NAME, in this order.
CONTENTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "producer": (
        "The producer",
        "Sending records; [client.md](../client.md) is the introduction.",
        (
            "fastlog.client.producer:Producer",
            "fastlog.native.clientproducer:Delivery",
            "fastlog.native.clientproducer:Deliveries",
            "fastlog.client.records:RecordMetadata",
        ),
    ),
    "consumer": (
        "The consumer",
        "Reading records; [client.md](../client.md) is the introduction.",
        (
            "fastlog.client.consumer:Consumer",
            "fastlog.native.clientrecords:Record",
            "fastlog.native.clientrecords:RecordBatch",
            "fastlog.native.clientrecords:RecordBatches",
            "fastlog.client.records:TopicPartition",
            "fastlog.client.records:OffsetAndTimestamp",
            "fastlog.client.transactions:GroupMetadata",
        ),
    ),
    "admin": ("The admin", "Looking at a cluster and changing it.", ("fastlog.client.admin:*",)),
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


def _doc(found: object, name: str) -> str:
    """Compiled functions' docstrings begin with a signature of their own, which is left out."""
    text = inspect.cleandoc(getattr(found, "__doc__", None) or "")
    first, _, rest = text.partition("\n")
    return inspect.cleandoc(rest) if f"{name}(" in first and first.split("(")[0].split(".")[-1] == name else text


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


def _class(module: str, node: ast.ClassDef, found: type) -> Iterator[str]:
    yield from (f"## {node.name}", "", _doc(found, node.name), "")
    attributes: list[str] = []
    methods: list[tuple[Function, bool]] = []
    for base in reversed(found.__mro__):
        if not base.__module__.startswith("fastlog."):
            continue
        lines, defined = _source(base.__module__)
        body = defined.get(base.__name__)
        for item in body.body if isinstance(body, ast.ClassDef) else ():
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
                comment = lines[item.lineno - 1].partition("  # ")[2]
                attributes.append(f"- `{item.target.id}: {ast.unparse(item.annotation)}`{f': {comment}' if comment else ''}")
            elif isinstance(item, Function) and _is(item, "property") and not item.name.startswith("_"):
                said = " ".join(_doc(getattr(found, item.name), item.name).split())
                returns = ast.unparse(item.returns) if item.returns is not None else ""
                attributes.append(f"- `{item.name}: {returns}`{f': {said}' if said else ''}")
            elif isinstance(item, Function) and not item.name.startswith("_") and not _is(item, "overload"):
                methods = [(n, c) for n, c in methods if n.name != item.name]
                methods.append((item, isinstance(item, ast.AsyncFunctionDef)))
            elif isinstance(item, ast.Assign) and ast.unparse(item.value).startswith("_awaited("):
                other = _source("fastlog.client.admin")[1]["Admin"]
                assert isinstance(other, ast.ClassDef)
                name = ast.unparse(item.value).partition(".")[2].rstrip(")")
                methods += [(n, True) for n in other.body if isinstance(n, ast.FunctionDef) and n.name == name]
    yield from [*attributes, ""] if attributes else ()
    for method, coroutine in methods:
        yield from (f"### {node.name}.{method.name}", "", "```python", _signature(method, method=True, coroutine=coroutine), "```", "")
        if said := _doc(getattr(found, method.name), method.name):
            yield from (said, "")


def _entry(module: str, name: str) -> Iterator[str]:
    node = _source(module)[1][name]
    found = getattr(importlib.import_module(module), name)
    if isinstance(node, ast.ClassDef):
        yield from _class(module, node, found)
    elif isinstance(node, ast.FunctionDef):
        fixture = _is(node, "fixture") or _is(node, ")")
        call = name if module.endswith("pytest_plugin") and fixture else _signature(node, method=False, coroutine=False)
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
        for each in _source(module)[1] if what == "*" else (what,):
            lines += _entry(module, each)
    if name == "errors":
        lines += _codes()
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"
