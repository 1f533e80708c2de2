from collections.abc import Callable
from typing import Any
from uuid import UUID

def pack_commit(
    group: str,
    topics: list[dict[str, Any]],
    now_ms: int,
    expire_ms: int,
    metadata_max: int,
    too_large: int,
    good: int,
    check: Callable[[str, UUID, int], None] | None,
    record_type: type,
    value_type: type,
) -> tuple[list[Any], list[tuple[bytes, bytes | None]], list[dict[str, Any]]]: ...
