"""What examples/ shows does what it says."""

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web as server

from examples import analysis, exactly_once, store, web

pytestmark = pytest.mark.one_engine


def test_store(bootstrap: str) -> None:
    purchases = 500
    made = store.main(bootstrap, purchases)
    assert sum(10_000 - left for left in made.stock.values()) > purchases
    assert sum(made.paid.values()) == sum((10_000 - made.stock[item]) * price for item, price in store.PRICES.items())
    assert made.parcels.total() >= purchases, "at least once: a member that was thrown out leaves some to be done again"
    assert made.points.total() > 0
    handled = Counter[str]()
    for service in made.services:
        handled[service.name] += service.handled
    assert set(handled) == {"inventory", "payment", "shipping", "loyalty"}
    assert min(handled.values()) >= purchases


def test_exactly_once(bootstrap: str) -> None:
    committed = exactly_once.main(bootstrap, 300)
    assert committed == {exactly_once.priced(b"order %d" % n): 1 for n in range(300)}
    assert exactly_once.invoices(bootstrap, "read_uncommitted").total() > 300, "the crash left some that nobody sees"


def test_analysis(bootstrap: str) -> None:
    found = analysis.main(bootstrap, 2000)
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {f"s{i}" for i in range(analysis.SENSORS)}


def test_web(bootstrap: str) -> None:
    async def visit() -> None:
        runner = server.AppRunner(web.application(bootstrap))
        await runner.setup()
        try:
            site = server.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/orders"
            async with aiohttp.ClientSession() as session:
                made = await asyncio.gather(*(post(session, url, {"item": i}) for i in range(50)))
                assert sorted(offset for status, offset in made) == list(range(50))
                assert {status for status, _ in made} == {201}
                async with session.post(url, data=b"no JSON") as refused:
                    assert refused.status == 400
                deadline = time.monotonic() + 60
                shown: list[Any] = []
                while len(shown) < 50 and time.monotonic() < deadline:
                    async with session.get(url) as answer:
                        shown = await answer.json()
                assert sorted(order["order"]["item"] for order in shown) == list(range(50))
        finally:
            await runner.cleanup()

    asyncio.run(visit())


async def post(session: aiohttp.ClientSession, url: str, order: dict[str, int]) -> tuple[int, int]:
    async with session.post(url, json=order) as answer:
        return answer.status, (await answer.json())["offset"]
