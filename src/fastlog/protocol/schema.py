"""Reads the schema files: what every message of the protocol looks like in every version.

A file describes one API (request and response), or data that Kafka stores in records in the same encoding. Lines, indented
by two spaces a level, `#` starts a comment:

    api KEY NAME versions MIN-MAX [flexible V+] [advertised V+|none]   an API; `request` and `response` blocks follow
    data NAME versions MIN-MAX [flexible V+]                        a message by itself, its fields follow
    struct NAME                                                     fields shared by several structs of the file; comes before its use
    FIELD: TYPE [VERSIONS] [nullable [VERSIONS]] [tag N] [classic] [ignorable] [= DEFAULT]

VERSIONS are `3`, `3-5` or `3+` (to the newest); a field without them is in every version that its surroundings are in. `flexible`
names the first version with compact lengths and tagged fields (KIP-482). `advertised` is what ApiVersions says when that is not
what is served (`none`: nothing).

TYPE is bool, int8, int16, uint16, uint32, int32, int64, float64, uuid, string, bytes, records, `struct` (its fields follow, indented),
the name of a `struct` block (its fields' versions are the message's), or any of them after `[]` for an array. `nullable`: null is
allowed (in those versions). `tag N`: a tagged field. `classic`: keeps its older length prefix in flexible versions. `ignorable`: a
sender drops the value in a version that lacks the field; for any other field a value that is not the default is an error then.
DEFAULT is an integer, `true` or `null`; without one it is zero, false, "", b"", an empty array, the zero UUID, or a struct of
defaults.

Field names are those of Kafka's message definitions in snake case, versions those of Kafka 4.3, unstable ones left out.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from pathlib import Path

# What a field is when nothing was said; a struct's default is made of its fields'.
ZEROES: dict[str, object] = {
    **dict.fromkeys(("int8", "int16", "uint16", "uint32", "int32", "int64"), 0),
    "bool": False,
    "float64": 0.0,
    "uuid": UUID(int=0),
    "string": "",
    "bytes": b"",
    "records": b"",
}

_LINE = re.compile(r"(?P<name>[a-z][a-z0-9_]*): (?P<array>\[\])?(?P<type>\w+)(?P<rest>( .*)?)")
_VERSIONS = re.compile(r"(\d+)(?:(\+)|-(\d+))?")


class SchemaError(ValueError):
    """A schema file does not follow the syntax; the message names file and line."""


class Versions(NamedTuple):
    """A range of versions, both ends included."""

    first: int
    last: int

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and self.first <= version <= self.last

    def within(self, outer: Versions) -> bool:
        return outer.first <= self.first <= self.last <= outer.last

    def shared_with(self, other: Versions) -> Versions | None:
        """The versions in both."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Versions(first, last) if first <= last else None


class Field(NamedTuple):
    """A field of a struct, in all its versions."""

    name: str
    type: str
    array: bool
    versions: Versions
    nullable: Versions | None
    tag: int | None
    classic: bool
    ignorable: bool
    default: object
    """As a message carries it: a struct's is a dict."""
    fields: tuple[Field, ...]


class Schema(NamedTuple):
    """A message: `flexible` is its first version with compact lengths and tagged fields."""

    name: str
    versions: Versions
    flexible: int | None
    fields: tuple[Field, ...]


class ApiHead(NamedTuple):
    """The first line of an API's file."""

    key: int
    name: str
    versions: Versions
    flexible: int | None
    advertised: Versions | None
    path: Path


class _Line(NamedTuple):
    number: int
    depth: int
    text: str


_Fields: TypeAlias = tuple[Field, ...]


