"""Whether a log is still the one that was read (KIP-320): a leader may lack what the one before it gave out, or what it lost in a crash.

The core stops reading a partition whose leader has a new epoch until it has been asked where the epoch of what was read last ended there.
Below the position: what lies between was read and is no more.
"""

from typing import NamedTuple

from fastlog._core import ConsumerCore
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError
from fastlog.client.logs import WARNING, say_seldom


class Doubt(NamedTuple):
    """Of one partition. `read_epoch`: the leader's that wrote what is before the position."""

    topic: str
    partition: int
    generation: int
    leader: int
    leader_epoch: int
    read_epoch: int


class End(NamedTuple):
    """`offset`: up to where the leader's log, which `epoch` wrote there, is what was read; -1: it has nothing of it; None: it can't say."""

    offset: int | None
    epoch: int


UNKNOWN = End(None, -1)


def prove(core: ConsumerCore, cluster: Cluster) -> None:
    """Asks the leaders of all partitions that wait for it, and tells the core. In the control thread."""
    by_node: dict[int, list[Doubt]] = {}
    for found in core._unproven():
        doubt = Doubt(*found)
        by_node.setdefault(doubt.leader, []).append(doubt)
    for node, doubts in by_node.items():
        said: dict[Doubt, End | ClientError]
        try:
            said = _ask(cluster, node, doubts)
        except ClientError as error:
            said = dict.fromkeys(doubts, error)
        for doubt, end in said.items():
            if isinstance(end, ClientError):
                core._no_proof(doubt.topic, doubt.partition, doubt.generation)
                say_seldom(WARNING, "%s: %s", cluster.client_id, end, client_id=cluster.client_id, broker=node, topic=doubt.topic)
            else:
                core._proof(doubt.topic, doubt.partition, doubt.generation, doubt.leader_epoch, end.offset, end.epoch)


def _ask(cluster: Cluster, node: int, doubts: list[Doubt]) -> dict[Doubt, End | ClientError]:
    """The leader's answer for each, or the error of one that passes. Raises ClientError where it does not answer."""
    if cluster.connection(node).version("OffsetForLeaderEpoch") is None:  # before Kafka 2.0
        return dict.fromkeys(doubts, UNKNOWN)
    topics: dict[str, list[dict[str, int]]] = {}
    for d in doubts:
        entry = {"partition": d.partition, "current_leader_epoch": d.leader_epoch, "leader_epoch": d.read_epoch}
        topics.setdefault(d.topic, []).append(entry)
    request = {"replica_id": -1, "topics": [{"topic": name, "partitions": entries} for name, entries in topics.items()]}
    said = cluster.call("OffsetForLeaderEpoch", request, node=node)
    parts = {(topic["topic"], part["partition"]): part for topic in said["topics"] for part in topic["partitions"]}
    made: dict[Doubt, End | ClientError] = {}
    for d in doubts:
        part = parts.get((d.topic, d.partition))
        if part is None:
            made[d] = UNKNOWN
        elif part["error_code"]:
            error = error_for(part["error_code"], f"validate the position in {d.topic} [{d.partition}]")
            made[d] = error if error.retriable else UNKNOWN  # what does not pass, as no authorization, the next Fetch says too
        else:
            made[d] = End(part["end_offset"] if part["leader_epoch"] >= 0 else -1, part["leader_epoch"])
    return made
