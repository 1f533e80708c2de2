"""Encodes requests as the schemas say, without caring whether they are allowed: null where there is none, numbers that wrap."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastlog.protocol import schema
from fastlog.protocol.messages import API_BY_KEY

if TYPE_CHECKING:
    from fastlog.protocol.schema import Plan

_SIZES = {"int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8}
_SCHEMAS: dict[int, dict[str, schema.Schema]] = {}


def request_schema(key: int) -> schema.Schema:
    if key not in _SCHEMAS:
        path = next(head.path for head in schema.api_heads() if head.key == key)
        _SCHEMAS[key] = schema.load(path)
    return _SCHEMAS[key]["request"]


def encode(key: int, version: int, message: dict[str, Any]) -> bytes:
    """A request's body. Fields that the version lacks are left out, those that the message lacks are their defaults."""
    out = bytearray()
    _struct(out, schema.plan(request_schema(key), version), message)
    return bytes(out)


def header(key: int, version: int, correlation: int, client_id: str) -> bytes:
    name = client_id.encode()
    made = struct.pack(">hhih", key, version, correlation, len(name)) + name
    return made + b"\0" if API_BY_KEY[key].request_header_version(version) == 2 else made


def _varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _length(out: bytearray, length: int | None, *, compact: bool, wide: bool) -> None:
    if compact:
        _varint(out, 0 if length is None else length + 1)
    else:
        out += struct.pack(">i" if wide else ">h", -1 if length is None else length)


def _struct(out: bytearray, plan: Plan, message: dict[str, Any]) -> None:
    flexible, fields, _ = plan
    tagged: list[tuple[int, bytes]] = []
    for name, kind, array, nullable, compact, tag, default, inner in fields:
        value = message.get(name, default)
        if tag >= 0:
            if value != default:
                part = bytearray()
                _value(part, kind, array, compact, inner, value)
                tagged.append((tag, bytes(part)))
        else:
            if nullable and kind == "struct" and not array:
                out.append(0xFF if value is None else 1)
            if value is not None or kind != "struct" or array:
                _value(out, kind, array, compact, inner, value)
    if flexible:
        _varint(out, len(tagged))
        for tag, data in sorted(tagged):
            _varint(out, tag)
            _varint(out, len(data))
            out += data


def _value(out: bytearray, kind: str, array: bool, compact: bool, inner: Plan | None, value: Any) -> None:
    if array:
        _length(out, None if value is None else len(value), compact=compact, wide=True)
        for item in value or ():
            _scalar(out, kind, compact, inner, item)
    else:
        _scalar(out, kind, compact, inner, value)


def _scalar(out: bytearray, kind: str, compact: bool, inner: Plan | None, value: Any) -> None:
    match kind:
        case "bool":
            out.append(int(bool(value)))
        case "float64":
            out += struct.pack(">d", value or 0.0)
        case "uuid":
            out += (value or UUID(int=0)).bytes
        case "string":
            data = None if value is None else value.encode()
            _length(out, None if data is None else len(data), compact=compact, wide=False)
            out += data or b""
        case "bytes" | "records":
            _length(out, None if value is None else len(value), compact=compact, wide=True)
            out += value or b""
        case "struct":
            assert inner is not None
            _struct(out, inner, value or {})
        case _:
            size = _SIZES[kind]
            out += ((value or 0) % (1 << 8 * size)).to_bytes(size, "big")