def _lines(text: str) -> list[_Line]:
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].rstrip()
        if line:
            spaces = len(line) - len(line.lstrip(" "))
            if spaces % 2:
                raise SchemaError(f"line {number}: indented by {spaces} spaces, expected a multiple of two")
            lines.append(_Line(number, spaces // 2, line.strip()))
    return lines


def _versions(word: str, outer: Versions) -> Versions:
    """`3`, `3-5` or `3+`; must lie within `outer`, whose last version `+` runs to."""
    match = _VERSIONS.fullmatch(word)
    if match is None:
        raise SchemaError(f"{word!r} is not a range of versions")
    first = int(match[1])
    last = outer.last if match[2] else int(match[3] or first)
    found = Versions(first, last)
    if not found.within(outer):
        raise SchemaError(f"versions {word} lie outside {outer.first}-{outer.last}")
    return found


class _Reader:
    """Reads the fields of one message in `versions`; `structs` are the file's named ones."""

    def __init__(self, lines: list[_Line], versions: Versions, structs: dict[str, list[_Line]]) -> None:
        self.lines = lines
        self.versions = versions
        self.structs = structs

    def fields(self, flexible: int | None, outer: Versions, at: int, depth: int) -> tuple[_Fields, int]:
        """The fields at `depth` from line `at` on, and the first line behind them."""
        fields: list[Field] = []
        while at < len(self.lines) and self.lines[at].depth >= depth:
            line = self.lines[at]
            try:
                if line.depth > depth:
                    raise SchemaError("indented too far")
                field, at = self._field(line, flexible, outer, at + 1)
                if field.name in {known.name for known in fields}:
                    raise SchemaError(f"{field.name} is already there")
            except SchemaError as error:
                if str(error).startswith("line "):
                    raise
                raise SchemaError(f"line {line.number}: {error}") from None
            fields.append(field)
        return tuple(fields), at

    def _field(self, line: _Line, flexible: int | None, outer: Versions, at: int) -> tuple[Field, int]:
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise SchemaError(f"{line.text!r} is not a field")
        words = match["rest"].split()
        versions = outer
        if words and words[0][0].isdigit():
            versions = _versions(words.pop(0), outer)
        nullable, tag, default = None, None, None
        flags = set()
        while words:
            word = words.pop(0)
            if word == "nullable":
                nullable = _versions(words.pop(0), versions) if words and words[0][0].isdigit() else versions
            elif word == "tag" and words and words[0].isdigit():
                tag = int(words.pop(0))
                if flexible is None or versions.first < flexible:
                    raise SchemaError("tagged in a version that is not flexible")
            elif word in {"classic", "ignorable"}:
                flags.add(word)
            elif word == "=" and len(words) == 1:
                default = words.pop()
            else:
                raise SchemaError(f"unexpected {word!r}")
        kind = match["type"]
        inner: _Fields = ()
        if kind == "struct":
            inner, at = self.fields(flexible, versions, at, line.depth + 1)
        elif kind in self.structs:
            shared, _ = _Reader(self.structs[kind], self.versions, {}).fields(flexible, self.versions, 0, 1)
            inner = _cut(shared, versions)
            kind = "struct"
        elif kind not in ZEROES:
            raise SchemaError(f"unknown type {kind!r}")
        array = match["array"] is not None
        return (
            Field(
                name=match["name"],
                type=kind,
                array=array,
                versions=versions,
                nullable=nullable,
                tag=tag,
                classic="classic" in flags,
                ignorable="ignorable" in flags,
                default=_default(default, kind, array, nullable, inner),
                fields=inner,
            ),
            at,
        )


def _cut(fields: _Fields, outer: Versions) -> _Fields:
    """A named struct's fields where it is used: those that any version there has."""
    made = []
    for field in fields:
        versions = field.versions.shared_with(outer)
        if versions is not None:
            nullable = field.nullable and field.nullable.shared_with(versions)
            made.append(field._replace(versions=versions, nullable=nullable, fields=_cut(field.fields, versions)))
    return tuple(made)


def _default(word: str | None, kind: str, array: bool, nullable: Versions | None, inner: _Fields) -> object:
    if word is None:
        if array:
            return []
        return {field.name: field.default for field in inner} if kind == "struct" else ZEROES[kind]
    if word == "null":
        if nullable is None:
            raise SchemaError("null is the default of a field that is never null")
        return None
    if not array and kind == "bool" and word == "true":
        return True
    if not array and "int" in kind and re.fullmatch(r"-?\d+", word):
        return int(word)
    raise SchemaError(f"{word!r} cannot be the default of {kind}")


def _head(text: str) -> tuple[list[str], Versions, int | None, Versions | None]:
    """The words before `versions`, the versions, the first flexible one, and the advertised ones."""
    words = text.split()
    if "versions" not in words:
        raise SchemaError(f"{text!r} names no versions")
    at = words.index("versions")
    options = dict(zip(words[at::2], words[at + 1 :: 2], strict=True))
    if not options.keys() <= {"versions", "flexible", "advertised"}:
        raise SchemaError(f"{text!r} has unknown options")
    versions = _versions(options["versions"], Versions(0, 1 << 15))
    flexible = _versions(options["flexible"], Versions(0, versions.last)).first if "flexible" in options else None
    advertised: Versions | None = versions
    if "advertised" in options:
        advertised = None if options["advertised"] == "none" else _versions(options["advertised"], Versions(0, versions.last))
    return words[:at], versions, flexible, advertised


def parse(text: str) -> dict[str, Schema]:
    """The messages of a file's text: `request` and `response`, or data by name. Raises SchemaError."""
    blocks: list[list[_Line]] = []
    for line in _lines(text):
        if line.depth == 0:
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
        else:
            raise SchemaError(f"line {line.number}: a field before any block")
    structs: dict[str, list[_Line]] = {}
    messages: dict[str, Schema] = {}
    api: tuple[str, Versions, int | None] | None = None
    for head, *lines in blocks:
        words = head.text.split()
        if words[0] == "struct" and len(words) == 2:
            structs[words[1]] = lines
        elif words[0] in {"api", "data"}:
            names, versions, flexible, _ = _head(head.text)
            if words[0] == "api":
                api = (names[2], versions, flexible)
            else:
                messages[names[1]] = _schema(names[1], versions, flexible, lines, structs)
        elif words in (["request"], ["response"]) and api is not None:
            messages[words[0]] = _schema(api[0] + words[0].capitalize(), api[1], api[2], lines, structs)
        else:
            raise SchemaError(f"line {head.number}: unexpected {head.text!r}")
    return messages


def _schema(name: str, versions: Versions, flexible: int | None, lines: list[_Line], structs: dict[str, list[_Line]]) -> Schema:
    fields, _ = _Reader(lines, versions, structs).fields(flexible, versions, 0, 1)
    return Schema(name, versions, flexible, fields)


@cache
def directory() -> Path:
    """Where the schema files are."""
    from pathlib import Path

    return Path(__file__).parent / "schemas"


def load(path: Path) -> dict[str, Schema]:
    """`parse` of a file; errors name it."""
    try:
        return parse(path.read_text("utf-8"))
    except SchemaError as error:
        raise SchemaError(f"{path.name}: {error}") from None


def api_heads() -> list[ApiHead]:
    """The first lines of all API files, by key: enough for ApiVersions without reading every schema."""
    heads = []
    for path in sorted(directory().glob("[0-9]*.schema")):
        with path.open(encoding="utf-8") as file:
            line = next(text for text in file if not text.startswith("#")).strip()
        (_, key, name), versions, flexible, advertised = _head(line)
        heads.append(ApiHead(int(key), name, versions, flexible, advertised, path))
    return heads


# One struct in one version, as the compiled codec takes it: whether it is flexible; its fields (name, type, array, nullable, compact
# lengths, tag or -1, default, the plan of a struct's fields); those that this version lacks (default, ignorable).
Plan: TypeAlias = "tuple[bool, list[PlannedField], dict[str, tuple[object, bool]]]"
PlannedField: TypeAlias = "tuple[str, str, bool, bool, bool, int, object, Plan | None]"


def plan(schema: Schema, version: int) -> Plan:
    """The message in one version."""
    return _plan(schema.fields, version, schema.flexible is not None and version >= schema.flexible)


def _plan(fields: _Fields, version: int, flexible: bool) -> Plan:
    present: list[PlannedField] = []
    absent: dict[str, tuple[object, bool]] = {}
    for field in fields:
        if version in field.versions:
            nullable = field.nullable is not None and version in field.nullable
            tag = -1 if field.tag is None else field.tag
            inner = _plan(field.fields, version, flexible) if field.type == "struct" else None
            compact = flexible and not field.classic
            present.append((field.name, field.type, field.array, nullable, compact, tag, field.default, inner))
        else:
            absent[field.name] = (field.default, field.ignorable)
    return flexible, present, absent
