# What batchtool.pyx has for Python. The keyword arguments `rules` are BatchRules' fields of the same names.

from typing import TypedDict, Unpack

from typing_extensions import Buffer

class Rules(TypedDict, total=False):
    size_max: int
    before_max_ms: int
    after_max_ms: int
    log_append_time: bool
    keys_required: bool
    look_inside: bool
    internal: bool
    codec: int
    level: int
    inflate_max: int

class Info(TypedDict):
    base_offset: int
    size: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

def peek(data: Buffer) -> Info | None: ...
def check(data: Buffer, now_ms: int, quick: bool = False, **rules: Unpack[Rules]) -> tuple[int, str | None, Info]: ...
def is_slow(data: Buffer, **rules: Unpack[Rules]) -> bool: ...
def recode(data: Buffer, **rules: Unpack[Rules]) -> tuple[int, str | None, bytes]: ...
def stamp(data: Buffer, base_offset: int, leader_epoch: int) -> None: ...
def find_time(data: Buffer, timestamp: int) -> tuple[int, int] | None: ...
