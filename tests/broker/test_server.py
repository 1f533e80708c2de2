"""The broker's start and stop: what it refuses to start on, what it records, and in which order it gives things back."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fastlog.broker import server
from fastlog.broker.context import Endpoint
from fastlog.broker.options import ServeOptions
from fastlog.broker.plane import ListenAddress
from fastlog.broker.server import ARENAS, METADATA, Broker, StartError
from fastlog.metadata.sqlite import SqliteStore
from fastlog.metadata.store import StoreError
from fastlog.metrics import Sample, render
from fastlog.protocol.errors import Error
from fastlog.storage import directory as directory_module
from tests.broker.fake_plane import FakeDisk, FakePlane
from tests.broker.running import options, running
from tests.support.process import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


async def _refused(given: ServeOptions, plane: FakePlane | None = None) -> str:
    with pytest.raises(StartError) as caught:
        await Broker(given, plane or FakePlane(FakeDisk())).start()
    return str(caught.value)


def test_an_arena_that_was_emptied_is_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process was killed between noting that an arena's records are all in the logs, and having removed it."""

    async def run() -> None:
        data = tmp_path / "data"
        async with running(data):
            pass
        left, gone = tmp_path / "left", tmp_path / "gone"
        left.write_bytes(b"records")
        (data / ARENAS).write_text(json.dumps([{"spent": str(left)}, {"spent": str(gone)}]))
        async with running(data):
            assert not left.exists()
        assert "is gone" not in caplog.text

    asyncio.run(run())


def test_arenas_are_noted_as_spent_before_they_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        data, seen = tmp_path / "data", []
        async with running(data):
            pass
        arena = tmp_path / "arena"
        arena.write_bytes(b"records")
        (data / ARENAS).write_text(json.dumps([str(arena)]))

        async def drop(_: FakePlane) -> None:
            seen.append(json.loads((data / ARENAS).read_text()))

        monkeypatch.setattr(FakePlane, "drop_relics", drop)
        async with running(data):
            assert [entry for entry in seen[0] if isinstance(entry, dict)] == [{"spent": str(arena)}]
            assert {"spent": str(arena)} not in json.loads((data / ARENAS).read_text())

    asyncio.run(run())


def test_an_empty_database_is_no_new_cluster(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path / "one"):
            pass
        (tmp_path / "one" / METADATA).write_bytes(b"")
        assert "is empty: restore it from a backup, or see `fastlog log repair --metadata`" in await _refused(options([tmp_path / "one"]))
        assert (tmp_path / "one" / METADATA).read_bytes() == b""

    asyncio.run(run())


def test_data_directories_that_do_not_belong_together(tmp_path: Path) -> None:
    async def run() -> None:
        one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
        assert "is given twice" in await _refused(options([one, tmp_path / "two" / ".." / "one"]))
        async with running(one, two):
            pass
        async with running(other):
            pass
        assert f"the metadata lie in {one}: give it first" in await _refused(options([two, one]))
        assert "belongs to cluster" in await _refused(options([one, other]))
        assert "is missing: restore it from a backup" in await _refused(options([two]))
        (one / METADATA).write_bytes(b"x" * 5000)
        assert "is damaged" in await _refused(options([one, two]))
        (one / METADATA).unlink()
        assert f"{one} belongs to cluster" in await _refused(options([one, two]))
        assert "belongs to node 1, not 2" in await _refused(options([other], node_id="2"))
        async with running(other):
            pass  # all locks were given back

    asyncio.run(run())


def test_a_disk_that_fails_takes_only_its_own_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        disk = FakeDisk()
        one, two = tmp_path / "one", tmp_path / "two"
        async with running(one, two, disk=disk) as broker:
            await broker.create("t", 2)
        real = directory_module._make
        broken = two

        def make(path: Path) -> None:
            if path == broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(path)

        monkeypatch.setattr(directory_module, "_make", make)
        async with running(one, two, disk=disk) as broker:
            (topic,) = (await broker.call("Metadata", topics=[{"name": "t"}]))["topics"]
            assert sorted(p["leader_id"] for p in topic["partitions"]) == [-1, 1]
        broken = one
        assert "can't be used: Input/output error" in await _refused(options([one, two]))

    asyncio.run(run())


