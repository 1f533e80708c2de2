"""Quotas as administrators set and see them, and which of several holds for a client. As Kafka 4.3 answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker.mutations import CLIENTS_MAX, Mutations, TokenBuckets
from fastlog.broker.plane import ClientBounds, QuotaBound
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import API_BY_NAME
from tests.broker.running import Running, new_topic, running

if TYPE_CHECKING:
    from pathlib import Path

Parts = dict[str, str | None]
BYTES = "producer_byte_rate"
COMBINED = "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."


def entity(parts: Parts) -> list[dict[str, str | None]]:
    return [{"entity_type": kind, "entity_name": name} for kind, name in parts.items()]


async def alter(broker: Running, parts: Parts, version: int = 1, *, check_only: bool = False, **values: Any) -> tuple[Error, Any]:
    """`values`: quotas by key; None takes one away."""
    ops = [{"key": key, "value": value or 0.0, "remove": value is None} for key, value in values.items()]
    asked = [{"entity": entity(parts), "ops": ops}]
    (entry,) = (await broker.call("AlterClientQuotas", version, entries=asked, validate_only=check_only))["entries"]
    assert entry["entity"] == entity(parts)
    return Error(entry["error_code"]), entry["error_message"]


async def describe(broker: Running, *components: tuple[str, int, str | None], strict: bool = False) -> list[dict[str, Any]] | str:
    """The entities found; or what was wrong."""
    asked = [{"entity_type": kind, "match_type": how, "match": match} for kind, how, match in components]
    response = await broker.call("DescribeClientQuotas", components=asked, strict=strict)
    if response["error_code"]:
        assert response["entries"] is None
        return str(response["error_message"])
    return [{part["entity_type"]: part["entity_name"] for part in entry["entity"]} for entry in response["entries"]]


@pytest.mark.parametrize(
    ("parts", "values", "why"),
    [
        ({}, {BYTES: 1.0}, "Invalid empty client quota entity"),
        ({"zork": "a"}, {BYTES: 1.0}, "Unhandled client quota entity type: zork"),
        ({"client-id": ""}, {BYTES: 1.0}, "Empty client-id not supported"),
        ({"client-id": "a"}, {"bogus": 1.0}, "Invalid configuration key bogus"),
        ({"client-id": "a"}, {BYTES: -5.0}, f"Quota {BYTES} must be greater than 0"),
        ({"client-id": "a"}, {BYTES: float("nan")}, f"Quota {BYTES} must be greater than 0"),
        ({"client-id": "a"}, {BYTES: 1.5}, f"{BYTES} cannot be a fractional value."),
        ({"client-id": "a"}, {BYTES: 1e300}, f"Proposed value for {BYTES} is too large for a LONG."),
        ({"client-id": "a"}, {"connection_creation_rate": 10.0}, "Invalid configuration key connection_creation_rate"),
        ({"ip": "1.2.3.4"}, {"connection_creation_rate": 1e10}, "Proposed value for connection_creation_rate is too large for a INT."),
        ({"ip": "not an ip"}, {"connection_creation_rate": 1.0}, "not an ip is not a valid IP or resolvable host."),
        (
            {"ip": "1.2.3.4", "user": "u"},
            {"connection_creation_rate": 1.0},
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId",
        ),
    ],
)
def test_what_cannot_be_a_quota(tmp_path: Path, parts: Parts, values: dict[str, Any], why: str) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            for version in range(*API_BY_NAME["AlterClientQuotas"].versions):
                assert await alter(broker, parts, version, **values) == (Error.INVALID_REQUEST, why)
            assert await describe(broker) == []

    asyncio.run(run())


def test_of_an_entity_that_is_named_twice_the_first_counts_and_the_answer_is_no(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            one: dict[str, Any] = {"entity": entity({"client-id": "a"}), "ops": [{"key": BYTES, "value": 5.0, "remove": False}]}
            for entries in ([one, one], [one | {"ops": one["ops"] * 2}]):
                (answer,) = (await broker.call("AlterClientQuotas", entries=entries))["entries"]
                why = "Ignoring duplicate entity ClientQuotaEntity(entries={client-id=a})"
                assert (answer["error_code"], answer["error_message"]) == (Error.INVALID_REQUEST, why)
            assert len(await describe(broker)) == 1
            assert await alter(broker, {"client-id": "a"}, producer_byte_rate=None) == (Error.NONE, None)
            assert await describe(broker) == []

    asyncio.run(run())


def test_what_is_shown(tmp_path: Path) -> None:
    a: Parts = {"client-id": "a"}
    default: Parts = {"client-id": None}
    both: Parts = {"client-id": "a", "user": "u"}
    user: Parts = {"user": "u"}
    address: Parts = {"ip": "1.2.3.4"}

    async def run() -> None:
        async with running(tmp_path) as broker:
            for parts in (a, default, both, user):
                assert (await alter(broker, parts, producer_byte_rate=1000.0, request_percentage=12.5))[0] == Error.NONE
            assert (await alter(broker, address, connection_creation_rate=10.0))[0] == Error.NONE
            assert (await alter(broker, user, request_percentage=None))[0] == Error.NONE
        async with running(tmp_path) as broker:  # and they are kept
            every = [default, a, both, address, user]
            assert await describe(broker) == every
            assert await describe(broker, strict=True) == []
            assert await describe(broker, ("client-id", 0, "a")) == [a, both]
            assert await describe(broker, ("client-id", 0, "a"), strict=True) == [a]
            assert await describe(broker, ("client-id", 1, None)) == [default]
            assert await describe(broker, ("client-id", 2, None), strict=True) == [default, a]
            assert await describe(broker, ("client-id", 2, None), ("user", 2, None), strict=True) == [both]
            assert await describe(broker, ("ip", 2, None)) == [address]
            only = [{"entity_type": "user", "match": "u"}]
            (found,) = (await broker.call("DescribeClientQuotas", components=only, strict=True))["entries"]
            assert found["values"] == [{"key": BYTES, "value": 1000.0}]
            for components, why in (
                ([("zork", 0, "u")], "Unsupported entity type zork"),
                ([("", 0, "u")], "Invalid empty entity type."),
                ([("user", 0, None)], "Request specified MATCH_TYPE_EXACT, but set match string to null."),
                ([("user", 1, "a")], "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."),
                ([("user", 9, None)], "Unknown match type 9"),
                ([("user", 2, None)] * 2, "Entity type user cannot appear more than once in the filter."),
                (
                    [("ip", 2, None), ("user", 2, None)],
                    COMBINED,
                ),
            ):
                assert await describe(broker, *components) == why

    asyncio.run(run())


def test_which_of_several_holds(tmp_path: Path) -> None:
    """The most telling one; those of a user bind all its clients together. Nobody is anybody but ANONYMOUS."""
    order: list[tuple[Parts, bool]] = [
        ({"client-id": None}, False),
        ({"client-id": "a"}, False),
        ({"user": None}, True),
        ({"client-id": None, "user": None}, False),
        ({"client-id": "a", "user": None}, False),
        ({"user": "ANONYMOUS"}, True),
        ({"client-id": None, "user": "ANONYMOUS"}, False),
        ({"client-id": "a", "user": "ANONYMOUS"}, False),
    ]

    async def run() -> None:
        async with running(tmp_path) as broker:
            assert (await alter(broker, {"user": "somebody"}, producer_byte_rate=9.0))[0] == Error.NONE
            assert broker.plane.quotas == (ClientBounds(), dict[str, ClientBounds]())
            for rate, (parts, shared) in enumerate(order, 1):
                assert (await alter(broker, parts, producer_byte_rate=float(rate)))[0] == Error.NONE
                assert broker.broker.context is not None
                assert broker.broker.context.quotas.bound(BYTES, "a") == QuotaBound(rate, shared)
            default, named = broker.plane.quotas
            assert named == {"a": ClientBounds(produce=QuotaBound(8.0, False))}
            assert default == ClientBounds(produce=QuotaBound(7.0, False))
        async with running(tmp_path) as broker:
            assert broker.plane.quotas == (default, named)

    asyncio.run(run())


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def monotonic_ms(self) -> int:
        return self.ms


def test_a_bucket_of_changes() -> None:
    clock = Clock()
    buckets = TokenBuckets(11, clock)  # type: ignore[arg-type]

    def strict() -> Mutations:
        return Mutations(buckets, "c", 2.0, strict=True)

    strict().take(30)  # 22 were there
    refused = strict()
    with pytest.raises(KafkaError, match="THROTTLING_QUOTA_EXCEEDED"):
        refused.take(1)
    assert refused.throttle_ms == 4000, "8 too many, 2 a second"
    late = Mutations(buckets, "c", 2.0, strict=False)
    late.take(2)
    assert late.throttle_ms == 5000
    clock.ms += 5000
    strict().take(1)
    clock.ms += 3_600_000
    strict().take(22)
    strict().take(1)
    with pytest.raises(KafkaError):
        strict().take(1)
    other = Mutations(buckets, "d", None, strict=True)
    other.take(10**9)
    assert other.throttle_ms == 0
    for client in range(CLIENTS_MAX):
        Mutations(buckets, str(client), 2.0, strict=True).take(1)
    strict().take(22)  # forgotten meanwhile


def test_a_throttled_response_says_so_and_mutes_its_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            assert (await alter(broker, {"client-id": "test"}, controller_mutation_rate=1.0))[0] == Error.NONE
            created = await broker.call("CreateTopics", 5, topics=[new_topic("a", 31)], timeout_ms=1)
            assert created["topics"][0]["error_code"] == Error.NONE
            assert 19_000 <= created["throttle_time_ms"] == broker.plane.muted_ms <= 20_000
            refused = await broker.call("CreateTopics", 7, topics=[new_topic("b", 1)], timeout_ms=1)
            assert refused["topics"][0]["error_code"] == Error.THROTTLING_QUOTA_EXCEEDED
            assert 0 < refused["throttle_time_ms"] == broker.plane.muted_ms
            assert (await broker.call("Metadata", topics=[]))["throttle_time_ms"] == broker.plane.muted_ms == 0

    asyncio.run(run())
