"""A relay between real clients and a broker: it makes the broker look older, and notes what the clients send and how it is answered.

Only ApiVersions is changed: each API's newest version is capped, and features that need newer ones are left out, as on a broker of that
age. Addresses of the broker in answers become the relay's. All else passes as it came, byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastlog.protocol.messages import (
    API_BY_KEY,
    API_VERSIONS,
    METADATA,
    decode_request_header,
    decode_response,
    decode_response_header,
    encode_response,
    encode_response_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNSUPPORTED_VERSION: Final = 35
_NAMES_BROKERS: Final = {METADATA, 10, 60}  # Metadata, FindCoordinator, DescribeCluster
# A feature is on only where clients can have all that it takes: for Produce 12 and TxnOffsetCommit 5 the coordinator adds partitions to a
# transaction by itself, and EndTxn 5 tells the next epoch (KIP-890).
_NEEDS: Final = {"transaction.version": {0: 12, 26: 5, 28: 5}, "group.version": {68: 0}}
_KIP_848: Final = (68, 69)
HOST: Final = "127.0.0.1"
_FIRST_S: Final = 10.0

Caps = dict[int, int]
"""The newest version of each API key."""


def caps_of_level(level: int) -> Caps:
    """Level 0 is the oldest version of each API that is served; each level is one version newer, until the newest.

    The group protocol of KIP-848 is young: its first version belongs to Metadata 12, the second one to 13.
    """
    caps = {key: min(api.versions[0] + level, api.versions[1]) for key, api in API_BY_KEY.items()}
    if caps[METADATA] < API_BY_KEY[METADATA].versions[1]:
        caps |= dict.fromkeys(_KIP_848, 0)
    return caps


NEWEST_LEVEL: Final = max(api.versions[1] - api.versions[0] for api in API_BY_KEY.values())


@dataclass(slots=True)
class Seen:
    """One version of one API, as clients sent it. `errors`: how many answers had each error code; an answer without any counts as 0."""

    sent: int = 0
    errors: Counter[int] = field(default_factory=Counter)


class Relay:
    """`caps` and `seen` may be replaced while it runs; they hold for what comes next."""

    def __init__(self, target: str, caps: Caps) -> None:
        """`target`: HOST:PORT of the broker."""
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.caps = caps
        self.seen: dict[tuple[int, int], Seen] = {}
        self.flaws: list[str] = []
        self.port = 0

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Relay]:
        """In a thread of its own, until the end of the block."""
        begun = threading.Event()
        loop = asyncio.new_event_loop()
        ended = asyncio.Event()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, HOST, 0)
            self.port = server.sockets[0].getsockname()[1]
            begun.set()
            await ended.wait()
            server.close()
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="relay")
        thread.start()
        assert begun.wait(_FIRST_S), "the relay does not listen"
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            broker, to_broker = await asyncio.open_connection(*self._target)
            asked: dict[int, tuple[int, int]] = {}
            ways = [
                asyncio.create_task(self._requests(client, to_broker, to_client, asked)),
                asyncio.create_task(self._answers(broker, to_client, asked)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                to_broker.close()
                to_client.close()

    async def _requests(
        self,
        client: asyncio.StreamReader,
        to_broker: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
        asked: dict[int, tuple[int, int]],
    ) -> None:
        while True:
            frame = await _frame(client)
            key, version, correlation = struct.unpack_from(">hhi", frame)
            if key == API_VERSIONS and version > self.caps[key]:
                to_client.write(_framed(struct.pack(">i", correlation) + self._too_new()))
                continue
            if key in API_BY_KEY and API_BY_KEY[key].serves(version):
                decode_request_header(frame)
            else:
                self.flaws.append(f"a request of API {key} version {version}, which is not advertised")
            asked[correlation] = key, version
            self.seen.setdefault((key, version), Seen()).sent += 1
            to_broker.write(_framed(frame))
            await to_broker.drain()

    def _too_new(self) -> bytes:
        """What a broker says to a version of ApiVersions that it does not know (KIP-511)."""
        own = {"api_key": API_VERSIONS, "min_version": 0, "max_version": self.caps[API_VERSIONS]}
        return encode_response(API_VERSIONS, 0, {"error_code": _UNSUPPORTED_VERSION, "api_keys": [own]})

    async def _answers(self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]) -> None:
        while True:
            frame = await _frame(broker)
            (correlation,) = struct.unpack_from(">i", frame)
            key, version = asked.pop(correlation)
            try:
                _, at = decode_response_header(key, version, frame)
                answer = decode_response(key, version, memoryview(frame)[at:])
            except ValueError as wrong:
                self.flaws.append(f"API {key} version {version}: {wrong}")
            else:
                codes = set(_codes(answer))
                self.seen[key, version].errors.update(codes - {0} or {0})
                if key == API_VERSIONS:
                    frame = encode_response_header(key, version, correlation) + encode_response(key, version, self._aged(answer))
            if key in _NAMES_BROKERS:
                frame = frame.replace(_address(self._target[1]), _address(self.port))
            to_client.write(_framed(frame))
            await to_client.drain()

    def _aged(self, answer: dict[str, Any]) -> dict[str, Any]:
        told = [(one, self.caps[one["api_key"]]) for one in answer["api_keys"] if one["api_key"] in self.caps]
        kept = [one | {"max_version": min(one["max_version"], cap)} for one, cap in told]
        return answer | {
            "api_keys": kept,
            "finalized_features": [one for one in answer["finalized_features"] if self._possible(one["name"])],
        }

    def _possible(self, feature: str) -> bool:
        return all(self.caps.get(key, -1) >= version for key, version in _NEEDS.get(feature, {}).items())


def _codes(message: object) -> Iterator[int]:
    """Every error code in an answer."""
    if isinstance(message, dict):
        for name, value in message.items():
            if name == "error_code":
                yield value
            else:
                yield from _codes(value)
    elif isinstance(message, list):
        for each in message:
            yield from _codes(each)


def _address(port: int) -> bytes:
    """As it stands in answers: the host's name, whose length comes before, and the port (int32)."""
    return HOST.encode() + struct.pack(">i", port)


async def _frame(stream: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await stream.readexactly(4))
    return await stream.readexactly(size)


def _framed(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame
