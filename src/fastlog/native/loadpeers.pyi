from typing import Any

def run(
    protocol: str,
    descriptors: list[int],
    batch: bytes,
    records: int,
    *,
    window: int,
    rate: float,
    seconds: float,
    settle_seconds: float,
    drain_seconds: float,
    interval_seconds: float,
    batches_max: int,
    spin: bool,
) -> dict[str, Any]: ...
