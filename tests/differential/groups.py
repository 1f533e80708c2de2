"""Groups of the classic protocol: members, generations, committed offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step, topic_id
from tests.differential.symbols import Ref

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step

_TOPICS = ["§a", "§b", "§missing"]
_GROUPS = ["§g", "§h", "§nobody"]
# A subscription and an assignment of version 0: no topics, user data. Kafka never answers a join of what it can't read.
_NOTHING = b"\0\0\0\0\0\0"


def _commit(chance: random.Random, group: str, generation: int, member: Any, instance: str | None = None) -> Step:
    topics = []
    for name in some(chance, _TOPICS):
        parts = [
            {
                "partition_index": p,
                "committed_offset": chance.choice([0, 1, 5, 100, -1]),
                "committed_leader_epoch": chance.choice([-1, 0, 3]),
                "committed_metadata": chance.choice(["", "m", None, "x" * 4096, "x" * 4097]),
            }
            for p in some(chance, [0, 1, 2, 5])
        ]
        topics.append({"name": name, "topic_id": topic_id(name, chance), "partitions": parts})
    message = {"group_id": group, "generation_id_or_member_epoch": generation, "member_id": member, "group_instance_id": instance}
    return step("OffsetCommit", chance, message | {"retention_time_ms": -1, "topics": topics})


def _fetch(chance: random.Random) -> Step:
    asked = [{"name": n, "topic_id": topic_id(n, chance), "partition_indexes": some(chance, [0, 1, 2, 5])} for n in some(chance, _TOPICS)]
    groups = [
        {"group_id": g, "member_id": None, "member_epoch": -1, "topics": asked if chance.random() < 0.7 else None}
        for g in some(chance, _GROUPS, 2)
    ]
    topics = asked if chance.random() < 0.7 else None
    message = {"group_id": groups[0]["group_id"], "topics": topics, "groups": groups, "require_stable": chance.random() < 0.3}
    return step("OffsetFetch", chance, message, at_least=1 if topics is not None else 2)


def _about(chance: random.Random) -> Step:
    """Questions that change nothing."""
    match chance.randrange(3):
        case 0:
            return step("DescribeGroups", chance, {"groups": some(chance, _GROUPS), "include_authorized_operations": chance.random() < 0.5})
        case 1:
            states = chance.choice([[], ["Stable"], ["Empty"], ["stable", "EMPTY"], ["nonsense"], ["Dead"]])
            types = chance.choice([[], ["classic"], ["Consumer"], ["nonsense"]])
            return step("ListGroups", chance, {"states_filter": states, "types_filter": types})
    return _fetch(chance)


def _delete(chance: random.Random) -> Step:
    if chance.random() < 0.5:
        return step("DeleteGroups", chance, {"groups_names": some(chance, _GROUPS)})
    topics = [{"name": n, "partitions": [{"partition_index": p} for p in some(chance, [0, 1, 5])]} for n in some(chance, _TOPICS)]
    return step("OffsetDelete", chance, {"group_id": chance.choice(_GROUPS), "topics": topics})


def offsets(chance: random.Random, length: int) -> Iterator[Step]:
    """Offsets of consumers that manage themselves: no members."""
    yield create({"§a": 3, "§b": 1})
    for _ in range(length):
        match chance.randrange(10):
            case 0 | 1 | 2:
                yield _commit(chance, chance.choice(_GROUPS), chance.choice([-1, -1, -1, 0, 1]), chance.choice(["", "", "", "x"]))
            case 3 | 4 | 5 | 6:
                yield _about(chance)
            case 7:
                yield _delete(chance)
            case _:
                yield _fetch(chance)


def _join(
    group: str,
    member: Any,
    *,
    version: int,
    protocols: list[str],
    session: int = 120_000,
    rebalance: int = 120_000,
    instance: str | None = None,
) -> dict[str, Any]:
    message = {
        "group_id": group,
        "session_timeout_ms": session,
        "rebalance_timeout_ms": rebalance,
        "member_id": member,
        "group_instance_id": instance,
        "protocol_type": "consumer",
        "protocols": [{"name": p, "metadata": _NOTHING + len(p).to_bytes(4, "big") + p.encode()} for p in protocols],
        "reason": None,
    }
    return {"api": "JoinGroup", "version": version, "message": message}


def member(chance: random.Random, length: int) -> Iterator[Step]:
    """One member at a time, so that everything is answered at once."""
    yield create({"§a": 3, "§b": 1})
    instance = chance.choice([None, None, "§i"])
    version = chance.randint(5 if instance else 0, 9)
    generation = 0
    joined = False
    for _ in range(length):
        who: Any = Ref("member", "m") if joined else ""
        claimed = chance.choice([generation] * 6 + [generation - 1, generation + 1, -1])
        as_who: Any = chance.choice([who] * 7 + ["", "stranger", Ref("member", "m")])
        static = chance.choice([instance] * 8 + [None, "§other"])
        names = {"group_id": "§g", "generation_id": claimed, "member_id": as_who, "group_instance_id": static}
        low = 5 if static else 0
        match chance.randrange(12):
            case 0 | 1 | 2:
                if not joined:
                    yield _join("§g", "", version=version, protocols=["range", "sticky"], instance=instance) | {"as": "m", "sane": True}
                    joined = True
                yield _join("§g", Ref("member", "m"), version=version, protocols=["range", "sticky"], instance=instance) | {
                    "as": "m",
                    "sane": True,
                }
                generation += 1
            case 3 | 4:
                share = [{"member_id": who, "assignment": _NOTHING + b"\xff\xff\xff\xff"}] if chance.random() < 0.8 else []
                given = {"protocol_type": "consumer", "protocol_name": chance.choice(["range", "range", "range", None, "other"])}
                yield step("SyncGroup", chance, names | given | {"assignments": share}, at_least=3 if static else 0)
            case 5 | 6:
                yield step("Heartbeat", chance, names, at_least=3 if static else 0)
            case 7 | 8:
                yield _commit(chance, "§g", claimed, as_who, static) | ({"version": chance.randint(7, 10)} if static else {})
            case 9:
                yield _about(chance)
            case 10:
                yield _delete(chance)
            case _:
                leaving = [{"member_id": as_who, "group_instance_id": static, "reason": "bye"}]
                yield step("LeaveGroup", chance, {"group_id": "§g", "member_id": as_who, "members": leaving}, at_least=3 if low else 0)
                if as_who == who and static == instance:
                    joined = False


def members(chance: random.Random, length: int) -> Iterator[Step]:
    """Two members: the second joins while the first is in, both rejoin, the leader shares out, one leaves."""
    yield create({"§a": 3, "§b": 1})
    version = chance.randint(1, 9)
    instances = [None, None] if version < 5 or chance.random() < 0.5 else ["§i0", "§i1"]
    protocols = [["range", "sticky"], chance.choice([["range"], ["range", "sticky"], ["other"]])]

    def join(index: int, who: Any, **more: Any) -> Step:
        made = _join("§g", who, version=version, protocols=protocols[index], instance=instances[index])
        return made | {"conn": index + 1, "as": f"m{index}", "sane": True} | more

    ids = [Ref("member", "m0"), Ref("member", "m1")]

    def sync(index: int, generation: int, **more: Any) -> Step:
        shares = [{"member_id": who, "assignment": _NOTHING + b"\0\0\0\1%d" % i} for i, who in enumerate(ids)] if index == 0 else []
        message = {
            "group_id": "§g",
            "generation_id": generation,
            "member_id": ids[index],
            "group_instance_id": instances[index],
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": shares,
        }
        return step("SyncGroup", chance, message, at_least=5 if instances[index] else 0, conn=index + 1, sane=True) | more

    def beat(index: int, generation: int) -> Step:
        names = {"group_id": "§g", "generation_id": generation, "member_id": ids[index], "group_instance_id": instances[index]}
        return step("Heartbeat", chance, names, at_least=3, conn=index + 1)

    dynamic = version >= 4 and instances[0] is None
    yield join(0, "")
    if dynamic:
        yield join(0, ids[0])
    yield sync(0, 1)
    yield beat(0, 1)
    if dynamic:
        yield join(1, "")
    yield join(1, ids[1] if dynamic else "", defer=True)
    yield {"until": "PreparingRebalance", "group": "§g"}
    yield step("DescribeGroups", chance, {"groups": ["§g"]}, sane=True)
    yield beat(0, 1)
    yield _commit(chance, "§g", 1, ids[0], instances[0]) | ({"version": chance.randint(7, 10)} if instances[0] else {})
    yield join(0, ids[0])
    yield {"collect": 2}
    yield step("DescribeGroups", chance, {"groups": ["§g"]}, sane=True)
    yield sync(1, 2, defer=True)
    yield sync(0, 2)
    yield {"collect": 2}
    for _ in range(length // 3):
        index = chance.randrange(2)
        match chance.randrange(4):
            case 0:
                yield beat(index, chance.choice([2, 2, 1, 3]))
            case 1:
                yield _commit(chance, "§g", chance.choice([2, 2, 1]), ids[index], instances[index]) | (
                    {"version": chance.randint(7, 10)} if instances[index] else {}
                )
            case _:
                yield _about(chance)
    leaving = [
        {"member_id": ids[1], "group_instance_id": instances[1], "reason": None},
        {"member_id": "stranger", "group_instance_id": None},
    ]
    yield step("LeaveGroup", chance, {"group_id": "§g", "member_id": ids[1], "members": leaving}, at_least=3)
    yield beat(0, 2)
    yield step("DescribeGroups", chance, {"groups": ["§g"]}, sane=True)
    yield _delete(chance)
