"""Transactions of a producer (KIP-98): what is sent between begin and commit is seen by read_committed consumers wholly or not at all."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastlog.client.cluster import COORDINATOR_ERRORS, GROUP, TRANSACTION, Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError, ClientTimeoutError, UnreachableError
from fastlog.client.records import TopicPartition
from fastlog.protocol.messages import Message

if TYPE_CHECKING:
    from fastlog.client.producer import Producer

CONCURRENT = 51  # the one before is still being ended


class GroupMetadata(NamedTuple):
    """A consumer's membership, as `Consumer.group_metadata` tells it."""

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None


class Transactions:
    """Of one producer with a transactional_id. Blocking; each call has the producer's max_block_ms."""

    def __init__(self, producer: "Producer", cluster: Cluster, transactional_id: str, timeout_ms: int, block_ms: int) -> None:
        self._producer = producer
        self._cluster = cluster
        self.id = transactional_id
        self._timeout_ms = timeout_ms
        self._block_s = block_ms / 1000
        self._producer_id, self._epoch = -1, -1
        self._joined = False  # the coordinator knows of the transaction: partitions or offsets were added
        self.open = False

    def _ask(self, name: str, message: Message, code_of: Callable[[Message], int], key: str = "", kind: int = TRANSACTION) -> Message:
        """Asks a coordinator until it is there, and the transaction before has ended."""
        deadline = time.monotonic() + self._block_s
        while True:
            try:
                node = self._cluster.coordinator(key or self.id, kind, deadline=deadline, channel="transactions")
                said = self._cluster.call(name, message, node=node, channel="transactions")
                code = code_of(said)
                if code == 0:
                    return said
                error: ClientError = error_for(code, f"{name}: {key or self.id}")
                if code not in (*COORDINATOR_ERRORS, CONCURRENT) and not error.retriable:
                    raise error
            except (UnreachableError, ClientTimeoutError) as failed:
                error = failed
            if time.monotonic() > deadline:
                raise ClientTimeoutError(f"{name}: not done in max_block_ms: {error}")
            time.sleep(0.02)

    @property
    def ready(self) -> bool:
        """Whether `init` was there."""
        return self._producer_id >= 0

    def init(self) -> None:
        """Gets the producer's id; a producer with the same transactional_id before is fenced, its open transaction aborted."""
        request = {
            "transactional_id": self.id,
            "transaction_timeout_ms": self._timeout_ms,
            "producer_id": self._producer_id,
            "producer_epoch": self._epoch,
        }
        said = self._ask("InitProducerId", request, _code)
        self._producer_id, self._epoch = said["producer_id"], said["producer_epoch"]
        self._producer._set_producer_id(self._producer_id, self._epoch)

    def _who(self) -> Message:
        return {"transactional_id": self.id, "producer_id": self._producer_id, "producer_epoch": self._epoch}

    def add_partitions(self, wanted: list[tuple[str, int]]) -> None:
        """In the producer's control thread, before the first record of a transaction goes to a partition."""
        topics: dict[str, list[int]] = {}
        for topic, number in wanted:
            topics.setdefault(topic, []).append(number)
        request = {
            "v3_and_below_transactional_id": self.id,
            "v3_and_below_producer_id": self._producer_id,
            "v3_and_below_producer_epoch": self._epoch,
            "v3_and_below_topics": [{"name": name, "partitions": numbers} for name, numbers in topics.items()],
        }
        self._ask("AddPartitionsToTxn", request, _worst_added)
        self._joined = True
        self._producer._transaction_added(wanted)

    def send_offsets(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata) -> None:
        self._ask("AddOffsetsToTxn", {**self._who(), "group_id": group.group_id}, _code)
        self._joined = True
        topics: dict[str, list[Message]] = {}
        for (topic, number), offset in offsets.items():
            topics.setdefault(topic, []).append({"partition_index": number, "committed_offset": offset, "committed_metadata": ""})
        request = {
            **self._who(),
            "group_id": group.group_id,
            "generation_id": group.generation,
            "member_id": group.member_id,
            "group_instance_id": group.instance_id,
            "topics": [{"name": name, "partitions": parts} for name, parts in topics.items()],
        }
        self._ask("TxnOffsetCommit", request, _worst_committed, group.group_id, GROUP)

    def end(self, *, commit: bool) -> None:
        """The producer has sent all, or given up all, before."""
        if self._joined:
            self._ask("EndTxn", {**self._who(), "committed": commit}, _code)
        self._joined = self.open = False
        self._producer._transaction_over()


def _code(said: Message) -> int:
    return int(said["error_code"])


def _worst_added(said: Message) -> int:
    return _worst([p["partition_error_code"] for t in said["results_by_topic_v3_and_below"] for p in t["results_by_partition"]])


def _worst_committed(said: Message) -> int:
    return _worst([p["error_code"] for t in said["topics"] for p in t["partitions"]])


def _worst(codes: list[int]) -> int:
    """The code that decides: one that is not retriable, if there is any (OPERATION_NOT_ATTEMPTED only says that another one failed)."""
    failed = sorted((c for c in codes if c), key=lambda c: (c == 55, error_for(c, "").retriable))
    return failed[0] if failed else 0
