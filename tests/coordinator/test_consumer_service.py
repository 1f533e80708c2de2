"""Consumer groups (KIP-848) through the service: what is refused at once, and a log that fails."""

from __future__ import annotations

from typing import Any

import pytest

from fastlog.coordinator.settings import GroupSettings, OfGroup, Settings
from fastlog.protocol.errors import Error
from tests.coordinator.serving import Served, asynchronous, until


@pytest.mark.parametrize(
    ("epoch", "changes", "error"),
    [
        (0, {"group_id": " "}, Error.INVALID_REQUEST),
        (0, {"member_id": ""}, Error.INVALID_REQUEST),
        (0, {"instance_id": ""}, Error.INVALID_REQUEST),
        (0, {"rack_id": ""}, Error.INVALID_REQUEST),
        (0, {"rebalance_timeout_ms": -1}, Error.INVALID_REQUEST),
        (0, {"topic_partitions": None}, Error.INVALID_REQUEST),
        (0, {"topic_partitions": [{"topic_id": None, "partitions": [0]}]}, Error.INVALID_REQUEST),
        (0, {"subscribed_topic_names": None}, Error.INVALID_REQUEST),
        (0, {"server_assignor": "sticky"}, Error.UNSUPPORTED_ASSIGNOR),
        (-2, {}, Error.INVALID_REQUEST),
        (-3, {}, Error.INVALID_REQUEST),
        (-1, {}, Error.GROUP_ID_NOT_FOUND),
        (7, {}, Error.GROUP_ID_NOT_FOUND),
        (0, {"subscribed_topic_regex": "*"}, Error.INVALID_REGULAR_EXPRESSION),
    ],
)
@asynchronous
async def test_what_is_refused(epoch: int, changes: dict[str, Any], error: Error) -> None:
    async with Served() as served:
        await served.loaded()
        answer = await served.beat("m", epoch, **changes)
        assert answer["error_code"] == error
        assert answer["error_message"]


@asynchronous
async def test_the_broker_gives_an_id_to_a_member_of_the_first_version_only() -> None:
    async with Served() as served:
        answer = await served.beat("", 0, version=0)
        assert answer["error_code"] == Error.NONE
        assert len(answer["member_id"]) == 22


@asynchronous
async def test_what_the_log_refuses_did_not_happen() -> None:
    async with Served() as served:
        await served.loaded()
        assert (await served.beat("a", 0))["member_epoch"] == 2
        served.log.fail = Error.NOT_ENOUGH_REPLICAS
        failed = await served.beat("b", 0)
        assert failed["error_code"] == Error.COORDINATOR_NOT_AVAILABLE
        served.log.fail = Error.NONE
        await until(lambda: served.service.gauges()["partitions_active"] == 3)
        (group,) = await served.service.describe_consumer_groups(["c"])
        assert (group["group_epoch"], [member["member_id"] for member in group["members"]]) == (2, ["a"])
        assert (await served.beat("a", 2))["error_code"] == Error.NONE
        again = await served.restarted()
        assert await again.service.describe_consumer_groups(["c"]) == [group]
        await again.service.stop()


@asynchronous
async def test_describing_names_what_is_not_there() -> None:
    async with Served() as served:
        await served.loaded()
        await served.beat("a", 0)
        found = await served.service.describe_consumer_groups(["", "none", "c"])
        assert [group["error_code"] for group in found] == [Error.INVALID_GROUP_ID, Error.GROUP_ID_NOT_FOUND, Error.NONE]
        listed = await served.service.list_groups([], ["Consumer"])
        assert [(group["group_id"], group["group_state"]) for group in listed["groups"]] == [("c", "Stable")]
        assert (await served.service.describe_groups(["c"], 6))[0]["error_message"] == "Group c is not a classic group."
        assert (await served.service.delete_groups(["c"]))[0]["error_code"] == Error.NON_EMPTY_GROUP


@asynchronous
async def test_offsets_are_fetched_by_the_members_epoch() -> None:
    async with Served() as served:
        await served.loaded()
        await served.beat("a", 0)
        await served.service.fetch_offsets("c", None, "a", 2, require_stable=True)
        for member, epoch, error in (("a", 1, Error.STALE_MEMBER_EPOCH), ("z", 2, Error.UNKNOWN_MEMBER_ID)):
            with pytest.raises(Exception, match=error.name):
                await served.service.fetch_offsets("c", None, member, epoch, require_stable=False)


def test_a_group_has_settings_of_its_own() -> None:
    own = {"consumer.session.timeout.ms": 50_000, "consumer.heartbeat.interval.ms": 7_000, "consumer.assignment.interval.ms": 0}
    settings = GroupSettings(Settings(), lambda _, name: own[name])
    assert settings.of("c") == OfGroup(50_000, 7_000, 0)
    own["consumer.heartbeat.interval.ms"] = 8_000
    settings.forget()
    assert settings.of("c").heartbeat_ms == 8_000
    assert GroupSettings(Settings()).of("c") == OfGroup(45_000, 5_000, 1_000)
