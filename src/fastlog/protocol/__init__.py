"""The Kafka protocol: schema files, messages by API key and version, error codes, record batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlog._core import CodecError, DecodeError, EncodeError

__all__ = ["CodecError", "DecodeError", "EncodeError"]


def __getattr__(name: str) -> Any:
    """The codec is loaded when one of its errors is first named: importing a client does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastlog import _core

    found = globals()[name] = getattr(_core, name)
    return found
