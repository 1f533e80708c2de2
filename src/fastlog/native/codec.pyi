from typing import Any, TypeAlias

# One struct in one version: whether it is flexible (KIP-482); its fields (name, type, array, nullable, compact lengths, tag or -1,
# default, the plan of a struct's fields); the fields that this version lacks, with their default and whether a sender may drop them.
Plan: TypeAlias = tuple[bool, list[PlannedField], dict[str, tuple[object, bool]]]
PlannedField: TypeAlias = tuple[str, str, bool, bool, bool, int, object, Plan | None]

MAX_ELEMENTS: int

class CodecError(ValueError):
    path: str
    """The field, as in "topics[3].name"; "" for the message itself."""
    reason: str

class DecodeError(CodecError):
    offset: int
    """Where in the bytes, counted from the message's first."""
    def __init__(self, name: str, path: str, offset: int, reason: str) -> None: ...

class EncodeError(CodecError):
    def __init__(self, name: str, path: str, reason: str) -> None: ...

class Codec:
    name: str
    def __init__(self, name: str, plan: Plan) -> None: ...
    def decode(self, data: bytes | bytearray | memoryview, *, max_elements: int = ...) -> dict[str, Any]: ...
    def decode_prefix(self, data: bytes | bytearray | memoryview, *, max_elements: int = ...) -> tuple[dict[str, Any], int]: ...
    def encode(self, message: dict[str, Any]) -> bytes: ...
