"""What the client knows of the cluster: brokers, topics and their leaders, coordinators; and the connections to ask them."""

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastlog.client.connection import Connection, parse_address
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClientTimeoutError, ClosedError, ProtocolError, UnreachableError
from fastlog.protocol.messages import Message

GROUP, TRANSACTION = 0, 1
UNKNOWN_TOPIC_OR_PARTITION = 3
# A coordinator that is being loaded or has moved.
COORDINATOR_ERRORS = (14, 15, 16)


class TopicMetadata(NamedTuple):
    """`leaders`: broker ids by partition, -1 where there is none now; `error`: Kafka's code, 0 for a topic that is there."""

    name: str
    error: int
    internal: bool
    leaders: list[int]
    epochs: list[int]
    raw: Message

    def size(self, before: int) -> int:
        """Of its partitions; 0 when there is no such topic, `before` when that can't be told now."""
        return len(self.leaders) if not self.error else 0 if self.error == UNKNOWN_TOPIC_OR_PARTITION else before


class Cluster:
    """Thread-safe. A connection for each broker and purpose (`channel`), as what one waits for holds up what is behind it."""

    def __init__(self, bootstrap: str, *, client_id: str, timeout_s: float = 30.0) -> None:
        self.bootstrap = bootstrap
        self.client_id = client_id
        self.timeout_s = timeout_s
        self.addresses = [parse_address(a) for a in bootstrap.split(",") if a.strip()]
        if not self.addresses:
            raise ClientError("INVALID_ADDRESS", "bootstrap_servers: no address given")
        self.nodes: dict[int, tuple[str, int]] = {}
        self.cluster_id = ""
        self.controller = -1
        self._connections: dict[tuple[int, str], Connection] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    def connect(self, host: str, port: int) -> Connection:
        return Connection(host, port, client_id=self.client_id, timeout_s=self.timeout_s)

    def link(self, node: int, api: str) -> tuple[int, int]:
        """A descriptor of a new connection to a broker, the caller's, and the version of `api` to be spoken there. Raises ClientError."""
        address = self.nodes.get(node)
        if address is None:
            raise UnreachableError(f"broker {node}", "its address is not known")
        made = self.connect(*address)
        version = made.version(api)
        if version is None:
            made.close()
            raise error_for(35, f"{api} at {made.address}")
        return made.detach(), version

    def connection(self, node: int = -1, channel: str = "") -> Connection:
        """To a broker by its id; -1: to any. Raises UnreachableError, or ClosedError after `close` or in a fork."""
        if self._process != os.getpid():  # the parent reads from the same sockets
            raise ClosedError("this process is a fork of the one that made the client; make a new one after the fork")
        if self._closed:
            raise ClosedError("the client is closed")
        with self._lock:
            found = self._connections.get((node, channel))
            if found is not None and not found.closed:
                return found
            wanted = [self.nodes[node]] if node in self.nodes else [*self.addresses, *self.nodes.values()] if node < 0 else []
        if not wanted:
            raise UnreachableError(f"broker {node}", "its address is not known")
        failure: ClientError | None = None
        for host, port in wanted:
            try:
                made = self.connect(host, port)
            except (UnreachableError, ClientTimeoutError, ProtocolError) as error:
                failure = error
                continue
            with self._lock:
                raced = self._connections.get((node, channel))
                if raced is not None and not raced.closed:
                    made.close()
                    return raced
                self._connections[node, channel] = made
            return made
        if failure is not None and len(wanted) == 1:
            raise failure
        raise UnreachableError(self.bootstrap, failure.why if isinstance(failure, UnreachableError) else str(failure))

    def call(self, name: str, message: Message, *, node: int = -1, channel: str = "", timeout_s: float | None = None) -> Message:
        """Asks a broker. A connection that had been closed meanwhile is made anew, once."""
        found = self.connection(node, channel)
        try:
            return found.call(name, message, timeout_s)
        except UnreachableError:
            return self.connection(node, channel).call(name, message, timeout_s)

    def metadata(self, topics: Iterable[str] | None, *, create: bool = False, timeout_s: float | None = None) -> dict[str, TopicMetadata]:
        """Asks for topics (None: all), and takes over what the answer says of brokers. `create`: topics may be made, where that is on."""
        wanted = None if topics is None else [{"name": name} for name in topics]
        said = self.call("Metadata", {"topics": wanted, "allow_auto_topic_creation": create}, channel="metadata", timeout_s=timeout_s)
        with self._lock:
            self.nodes = {b["node_id"]: (b["host"], b["port"]) for b in said["brokers"]}
        self.cluster_id, self.controller = said["cluster_id"] or "", said["controller_id"]
        made = {}
        for topic in said["topics"]:
            parts = sorted(topic["partitions"], key=lambda p: int(p["partition_index"]))
            numbers = [p["partition_index"] for p in parts]
            if numbers != list(range(len(numbers))):
                raise ProtocolError(f"{self.bootstrap} names partitions of {topic['name']!r} that leave gaps")
            made[topic["name"]] = TopicMetadata(
                topic["name"],
                topic["error_code"],
                topic["is_internal"],
                [p["leader_id"] if p["leader_id"] in self.nodes else -1 for p in parts],
                [p["leader_epoch"] for p in parts],
                topic,
            )
        return made

    def coordinator(self, key: str, kind: int = GROUP, *, deadline: float | None = None, channel: str = "coordinator") -> int:
        """The broker that coordinates a group or transactional id; waits while there is none yet. Raises ClientTimeoutError."""
        deadline = time.monotonic() + self.timeout_s if deadline is None else deadline
        while True:
            said = self.call("FindCoordinator", {"key": key, "key_type": kind}, channel=channel)
            if said["error_code"] == 0:
                with self._lock:
                    self.nodes[said["node_id"]] = (said["host"], said["port"])
                return int(said["node_id"])
            error = error_for(said["error_code"], f"find the coordinator of {key!r}", said["error_message"])
            if not error.retriable:
                raise error
            if time.monotonic() > deadline:
                raise ClientTimeoutError(f"no coordinator of {key!r} in time: {error}") from error
            time.sleep(0.1)

    def call_by_leader(
        self,
        name: str,
        wanted: Mapping[Any, Any],
        wrap: Mapping[str, object],
        what: str,
        *,
        timeout_s: float,
        inside: str = "",
        entries_are: str = "partitions",
    ) -> dict[tuple[str, int], Message]:
        """Asks the leader of each partition; entries that fail for a passing reason are asked for again until the time is over.

        `wanted`: the request's entry of each partition; `entries_are`: what the request calls them; `wrap`: what is beside the topics;
        `inside`: the array whose one entry has all that. Returns the response's entries.
        """
        deadline = time.monotonic() + timeout_s
        left, made = dict(wanted), {}
        while left:
            topics = self.metadata({t for t, _ in left})
            by_node: dict[int, dict[str, list[Any]]] = {}
            error: ClientError | None = None
            for (topic, number), entry in left.items():
                found = topics.get(topic)
                if found is None or found.error or number >= len(found.leaders):
                    failure = error_for(found.error if found and found.error else 3, f"{what} {topic} [{number}]")
                    if not failure.retriable or found is None or not found.error or found.error == 3:
                        raise failure
                    error = failure
                elif found.leaders[number] < 0:
                    error = error_for(5, f"{what} {topic} [{number}]")
                else:
                    by_node.setdefault(found.leaders[number], {}).setdefault(topic, []).append(entry)
            for node, parts in by_node.items():
                body: Message = {**wrap, "topics": [{"name": t, entries_are: entries} for t, entries in parts.items()]}
                request = {inside: [body]} if inside else body
                try:
                    said = self.call(name, request, node=node, timeout_s=max(1.0, deadline - time.monotonic()))
                except UnreachableError as failed:
                    error = failed
                    continue
                for topic_said in [t for one in (said[inside] if inside else [said]) for t in one["topics"]]:
                    for part in topic_said["partitions"]:
                        at = (topic_said["name"], part["partition_index"])
                        if part["error_code"]:
                            failure = error_for(part["error_code"], f"{what} {at[0]} [{at[1]}]", part.get("error_message"))
                            if not failure.retriable:
                                raise failure
                            error = failure
                        elif left.pop(at, None) is not None:
                            made[at] = part
            if left:
                if time.monotonic() > deadline:
                    raise error or ClientTimeoutError(f"{what}: no answer in time")
                time.sleep(0.1)
        return made

    def close(self) -> None:
        with self._lock:
            self._closed = True
            found = list(self._connections.values())
            self._connections.clear()
        for connection in found:
            with contextlib.suppress(OSError):
                connection.close()
