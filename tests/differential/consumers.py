"""Groups of the new protocol (KIP-848): two members, right epochs and wrong ones, what classic requests get from such a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.steps import create, some, step
from tests.differential.symbols import Ref

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.differential.target import Step


def _beat(name: str, chance: random.Random, version: int, **message: Any) -> Step:
    whole = {
        "group_id": "§g",
        "member_id": f"§{name}",
        "member_epoch": Ref("member_epoch", name),
        "instance_id": None,
        "rack_id": None,
        "rebalance_timeout_ms": -1,
        "subscribed_topic_names": None,
        "subscribed_topic_regex": None,
        "server_assignor": None,
        "topic_partitions": None,
    }
    return {"api": "ConsumerGroupHeartbeat", "version": version, "message": whole | message, "as": name, "sane": True}


def _owned(chance: random.Random) -> list[dict[str, Any]]:
    return [{"topic_id": Ref("topic_id", "§a"), "partitions": some(chance, [0, 1, 2])}] if chance.random() < 0.6 else []


def consumers(chance: random.Random, length: int) -> Iterator[Step]:
    yield create({"§a": 3, "§b": 1})
    instance = chance.choice([None, None, None, "§i"])
    joined: set[str] = set()

    def join(name: str) -> Step:
        topics = some(chance, ["§a", "§b", "§missing"])
        how: dict[str, Any] = {"subscribed_topic_names": topics}
        version = chance.choice([1, 1, 0])
        if version == 1 and chance.random() < 0.15:
            how = {"subscribed_topic_regex": chance.choice(["§a", "nothing", "("])}
        if chance.random() < 0.3:
            how["server_assignor"] = chance.choice(["uniform", "range", "nonsense"])
        if name == "m":
            how["instance_id"] = instance
        joined.add(name)
        return _beat(name, chance, version, member_epoch=0, rebalance_timeout_ms=30_000, topic_partitions=[], **how)

    yield join("m")
    for _ in range(length):
        name = chance.choice(["m", "m", "n"])
        version = chance.randint(0, 1)
        match chance.randrange(14):
            case 0:
                yield join(name)
            case 1 | 2 | 3:
                yield _beat(name, chance, version)
            case 4:
                yield _beat(name, chance, version, topic_partitions=_owned(chance))
            case 5:
                yield _beat(name, chance, version, member_epoch=Ref("member_epoch", name, chance.choice([-1, 1, 5])))
            case 6:
                odd: list[dict[str, Any]] = [
                    {"member_id": ""},
                    {"member_id": "stranger"},
                    {"group_id": ""},
                    {"rack_id": ""},
                    {"instance_id": ""},
                    {"member_epoch": 0, "rebalance_timeout_ms": -1},
                    {"member_epoch": 0, "rebalance_timeout_ms": 1000, "subscribed_topic_names": None, "topic_partitions": []},
                    {"member_epoch": 0, "rebalance_timeout_ms": 1000, "subscribed_topic_names": ["§a"], "topic_partitions": None},
                    {"member_epoch": -3},
                    {"subscribed_topic_names": ["§b"]},
                    {"subscribed_topic_names": []},
                ]
                yield _beat(name, chance, version, **chance.choice(odd))
            case 7:
                yield _beat(name, chance, version, member_epoch=-1)
            case 8 | 9:
                groups = some(chance, ["§g", "§nobody", ""])
                yield step("ConsumerGroupDescribe", chance, {"group_ids": groups, "include_authorized_operations": chance.random() < 0.3})
            case 10:
                at = {"partition_index": 0, "committed_offset": 5, "committed_leader_epoch": -1, "committed_metadata": ""}
                topics = [{"name": "§a", "topic_id": Ref("topic_id", "§a"), "partitions": [at]}]
                epoch = chance.choice([Ref("member_epoch", name), Ref("member_epoch", name, 1), -1, 0])
                who = {"group_id": "§g", "generation_id_or_member_epoch": epoch, "member_id": chance.choice([f"§{name}", ""])}
                yield step("OffsetCommit", chance, who | {"group_instance_id": None, "retention_time_ms": -1, "topics": topics}, sane=True)
            case 11:
                asked = [{"name": "§a", "topic_id": Ref("topic_id", "§a"), "partition_indexes": [0, 1]}]
                epoch = chance.choice([Ref("member_epoch", name), Ref("member_epoch", name, 1), -1])
                group = {"group_id": "§g", "member_id": chance.choice([f"§{name}", None]), "member_epoch": epoch, "topics": asked}
                message = {"group_id": "§g", "topics": asked, "groups": [group], "require_stable": False}
                yield step("OffsetFetch", chance, message, at_least=8, sane=True)
            case 12:
                yield _classic(chance, name)
            case _:
                yield step("DeleteGroups", chance, {"groups_names": ["§g"]}, sane=True)


def _classic(chance: random.Random, name: str) -> Step:
    """What the requests of the other protocol get."""
    match chance.randrange(4):
        case 0:
            return step("DescribeGroups", chance, {"groups": ["§g"], "include_authorized_operations": False})
        case 1:
            types = chance.choice([[], ["classic"], ["consumer"]])
            return step("ListGroups", chance, {"states_filter": [], "types_filter": types}, sane=True)
        case 2:
            message = {"group_id": "§g", "generation_id": 1, "member_id": f"§{name}", "group_instance_id": None}
            return step("Heartbeat", chance, message, sane=True)
    leaving = [{"member_id": f"§{name}", "group_instance_id": None, "reason": None}]
    return step("LeaveGroup", chance, {"group_id": "§g", "member_id": f"§{name}", "members": leaving}, sane=True)
