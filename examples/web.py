"""A web service on asyncio: what is posted becomes events, and what others wrote is shown.

    pip install aiohttp
    python examples/web.py [HOST:PORT]      (without an address: on a broker that ends with it), then

    curl -d '{"item": "pear"}' localhost:8080/orders        # answered when the order is stored
    curl localhost:8080/orders                              # the newest ones, whoever wrote them

One producer serves all requests: orders that come at the same time share a batch, and a handler waits, while others run, when the broker
is slower than they are.
"""

import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

import fastlog
from fastlog.client import AsyncAdmin, AsyncConsumer, AsyncProducer, ClientError, errors

TOPIC = "web-orders"
PRODUCER = web.AppKey("PRODUCER", AsyncProducer)
BOOTSTRAP = web.AppKey("BOOTSTRAP", str)
NEWEST = web.AppKey("NEWEST", deque[dict[str, Any]])


async def post_order(request: web.Request) -> web.Response:
    try:
        order = json.loads(await request.read())
    except ValueError:
        raise web.HTTPBadRequest(text="expected JSON\n") from None
    try:
        where = await request.app[PRODUCER].send_and_wait(TOPIC, json.dumps(order).encode())
    except ClientError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    return web.json_response({"partition": where.partition, "offset": where.offset}, status=201)


async def get_orders(request: web.Request) -> web.Response:
    newest = request.app[NEWEST]
    return web.json_response(list(newest))


async def kafka(app: web.Application) -> AsyncIterator[None]:
    """Lives as long as the application: the producer, and a task that follows the topic."""
    async with AsyncAdmin(app[BOOTSTRAP]) as admin:
        with contextlib.suppress(errors.TopicAlreadyExistsError):
            await admin.create_topic(TOPIC, partitions=1)
    async with (
        AsyncProducer(bootstrap_servers=app[BOOTSTRAP], linger_ms=2) as app[PRODUCER],
        AsyncConsumer(bootstrap_servers=app[BOOTSTRAP]) as consumer,
    ):
        await consumer.assign({(TOPIC, 0): 0})
        follower = asyncio.create_task(follow(consumer, app[NEWEST]))
        yield
        follower.cancel()
        await asyncio.wait({follower})


async def follow(consumer: AsyncConsumer, newest: deque[dict[str, Any]]) -> None:
    async for record in consumer:
        newest.append({"offset": record.offset, "order": json.loads(record.value)})


def application(bootstrap: str) -> web.Application:
    app = web.Application()
    app[BOOTSTRAP] = bootstrap
    app[NEWEST] = deque(maxlen=100)
    app.add_routes([web.post("/orders", post_order), web.get("/orders", get_orders)])
    app.cleanup_ctx.append(kafka)
    return app


if __name__ == "__main__":
    if len(sys.argv) > 1:
        web.run_app(application(sys.argv[1]), host="127.0.0.1")
    else:
        with fastlog.embedded() as broker:
            web.run_app(application(broker.bootstrap_servers), host="127.0.0.1")
