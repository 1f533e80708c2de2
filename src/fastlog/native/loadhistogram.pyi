from collections.abc import Iterable
from typing import Any

PERCENTILES: tuple[float, ...]

def summarize(values: Iterable[int]) -> dict[str, Any]: ...
def in_turns(first: Iterable[int], then: Iterable[int]) -> tuple[int, int]: ...
