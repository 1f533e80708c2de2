"""Steps that sequences are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastlog.protocol.messages import API_BY_NAME
from tests.differential.symbols import Ref

if TYPE_CHECKING:
    import random

    from tests.differential.target import Step

UNKNOWN_ID = UUID(int=0xABCDEF)


def step(
    api: str, chance: random.Random, message: dict[str, Any], *, at_least: int = 0, at_most: int = 99, named: str | None = None, **more: Any
) -> Step:
    """A request in a version by chance."""
    low, high = API_BY_NAME[api].versions
    return (
        {"api": api, "version": chance.randint(max(low, at_least), min(high, at_most)), "message": message}
        | ({"as": named} if named else {})
        | more
    )


def create(names: dict[str, int], configs: dict[str, str] | None = None) -> Step:
    """Topics by name, with their number of partitions; never made odd."""
    settings = [{"name": key, "value": value} for key, value in (configs or {}).items()]
    topics = [{"name": n, "num_partitions": count, "replication_factor": 1, "configs": settings} for n, count in names.items()]
    return {"api": "CreateTopics", "version": 7, "message": {"topics": topics, "timeout_ms": 30_000}, "sane": True}


def topic_id(name: str, chance: random.Random) -> Any:
    return Ref("topic_id", name) if chance.random() < 0.92 else UNKNOWN_ID


def some(chance: random.Random, items: list[Any], most: int = 3) -> list[Any]:
    return chance.sample(items, chance.randint(1, min(most, len(items))))
