"""One broker under comparison: runs the steps of a sequence and says what came of each in terms that fit every broker.

A step is `{"api", "version", "message"}` and, where wanted: `conn` (which connection, 0 by default), `as` (the name for what the answer
gives out), `spoil` (bytes of the body changed: ["cut", n] or ["add", n]), `defer` (send only; `{"collect": conn}` reads the
answer later); or `{"until": state, "group": id}`, which waits until a group is in that state.
"""

from __future__ import annotations

import re
import socket
import struct
import time
import uuid
import zlib
from typing import Any, TypeAlias
from uuid import UUID

from fastlog.protocol import CodecError
from fastlog.protocol.messages import API_BY_KEY, API_BY_NAME, decode_response
from tests.differential import loose
from tests.differential.symbols import NO_UUID, TOKEN, Bindings, Ref

Step: TypeAlias = dict[str, Any]
Outcome: TypeAlias = Any

CLOSED = "closed"
SILENT = "no answer"
ANSWER_TIMEOUT_S = 10.0
# Not ready yet: leader not available, not the leader, coordinator loading or not available, not the coordinator.
_NOT_YET = {5, 6, 14, 15, 16}
_CONCURRENT = 51
_PAST_MS = 1_701_000_000_000  # all records of the sequences are older; markers are of now
_CHANGES = {"CreateTopics", "DeleteTopics", "CreatePartitions", "IncrementalAlterConfigs", "AlterConfigs", "AlterClientQuotas"}
_NAMES = (
    "name",
    "topic",
    "topic_id",
    "group_id",
    "member_id",
    "resource_name",
    "key",
    "entity",
    "user",
    "partition_index",
    "index",
    "partition",
    "error_code",
)
_TOKEN = re.compile(r"d[0-9a-f]{10}-")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Target:
    """A broker at HOST:PORT. `settle_s`: how long it takes until all of its parts know what its controller decided.

    Raises OSError when it is not there.
    """

    def __init__(self, bootstrap: str, settle_s: float = 0.0) -> None:
        self._settle_s = settle_s
        self._attempts = 10 if settle_s else 0
        host, _, port = bootstrap.rpartition(":")
        self.address = (host, int(port))
        self.bindings = Bindings("")
        self._sockets: dict[int, socket.socket] = {}
        self._asked: dict[int, tuple[Step, dict[str, Any]]] = {}
        self._correlation = 0

    def begin(self, token: str | None = None) -> str:
        """A new sequence: nothing is known, no connection open. `token`: that of its names (default: a new one); it is returned."""
        self.close()
        self.bindings = Bindings(token or "d" + uuid.uuid4().hex[:10] + "-")
        return self.bindings.token

    def close(self) -> None:
        for open_socket in self._sockets.values():
            open_socket.close()
        self._sockets.clear()
        self._asked.clear()

    def run(self, step: Step) -> Outcome:
        if "until" in step:
            self._await_group(step["group"], step["until"])
            return None
        if "collect" in step:
            return self._answer(step["collect"])
        if step.get("defer"):
            self._ask(step)
            return None
        outcome: Outcome = None
        for attempt in range(100):
            self._ask(step)
            outcome = self._answer(step.get("conn", 0))
            codes = _codes(outcome)
            if _CONCURRENT not in codes and (attempt >= self._attempts or not codes & _NOT_YET):
                break
            time.sleep(0.1)
        if step["api"] in _CHANGES:
            time.sleep(self._settle_s)
        if step["api"] == "EndTxn":
            self._settle(step["message"]["transactional_id"])
        return outcome

    def _socket(self, conn: int) -> socket.socket:
        found = self._sockets.get(conn)
        if found is None:
            found = self._sockets[conn] = socket.create_connection(self.address, ANSWER_TIMEOUT_S)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def _ask(self, step: Step) -> None:
        for ref in _topics_of(step["message"]):
            if not self.bindings.known("topic_id", ref.name):
                self._look_up(ref.name)
        key, version = API_BY_NAME[step["api"]].key, step["version"]
        message = self.bindings.fill(step["message"])
        body = bytearray(loose.encode(key, version, message))
        match step.get("spoil"):
            case ["cut", amount]:
                del body[max(0, len(body) - amount) :]
            case ["add", amount]:
                body += bytes(amount)
        self._correlation += 1
        frame = loose.header(key, version, self._correlation, "differ") + body
        conn = step.get("conn", 0)
        self._asked[conn] = (step, message)
        try:
            self._socket(conn).sendall(struct.pack(">i", len(frame)) + frame)
        except ConnectionError:
            self._drop(conn)
            self._asked[conn] = (step, message)
            self._socket(conn).sendall(struct.pack(">i", len(frame)) + frame)

    def _drop(self, conn: int) -> None:
        found = self._sockets.pop(conn, None)
        if found is not None:
            found.close()
        self._asked.pop(conn, None)

    def _answer(self, conn: int) -> Outcome:
        if conn not in self._asked:
            return CLOSED
        step, message = self._asked.pop(conn)
        key, version = API_BY_NAME[step["api"]].key, step["version"]
        if step["api"] == "Produce" and message["acks"] == 0:
            return self._unacknowledged(conn)
        try:
            body = self._frame(conn)
        except (EOFError, ConnectionError):
            self._drop(conn)
            return CLOSED
        except TimeoutError:
            self._drop(conn)
            return SILENT
        at = 5 if API_BY_KEY[key].response_header_version(version) else 4
        try:
            response = decode_response(key, version, body[at:])
        except CodecError as error:
            try:
                response = decode_response(key, 0, body[at:])  # an unsupported ApiVersions is answered in version 0
            except CodecError:
                return f"undecodable: {error}"
        self._learn(step, response)
        return self._shown(key, response, version)

    def _unacknowledged(self, conn: int) -> Outcome:
        """acks=0 has no answer: whether the connection still works is what there is to see."""
        self._correlation += 1
        frame = loose.header(18, 0, self._correlation, "differ")
        try:
            self._socket(conn).sendall(struct.pack(">i", len(frame)) + frame)
            self._frame(conn)
        except (EOFError, ConnectionError):
            self._drop(conn)
            return CLOSED
        except TimeoutError:
            self._drop(conn)
            return SILENT
        return "goes on"

    def _frame(self, conn: int) -> bytes:
        (length,) = struct.unpack(">i", self._exactly(conn, 4))
        return self._exactly(conn, length)

    def _exactly(self, conn: int, amount: int) -> bytes:
        data = bytearray()
        while len(data) < amount:
            part = self._socket(conn).recv(amount - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _look_up(self, name: str) -> None:
        """Asks for a topic's id, on a connection that no step uses."""
        wanted = [{"name": name, "topic_id": NO_UUID}]
        self._ask({"api": "Metadata", "version": 12, "message": {"topics": wanted, "allow_auto_topic_creation": False}, "conn": -1})
        self._answer(-1)

    def _await_group(self, group: str, state: str) -> None:
        for _ in range(100):
            self._ask({"api": "DescribeGroups", "version": 5, "message": {"groups": [group]}, "conn": -1})
            outcome = self._answer(-1)
            if isinstance(outcome, dict) and outcome["groups"][0]["group_state"] == state:
                return
            time.sleep(0.02)

    def _settle(self, transactional_id: str) -> None:
        """Waits until the transaction has its markers: its end was answered when it was decided."""
        for _ in range(100):
            self._ask({"api": "DescribeTransactions", "version": 0, "message": {"transactional_ids": [transactional_id]}, "conn": -1})
            outcome = self._answer(-1)
            if not isinstance(outcome, dict) or not outcome["transaction_states"][0]["transaction_state"].startswith("Prepare"):
                return
            time.sleep(0.02)

    def _learn(self, step: Step, response: dict[str, Any]) -> None:
        if not step.get("message", {}).get("validate_only"):
            self._learn_ids(response)
        name = step.get("as")
        if name is None:
            return
        match step["api"]:
            case "JoinGroup" if response["member_id"]:
                self.bindings.bind("member", name, response["member_id"])
            case "InitProducerId" | "EndTxn" if response["error_code"] == 0 and response["producer_id"] >= 0:
                self.bindings.bind("producer_id", name, response["producer_id"])
                self.bindings.bind("producer_epoch", name, response["producer_epoch"])
            case "Fetch" if response["session_id"]:
                self.bindings.bind("session", name, response["session_id"])
            case "ConsumerGroupHeartbeat" if response["error_code"] == 0:
                self.bindings.bind("member_epoch", name, response["member_epoch"])

    def _learn_ids(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                self._learn_ids(item)
        elif isinstance(value, dict):
            name = value.get("name") or value.get("topic") or value.get("topic_name")
            topic_id = value.get("topic_id")
            if name and isinstance(topic_id, UUID) and topic_id != NO_UUID and name.startswith(self.bindings.token):
                self.bindings.bind("topic_id", name.replace(self.bindings.token, "§"), topic_id)
            for item in value.values():
                self._learn_ids(item)

    def _shown(self, key: int, response: dict[str, Any], version: int) -> Outcome:
        """The answer with what differs between any two brokers replaced: ids by their names, addresses, times of now."""
        shown = self._plain("", response)
        assert isinstance(shown, dict)
        if key == 16:
            shown["groups"] = [group for group in shown["groups"] if TOKEN in group["group_id"]]
        if key == 66:
            shown["transaction_states"] = [one for one in shown["transaction_states"] if TOKEN in one["transactional_id"]]
        if key == 35:
            shown["results"] = [one | {"log_dir": "<dir>", "total_bytes": 0, "usable_bytes": 0} for one in shown["results"]]
        if key == 74:
            shown["config_resources"] = [one for one in shown["config_resources"] if TOKEN in one["resource_name"]]
        if key == 48 and shown["entries"]:
            shown["entries"] = [one for one in shown["entries"] if TOKEN in repr(one)]
        if key == 55:
            shown = _without_positions(shown)
        if key in {0, 1}:
            shown["responses"] = _merged(shown["responses"])
        if key == 2:
            shown["topics"] = _merged(shown["topics"])
        return shown

    def _foreign(self, item: Any) -> bool:
        """Whether it is about a topic or group of another sequence, or one of the broker's own."""
        name = (
            (item.get("name") or item.get("group_id") or item.get("transactional_id") or item.get("topic") or "")
            if isinstance(item, dict)
            else ""
        )
        return name.startswith(("__", "warm-")) or (_TOKEN.match(name) is not None and not name.startswith(self.bindings.token))

    def _plain(self, name: str, value: Any) -> Any:
        match value:
            case dict():
                if name == "records":
                    return value
                return {key: self._plain(key, item) for key, item in value.items()}
            case list():
                items = [self._plain(name, item) for item in value if not self._foreign(item)]
                if name in {"configs", "api_keys"} and items:
                    by_name = {str(item.get("name", item.get("api_key"))): item for item in items}
                    if len(by_name) == len(items):
                        return by_name
                if (name == "partitions" and items and isinstance(items[0], int)) or name == "subscribed_topic_names":
                    return sorted(items)
                return sorted(items, key=_order) if items and isinstance(items[0], dict) else items
            case UUID():
                return self.bindings.uuid(value)
            case bytes() if name == "records":
                return self._batches(value)
            case bytes():
                return self.bindings.text(value.decode("latin-1"))
            case str() if name == "cluster_id":
                return "<cluster>"
            case str() if name in {"host", "client_host"}:
                return "<host>" if value else ""
            case str():
                return _UUID.sub("<uuid>", self.bindings.text(value))
            case int() if name == "port":
                return "<port>" if value == self.address[1] else value
            case int() if name == "producer_id":
                return self.bindings.number("producer_id", value)
            case int() if name == "session_id":
                return self.bindings.number("session", value)
            case int() if name in {"log_append_time_ms", "transaction_start_time_ms"} and value > 0:
                return "<now>"
            case int() if name in {"last_timestamp", "timestamp"} and value > _PAST_MS:
                return "<now>"
            case int() if name == "finalized_features_epoch":
                return "<epoch>"
        return value

    def _batches(self, data: bytes) -> list[Any]:
        """Each whole batch: offsets, what its header says, and a checksum of its records; a cut one at the end is not told."""
        made: list[Any] = []
        at = 0
        while at + 61 <= len(data):
            base, length, epoch, magic, _crc = struct.unpack_from(">qiibI", data, at)
            end = at + 12 + length
            if end > len(data):
                break
            attributes, last, first_ms, max_ms, pid, pid_epoch, sequence, count = struct.unpack_from(">hiqqqhii", data, at + 21)
            times = ["<now>", "<now>"] if attributes & 8 or first_ms > _PAST_MS else [first_ms, max_ms]
            who = [self.bindings.number("producer_id", pid), pid_epoch, sequence]
            made.append([base, last, epoch, magic, attributes, *times, *who, count, zlib.crc32(data[at + 61 : end])])
            at = end
        return made


def _without_positions(value: Any) -> Any:
    """A description of the quorum: how far its log is, and its times, are each broker's own."""
    match value:
        case dict():
            own = {"log_end_offset", "high_watermark", "leader_epoch", "last_fetch_timestamp", "last_caught_up_timestamp"}
            return {key: "<own>" if key in own else _without_positions(item) for key, item in value.items()}
        case list():
            return [_without_positions(item) for item in value]
    return value


def _merged(topics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each topic: a broker may tell one in several."""
    made: dict[tuple[Any, Any], dict[str, Any]] = {}
    for topic in topics:
        partitions = next(name for name in ("partitions", "partition_responses") if name in topic)
        found = made.setdefault((topic.get("topic") or topic.get("name"), topic.get("topic_id")), topic | {partitions: []})
        found[partitions] = sorted([*found[partitions], *topic[partitions]], key=_order)
    return list(made.values())


def _order(item: dict[str, Any]) -> list[str]:
    """Entries are compared in the order of their names: a broker may answer in any."""
    return [f"{item[key]!r:>12}" for key in _NAMES if key in item] or [repr(item)]


def _topics_of(value: Any) -> list[Ref]:
    match value:
        case Ref("topic_id"):
            return [value]
        case dict():
            return [ref for item in value.values() for ref in _topics_of(item)]
        case list():
            return [ref for item in value for ref in _topics_of(item)]
    return []


def _codes(outcome: Outcome) -> set[int]:
    """All error codes in an answer."""
    if isinstance(outcome, dict):
        own = {value for key, value in outcome.items() if key == "error_code" and isinstance(value, int)}
        return own.union(*(_codes(value) for value in outcome.values()))
    if isinstance(outcome, list):
        return set().union(*(_codes(value) for value in outcome))
    return set()
