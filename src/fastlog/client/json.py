"""JSON for keys and values, by msgspec (`pip install fastlog-broker[json]`): fast, and typed where a type is given.

    class Order(msgspec.Struct):
        item: str
        count: int

    Producer(value_serializer=json_serializer())
    Consumer(value_deserializer=json_deserializer(Order))
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, overload

from fastlog.client.failures import ConfigError

T = TypeVar("T")


def _msgspec() -> ModuleType:
    """Imported when it is first needed: the client itself does without."""
    try:
        import msgspec
    except ImportError as error:
        raise ConfigError("JSON needs msgspec: pip install fastlog-broker[json]") from error
    return msgspec


def json_serializer() -> Callable[[Any], bytes]:
    """Dicts, lists, dataclasses, msgspec.Struct and so on to JSON. ConfigError without msgspec; it raises TypeError for other things."""
    encode: Callable[[Any], bytes] = _msgspec().json.Encoder().encode
    return encode


@overload
def json_deserializer() -> Callable[[bytes], Any]: ...
@overload
def json_deserializer(kind: type[T]) -> Callable[[bytes], T]: ...
def json_deserializer(kind: Any = Any) -> Callable[[bytes], Any]:
    """JSON to Python's own types, or to `kind`, checked. What does not fit raises msgspec.ValidationError, a ValueError."""
    decode: Callable[[bytes], Any] = _msgspec().json.Decoder(kind).decode
    return decode
