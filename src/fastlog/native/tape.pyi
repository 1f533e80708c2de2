from collections.abc import Callable, Iterable
from typing import Any

LIES: frozenset[str]

class Tape:
    events: list[tuple[Any, ...]]
    violations: list[str]
    choose: Callable[[int], int]
    fault: Callable[[str, str | int], int] | None
    lies: frozenset[str]
    opening: bool
    donor: Callable[[int], bytes] | None
    busy: int
    reads: list[tuple[int, int, int]]
    def __init__(self, choose: Callable[[int], int]) -> None: ...
    def take_over(self) -> None: ...
    def give_back(self) -> None: ...
    def kill(self, land: Callable[[bytes], Iterable[tuple[int, bytes]]]) -> None: ...
