def make_batch(
    records: int,
    record_bytes: int,
    *,
    filling: int = 0,
    fillings: int = 1,
    seed: int = 1,
    connection: int = 0,
    due_ns: int = 0,
    wall_ms: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    sequence: int = -1,
    codec: int = 0,
    sections: list[bytes] | None = None,
) -> bytes: ...
def inspect(
    batch: bytes | bytearray | memoryview,
    records: int,
    record_bytes: int,
    *,
    fillings: int = 1,
    seed: int = 1,
    codec: int = 0,
    sections: list[bytes] | None = None,
) -> tuple[int, int, int]: ...
def checksum(data: bytes | bytearray | memoryview) -> int: ...
