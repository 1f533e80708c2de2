"""From a request's bytes to its handler and back to the answer's bytes.

What can't be answered closes the connection with a log line that names the peer and why: an API key or version that is not served, a
body that is no such request, a failure for which the API has no place in its response.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from fastlog.broker.context import Context, RequestContext
from fastlog.broker.responses import Responses
from fastlog.broker.said import said
from fastlog.protocol import CodecError, DecodeError, EncodeError
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import API_BY_KEY, API_VERSIONS, METADATA, Message, decode_request, decode_response, encode_response

if TYPE_CHECKING:
    from fastlog.broker.plane import Request, StandingAnswer

Handler: TypeAlias = Callable[[Context, RequestContext, Message], Coroutine[Any, Any, Message]]
Beginner: TypeAlias = Callable[[Context, RequestContext, memoryview, Callable[[bytes], None]], bool]

# Modules of fastlog.broker.handlers. Each is imported by its first request: a broker that serves produce and fetch needs few of them.
HANDLERS: dict[int, str] = {
    3: "metadata",
    8: "offset_commit",
    9: "offset_fetch",
    10: "find_coordinator",
    11: "join_group",
    12: "heartbeat",
    13: "leave_group",
    14: "sync_group",
    15: "describe_groups",
    16: "list_groups",
    18: "api_versions",
    19: "create_topics",
    20: "delete_topics",
    21: "delete_records",
    22: "init_producer_id",
    23: "offset_for_leader_epoch",
    24: "add_partitions_to_txn",
    25: "add_offsets_to_txn",
    26: "end_txn",
    27: "write_txn_markers",
    28: "txn_offset_commit",
    32: "describe_configs",
    33: "alter_configs",
    34: "alter_replica_log_dirs",
    35: "describe_log_dirs",
    37: "create_partitions",
    42: "delete_groups",
    43: "elect_leaders",
    44: "incremental_alter_configs",
    45: "alter_partition_reassignments",
    46: "list_partition_reassignments",
    47: "offset_delete",
    48: "describe_client_quotas",
    49: "alter_client_quotas",
    50: "describe_user_scram_credentials",
    51: "alter_user_scram_credentials",
    55: "describe_quorum",
    57: "update_features",
    60: "describe_cluster",
    61: "describe_producers",
    64: "unregister_broker",
    65: "describe_transactions",
    66: "list_transactions",
    68: "consumer_group_heartbeat",
    69: "consumer_group_describe",
    71: "get_telemetry_subscriptions",
    72: "push_telemetry",
    74: "list_config_resources",
    75: "describe_topic_partitions",
}
_loaded: dict[int, Handler] = {}

BEGUN: Final = frozenset((8,))
"""APIs whose modules have a `begin` too: it reads the body itself and gives the response's to a function, now or later, so that nobody
has to wait for it. It returns False, with nothing done, where it can't; then the request is handled as others are."""
_beginners: dict[int, Beginner] = {}


def handler(api_key: int) -> Handler | None:
    """The handler of an API, or None where the control plane has none."""
    found = _loaded.get(api_key)
    if found is None and api_key in HANDLERS:
        module = importlib.import_module(f"fastlog.broker.handlers.{HANDLERS[api_key]}")
        found = _loaded[api_key] = module.handle
    return found


def beginner(api_key: int) -> Beginner:
    """`begin` of an API in `BEGUN`."""
    found = _beginners.get(api_key)
    if found is None:
        found = _beginners[api_key] = importlib.import_module(f"fastlog.broker.handlers.{HANDLERS[api_key]}").begin
    return found


class Answer(NamedTuple):
    """A response's body, for how many milliseconds its client has to wait then, and what makes it one that stands (see `Plane.respond`)."""

    body: bytes
    throttle_ms: int = 0
    standing: StandingAnswer | None = None


