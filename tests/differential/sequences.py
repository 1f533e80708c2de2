"""Sequences of requests by chance: good ones, and the same made odd. A seed says all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from fastlog.protocol.messages import API_BY_NAME
from tests.differential import admin, consumers, groups, logs, settings, transactions
from tests.differential.odd import odd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.differential.target import Step

THEMES: dict[str, Callable[[random.Random, int], Iterator[Step]]] = {
    "topics": admin.topics,
    "configs": admin.configs,
    "cluster": admin.cluster,
    "settings": settings.settings,
    "quotas": settings.quotas,
    "operator": settings.operator,
    "log": logs.log,
    "idempotent": logs.idempotent,
    "sessions": logs.sessions,
    "offsets": groups.offsets,
    "member": groups.member,
    "members": groups.members,
    "consumers": consumers.consumers,
    "transactions": transactions.transactions,
}


def sequence(theme: str, seed: int, length: int) -> list[Step]:
    """About `length` steps; a part of them odd, a few spoiled in their bytes."""
    chance = random.Random(f"{theme}-{seed}")
    steps = []
    for good in THEMES[theme](chance, length):
        sane = good.pop("sane", "api" not in good)
        steps.append(good if sane else _disturbed(good, chance))
    return steps


def _disturbed(step: Step, chance: random.Random) -> Step:
    key, version = API_BY_NAME[step["api"]].key, step["version"]
    choice = chance.random()
    if choice < 0.4:
        return step | {"message": odd(key, version, step["message"], chance)}
    if choice < 0.43 and step["api"] not in {"CreateTopics", "CreatePartitions"}:
        return step | {"spoil": chance.choice([["cut", chance.randrange(1, 9)], ["add", chance.randrange(1, 9)]])}
    return step
