"""What the dispatcher does with requests that have no answer, and with handlers that fail."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker import dispatch
from fastlog.protocol.errors import Error, KafkaError
from fastlog.protocol.messages import decode_request, decode_response, encode_request, encode_response
from tests.broker.running import running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_api_versions_out_of_range_says_what_to_try(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            for version in (5, 99, -1, 32767):
                body = await broker.plane.request(18, version, b"garbage", listener="tcp")
                # byte for byte what Kafka 4.3 sends
                assert body.hex() == "0023" + "00000001" + "0012" + "0000" + "0004"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("key", "version", "body", "why"),
    [
        (999, 0, b"", "unknown API key 999 (version 0)"),
        (-1, 0, b"", "unknown API key -1 (version 0)"),
        (3, 14, b"", "Metadata version 14 is not served, only 0 to 13"),
        (3, -1, b"", "Metadata version -1 is not served, only 0 to 13"),
        (0, 2, b"", "Produce version 2 is not served, only 3 to 13"),
        (3, 12, b"\xff\xff\xff\xff\x07", "undecodable Metadata request"),
        (8, 2, b"\x00\x01g\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff", "undecodable OffsetCommit request"),
        (18, 3, b"", "undecodable ApiVersions request"),
    ],
)
def test_what_cannot_be_answered_closes_the_connection(tmp_path: Path, key: int, version: int, body: bytes, why: str) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            with pytest.raises(ConnectionError):
                await broker.plane.request(key, version, body, listener="tcp")
            assert len(broker.plane.closed) == 1
            assert broker.plane.closed[0].startswith(why)

    asyncio.run(run())


def _failing(monkeypatch: pytest.MonkeyPatch, key: int, failure: BaseException) -> None:
    async def handle(*_: Any) -> Any:
        raise failure

    monkeypatch.setitem(dispatch._loaded, key, handle)


def test_a_handler_that_fails_is_logged_and_answered_where_there_is_a_place_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            _failing(monkeypatch, 60, RuntimeError("a defect"))
            response = await broker.call("DescribeCluster")
            assert response["error_code"] == Error.UNKNOWN_SERVER_ERROR
            assert "a defect" in caplog.text
            assert "127.0.0.1:12345" in caplog.text
            _failing(monkeypatch, 60, KafkaError(Error.NOT_CONTROLLER, "not here"))
            response = await broker.call("DescribeCluster")
            assert (response["error_code"], response["error_message"]) == (Error.NOT_CONTROLLER, "not here")
            _failing(monkeypatch, 3, RuntimeError("a defect"))
            assert (await broker.call("Metadata", 13, topics=[]))["error_code"] == Error.UNKNOWN_SERVER_ERROR
            with pytest.raises(ConnectionError, match="no place to say so"):
                await broker.call("Metadata", 5, topics=[])  # would read as a cluster without brokers
            _failing(monkeypatch, 19, RuntimeError("a defect"))
            with pytest.raises(ConnectionError, match="no place to say so"):
                await broker.create("t")
            assert (await broker.call("ApiVersions", 0))["error_code"] == 0, "others are not disturbed"

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())


def test_what_is_begun_is_answered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            given: list[Callable[[bytes], None]] = []

            def begin(ctx: Any, request: Any, body: memoryview, answer: Callable[[bytes], None]) -> bool:
                given.append(answer)
                group_id = decode_request(8, request.version, body)["group_id"]
                if group_id == "broken":
                    raise RuntimeError("a defect")
                return bool(group_id)

            monkeypatch.setitem(dispatch._beginners, 8, begin)
            waiting = asyncio.create_task(broker.call("OffsetCommit", 8, group_id="g", topics=[]))
            await asyncio.sleep(0)
            assert not waiting.done()
            given[0](encode_response(8, 8, {"topics": [{"name": "t", "partitions": []}]}))
            given[0](encode_response(8, 8, {"topics": []}))
            assert [topic["name"] for topic in (await waiting)["topics"]] == ["t"]
            with pytest.raises(ConnectionError, match="no place to say so"):
                await broker.call("OffsetCommit", 8, group_id="broken", topics=[])
            given[1](encode_response(8, 8, {"topics": []}))  # too late
            assert "a defect" in caplog.text
            assert (await broker.call("OffsetCommit", 8, group_id="", topics=[]))["topics"] == [], "served as others are"

    asyncio.run(run())


def test_requests_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:
            go = asyncio.Event()

            async def handle(*_: Any) -> Any:
                await go.wait()
                return {"error_code": 0, "cluster_id": ""}

            monkeypatch.setitem(dispatch._loaded, 60, handle)
            slow = asyncio.create_task(broker.call("DescribeCluster"))
            await asyncio.sleep(0)
            assert (await broker.call("Metadata", topics=[]))["brokers"]
            assert not slow.done()
            go.set()
            assert (await slow)["error_code"] == 0

    asyncio.run(run())


def test_a_forced_end_closes_what_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async def handle(*_: Any) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setitem(dispatch._loaded, 60, handle)
        async with running(tmp_path) as broker:
            stuck = asyncio.create_task(broker.call("DescribeCluster"))
            await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError, match="the broker stops"):
            await stuck

    asyncio.run(run())


def test_failures_round_trip() -> None:
    body = dispatch.failure(22, 4, Error.CLUSTER_AUTHORIZATION_FAILED)
    assert body is not None
    assert decode_response(22, 4, body)["error_code"] == Error.CLUSTER_AUTHORIZATION_FAILED
    assert dispatch.failure(37, 3) is None
    assert encode_request(37, 3, {"topics": []})