def test_no_producer_ids_while_the_metadata_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(tmp_path) as broker:

            async def full(*_: Any) -> int:
                raise StoreError("the disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(SqliteStore, "write", full)
                response = await broker.call("InitProducerId", transactional_id=None, transaction_timeout_ms=0)
                assert response["error_code"] == Error.COORDINATOR_LOAD_IN_PROGRESS
            response = await broker.call("InitProducerId", transactional_id=None, transaction_timeout_ms=0)
            assert response["error_code"] == 0

    asyncio.run(run())


def test_an_address_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        plane = FakePlane(FakeDisk())
        attempts = 0

        async def bind(addresses: Sequence[ListenAddress]) -> list[ListenAddress]:
            nonlocal attempts
            attempts += 1
            raise OSError(errno.EADDRINUSE, "can't listen on 127.0.0.1:9092: Address already in use")

        monkeypatch.setattr(plane, "bind", bind)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            given = replace(options([tmp_path]), listen=[ListenAddress("tcp", "127.0.0.1", taken.getsockname()[1])])
            assert "Address already in use: stop what listens there" in await _refused(given, plane)
            assert attempts == 1, "somebody answers there: no use in waiting"
        monkeypatch.setattr(server, "BIND_WAIT_S", 0.2)
        given = replace(options([tmp_path]), listen=[ListenAddress("tcp", "127.0.0.1", free_port())])
        await _refused(given, plane)
        assert attempts > 2, "nobody answers: a killed broker's socket may still go"

    asyncio.run(run())


def test_a_partition_that_is_not_closed_in_order_makes_the_next_start_look(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        one, two = tmp_path / "one", tmp_path / "two"
        async with running(one, two, disk=disk) as broker:
            await broker.create("t", 2)
            disk.fail_close.add("t-1")
        assert {d.name: (d / ".kafka_cleanshutdown").exists() for d in (one, two)} == {"one": True, "two": False}
        async with running(one, two, disk=disk) as broker:
            topic = broker.topics.get("t")
            assert topic is not None
            assert [p.epoch for p in topic.partitions] == [0, 1]
            assert not (one / ".kafka_cleanshutdown").exists(), "gone before anything is appended"
            broker.plane.open[topic.topic_id, 0].offline = 56
            disk.fail_close.clear()
        assert {d.name: (d / ".kafka_cleanshutdown").exists() for d in (one, two)} == {"one": False, "two": True}

    asyncio.run(run())


def test_arenas_are_found_by_the_next_process(tmp_path: Path) -> None:
    arenas_there = [tmp_path / f"arena-{i}" for i in range(3)]
    for path in arenas_there:
        path.touch()

    async def run() -> None:
        disk = FakeDisk()
        memory = [str(path) for path in arenas_there]
        data = tmp_path / "data"

        async def life(arenas: list[str], *, kill: bool) -> FakePlane:
            plane = FakePlane(disk)
            plane.arenas = arenas
            broker = Broker(options([data]), plane)
            await broker.start()
            assert json.loads((data / ARENAS).read_text()) == [*broker._kept_relics, *arenas]
            await (broker._undo.aclose() if kill else broker.stop())
            return plane

        await life([memory[0]], kill=True)
        plane = await life([memory[1]], kill=True)
        assert plane.config is not None
        assert plane.config.relics == [memory[0]]
        assert ("drop_relics",) in plane.events
        plane = await life([memory[2]], kill=False)
        assert plane.config is not None
        assert plane.config.relics == [memory[1]]
        assert not (data / ARENAS).exists()
        plane = await life([], kill=False)
        assert plane.config is not None
        assert plane.config.relics == []

    asyncio.run(run())


def test_what_a_killed_process_left_is_kept_while_a_partition_is_offline(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FakeDisk()
        arena = tmp_path / "arena"
        arena.touch()
        data = tmp_path / "data"
        async with running(data, disk=disk) as broker:
            await broker.create("t")
        (data / ARENAS).write_text(json.dumps([str(arena)]))
        disk.fail_open["t-0"] = "the disk is gone"
        async with running(data, disk=disk) as broker:
            assert ("drop_relics",) not in broker.plane.events
        assert json.loads((data / ARENAS).read_text()) == [str(arena)]
        disk.fail_open.clear()
        async with running(data, disk=disk) as broker:
            assert ("drop_relics",) in broker.plane.events
        assert not (data / ARENAS).exists()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        ([ListenAddress("a", "127.0.0.1", 1)], {}, {"a": Endpoint("127.0.0.1", 1)}),
        ([ListenAddress("a", "0.0.0.0", 1)], {}, {"a": Endpoint(socket.gethostname(), 1)}),
        ([ListenAddress("a", "0.0.0.0", 1)], {"": Endpoint("h", 0)}, {"a": Endpoint("h", 1)}),
        (
            [ListenAddress("a", "::1", 1), ListenAddress("b", "::1", 2)],
            {"b": Endpoint("h", 9)},
            {"a": Endpoint("::1", 1), "b": Endpoint("h", 9)},
        ),
        ([ListenAddress("u", path="/s"), ListenAddress("a", "::1", 1)], {}, {"u": Endpoint("::1", 1), "a": Endpoint("::1", 1)}),
        ([ListenAddress("u", path="/s")], {}, {"u": Endpoint("unix:/s", 0)}),
        ([ListenAddress("u", path="/s")], {"": Endpoint("h", 5)}, {"u": Endpoint("h", 5)}),
    ],
)
def test_what_clients_are_told(listen: list[ListenAddress], advertise: dict[str, Endpoint], told: dict[str, Endpoint]) -> None:
    given = ServeOptions(data=[], listen=listen, advertise=advertise)
    assert server._endpoints(given, listen) == told


def test_limits_reach_the_data_plane(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, max_connections="5", socket_request_max_bytes="77") as broker:
            config = broker.plane.config
            assert config is not None
            assert (config.limits["max.connections"], config.limits["socket.request.max.bytes"]) == (5, 77)
            assert (config.memory, config.arena, list(config.cores)) == (64 << 20, None, [0])
            assert len(config.lock_fds) == 1

    asyncio.run(run())


def test_metrics_over_http(tmp_path: Path) -> None:
    async def run() -> None:
        broker = Broker(replace(options([tmp_path]), metrics=("127.0.0.1", 0)), FakePlane(FakeDisk()))
        facts = await broker.start()

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", facts.metrics_port)
            writer.write(request)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        answer = (await ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert '# TYPE fastlog_requests_total counter\nfastlog_requests_total{shard="0"} 5\n' in body
        assert '# TYPE fastlog_conns gauge\nfastlog_conns{shard="0"} 2\n' in body
        for name in ("fastlog_topics 0", "fastlog_group_joins_total 0", "process_resident_memory_bytes ", "process_open_fds "):
            assert f"\n{name}" in body
        assert b" 404 " in await ask(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 405 " in await ask(b"POST /metrics HTTP/1.0\r\n\r\n")
        for garbage in (b"\r\n\r\n", b"x" * 100_000, b"GET"):
            assert await ask(garbage) == b""
        await broker.stop()

    asyncio.run(run())


def test_text_format() -> None:
    samples = [Sample("a", 1, (("l", 'x"y\\z\n'),)), Sample("b", 2.5), Sample("a", 3, (("l", "q"),))]
    assert render(iter(samples)) == '# TYPE a gauge\na{l="x\\"y\\\\z\\n"} 1\na{l="q"} 3\n# TYPE b gauge\nb 2.5\n'


def test_a_start_that_fails_in_the_middle_gives_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        for step in ("start", "accept", "drop_relics"):
            plane = FakePlane(FakeDisk())

            async def fail(*_: Any) -> Any:
                raise OSError(errno.ENOMEM, "no memory for a ring")

            with monkeypatch.context() as patch:
                patch.setattr(plane, step, fail)
                assert await _refused(options([tmp_path]), plane) == "no memory for a ring"
        async with running(tmp_path):
            pass

    asyncio.run(run())
