from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

class Commit:
    head: dict[str, Any]
    topics: list[tuple[str, UUID, int, int]]
    def pack(
        self,
        names: list[str],
        now_ms: int,
        expire_ms: int,
        metadata_max: int,
        check: Callable[[str, UUID, int], None] | None,
        record_type: type,
        value_type: type,
    ) -> tuple[list[Any], list[tuple[bytes, bytes | None]]] | None: ...
    def answer(self, error: int) -> bytes: ...

def read_commit(version: int, body: bytes | memoryview) -> Commit | None: ...
def hold_commits(topics: dict[str, dict[int, Any]], records: Sequence[Any]) -> int: ...