class Dispatcher:
    """Runs each request at once, and, if it has to wait for something, on as a task of its own: most never need one, and making one costs
    more than they do. The data plane sees to the order within a connection."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._running: set[asyncio.Task[None]] = set()
        self._responses = Responses(ctx.topics, ctx.clock)
        self.requests = 0
        self.failures = 0

    @property
    def running(self) -> int:
        """Requests that are being handled now."""
        return len(self._running)

    def submit(self, request: Request) -> None:
        """Takes a request from the data plane. Never raises; it is answered or its connection closed, in time."""
        self.requests += 1
        if request.api_key in BEGUN and not self._ctx.plane.requests_counted() and self._begin(request):
            return
        serving = self._serve(request)
        try:
            awaited = serving.send(None)
        except StopIteration:
            return
        task = asyncio.get_running_loop().create_task(_go_on(serving, awaited))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def idle(self) -> None:
        """Returns when nothing is being handled."""
        while self._running:
            await asyncio.wait(self._running)

    async def cancel(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, request: Request) -> bool:
        """Whether the request is answered, or will be, by what it has begun."""
        if not API_BY_KEY[request.api_key].serves(request.version):
            return False
        context = RequestContext(request.api_key, request.version, request.client_id, request.peer, request.listener)
        answered = False

        def answer(body: bytes) -> None:
            nonlocal answered
            if not answered:  # or it failed
                answered = True
                self._ctx.plane.respond(request.token, body)

        try:
            return beginner(request.api_key)(self._ctx, context, request.body, answer)
        except Exception as why:  # noqa: BLE001 - as in `_serve`; it is logged
            if not answered:
                answered = True
                self._failed(request, why)
            return True

    def _failed(self, request: Request, why: Exception) -> None:
        """Answers a request whose handling raised what nobody expected."""
        ctx = self._ctx
        self.failures += 1
        ctx.log.error("request of %s failed: API key %d version %d", request.peer, request.api_key, request.version, exc_info=why)
        failed = failure(request.api_key, request.version)
        if failed is None:
            ctx.plane.close(request.token, f"API key {request.api_key} failed, and its response has no place to say so")
        else:
            ctx.plane.respond(request.token, failed)

    async def _serve(self, request: Request) -> None:
        ctx = self._ctx
        try:
            body, throttle_ms, standing = await self._answer(request)
        except Unanswerable as why:
            ctx.plane.close(request.token, str(why))
        except asyncio.CancelledError:
            ctx.plane.close(request.token, "the broker stops")
            raise
        except Exception as why:  # noqa: BLE001 - whatever goes wrong with one request must not reach another; it is logged
            self._failed(request, why)
        else:
            ctx.plane.respond(request.token, body, throttle_ms, standing)

    async def _answer(self, request: Request) -> Answer:
        """See `answer`."""
        ctx = self._ctx
        counted = ctx.plane.requests_counted()
        if request.api_key != METADATA or counted:
            return await answer(ctx, request, counted=counted)
        key = request.version, request.listener, bytes(request.body)
        kept = self._responses.get(key)
        if kept is not None:
            return Answer(kept)
        made = await answer(ctx, request)
        self._responses.put(key, made.body)
        return made


class Unanswerable(Exception):  # noqa: N818 - not an error of ours: the text says what the peer did
    """The connection must be closed; says why."""


async def answer(ctx: Context, request: Request, *, counted: bool = False) -> Answer:
    """`counted`: the time that it takes counts for its client's quota. Raises Unanswerable, and whatever the handler raises."""
    api = API_BY_KEY.get(request.api_key)
    if api is None:
        raise Unanswerable(f"unknown API key {request.api_key} (version {request.version})")
    if not api.serves(request.version):
        if request.api_key == API_VERSIONS:
            return Answer(unsupported_api_versions())
        raise Unanswerable(f"{api.name} version {request.version} is not served, only {api.versions[0]} to {api.versions[1]}")
    handle = handler(request.api_key)
    if handle is None:
        raise Unanswerable(f"{api.name} has no handler in the control plane")
    try:
        message = decode_request(request.api_key, request.version, request.body)
    except DecodeError as error:
        raise Unanswerable(f"undecodable {api.name} request: {error}") from None
    context = RequestContext(request.api_key, request.version, request.client_id, request.peer, request.listener)
    handling = handle(ctx, context, message)
    timed = Timed(handling) if counted else None
    try:
        response = await (handling if timed is None else timed)
    except KafkaError as error:
        failed = failure(request.api_key, request.version, error.code, said(error))
        if failed is None:
            raise
        return Answer(failed)
    throttle_ms: int = response.get("throttle_time_ms", 0)
    if timed is not None:
        throttle_ms = max(throttle_ms, ctx.plane.count_request(request.client_id, timed.spent_ns))
    if throttle_ms:
        with contextlib.suppress(EncodeError):  # a version without the field
            return Answer(encode_response(request.api_key, request.version, {**response, "throttle_time_ms": throttle_ms}), throttle_ms)
        return Answer(encode_response(request.api_key, request.version, response), throttle_ms)
    return Answer(encode_response(request.api_key, request.version, response), 0, context.standing)


class _Resumed:
    """Awaits what is left of a coroutine that was run up to its first wait, for `awaited`."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            try:
                value = yield awaited
            except BaseException as failure:  # noqa: BLE001 - it is the coroutine's
                step = partial(self._coroutine.throw, failure)
            else:
                step = partial(self._coroutine.send, value)
            try:
                awaited = step()
            except StopIteration:
                return


async def _go_on(coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
    await _Resumed(coroutine, awaited)


class Timed:
    """Awaits a handler and takes the time that it runs: what it waits for costs nothing."""

    def __init__(self, handling: Coroutine[Any, Any, Message]) -> None:
        self._handling = handling
        self.spent_ns = 0

    def __await__(self) -> Generator[Any, Any, Message]:
        step: Callable[[], Any] = partial(self._handling.send, None)
        while True:
            began = time.perf_counter_ns()
            try:
                awaited = step()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self.spent_ns += time.perf_counter_ns() - began
            try:
                value = yield awaited
            except BaseException as failure:  # noqa: BLE001 - it is the handler's
                step = partial(self._handling.throw, failure)
            else:
                step = partial(self._handling.send, value)


def unsupported_api_versions() -> bytes:
    """The answer in version 0 that every client can read, with the versions to try next (KIP-511)."""
    api = API_BY_KEY[API_VERSIONS]
    served = {"api_key": API_VERSIONS, "min_version": api.versions[0], "max_version": api.versions[1]}
    return encode_response(API_VERSIONS, 0, {"error_code": Error.UNSUPPORTED_VERSION, "api_keys": [served]})


def failure(api_key: int, version: int, code: Error = Error.UNKNOWN_SERVER_ERROR, why: str | None = None) -> bytes | None:
    """A response that says nothing but an error, or None where the API has no error code at its top level in that version."""
    message: Message = {"error_code": code}
    for extra in ({"error_message": why}, {}):
        try:
            body = encode_response(api_key, version, {**message, **extra})
        except (CodecError, KafkaError):
            continue
        # A version may lack the field without minding that it is given (Metadata before 13): that would read as success.
        return body if decode_response(api_key, version, body).get("error_code") == code else None
    return None
