# What clientheaders.pyx has for Python.

from collections.abc import Mapping, Sequence

def encode_headers(headers: Sequence[tuple[str, bytes | None]] | Mapping[str, bytes | None]) -> bytes: ...
