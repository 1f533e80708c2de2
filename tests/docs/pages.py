"""The pages of docs/ that are made from the code: `python -m tests.docs.pages` writes them, and a test holds them to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastlog.config.broker import BROKER_KEYS
from fastlog.config.client_metrics import CLIENT_METRICS_KEYS
from fastlog.config.group import GROUP_KEYS
from fastlog.config.keys import Key, Mode
from fastlog.config.topic import TOPIC_KEYS
from fastlog.protocol.messages import API_BY_KEY

from . import api
from .compatible import compatibility
from .table import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DOCS: Final = Path(__file__).parents[2] / "docs"
COMMAND: Final = "python -m tests.docs.pages"

# Every API key of Kafka 4.3 in order, with its stable versions; "-" where it has none any more.
KAFKA: Final = """
Produce 3-13, Fetch 4-18, ListOffsets 1-11, Metadata 0-13, LeaderAndIsr -, StopReplica -, UpdateMetadata -, ControlledShutdown -,
OffsetCommit 2-10, OffsetFetch 1-10, FindCoordinator 0-6, JoinGroup 0-9, Heartbeat 0-4, LeaveGroup 0-5, SyncGroup 0-5,
DescribeGroups 0-6, ListGroups 0-5, SaslHandshake 0-1, ApiVersions 0-4, CreateTopics 2-7, DeleteTopics 1-6, DeleteRecords 0-2,
InitProducerId 0-5, OffsetForLeaderEpoch 2-4, AddPartitionsToTxn 0-5, AddOffsetsToTxn 0-4, EndTxn 0-5, WriteTxnMarkers 1-2,
TxnOffsetCommit 0-5, DescribeAcls 1-3, CreateAcls 1-3, DeleteAcls 1-3, DescribeConfigs 1-4, AlterConfigs 0-2, AlterReplicaLogDirs 1-2,
DescribeLogDirs 1-5, SaslAuthenticate 0-2, CreatePartitions 0-3, CreateDelegationToken 1-3, RenewDelegationToken 1-2,
ExpireDelegationToken 1-2, DescribeDelegationToken 1-3, DeleteGroups 0-2, ElectLeaders 0-2, IncrementalAlterConfigs 0-1,
AlterPartitionReassignments 0-1, ListPartitionReassignments 0, OffsetDelete 0, DescribeClientQuotas 0-1, AlterClientQuotas 0-1,
DescribeUserScramCredentials 0, AlterUserScramCredentials 0, Vote 0-2, BeginQuorumEpoch 0-1, EndQuorumEpoch 0-1, DescribeQuorum 0-2,
AlterPartition 2-3, UpdateFeatures 0-2, Envelope 0, FetchSnapshot 0-1, DescribeCluster 0-2, DescribeProducers 0, BrokerRegistration 0-4,
BrokerHeartbeat 0-2, UnregisterBroker 0, DescribeTransactions 0, ListTransactions 0-2, AllocateProducerIds 0, ConsumerGroupHeartbeat 0-1,
ConsumerGroupDescribe 0-1, ControllerRegistration 0, GetTelemetrySubscriptions 0, PushTelemetry 0, AssignReplicasToDirs 0,
ListConfigResources 0-1, DescribeTopicPartitions 0, ShareGroupHeartbeat 1, ShareGroupDescribe 1, ShareFetch 1-2, ShareAcknowledge 1-2,
AddRaftVoter 0-1, RemoveRaftVoter 0, UpdateRaftVoter 0, InitializeShareGroupState 0, ReadShareGroupState 0, WriteShareGroupState 0-1,
DeleteShareGroupState 0, ReadShareGroupStateSummary 0-1, StreamsGroupHeartbeat 0, StreamsGroupDescribe 0, DescribeShareGroupOffsets 0-1,
AlterShareGroupOffsets 0, DeleteShareGroupOffsets 0
"""
KAFKA_APIS: Final[dict[int, tuple[str, str]]] = {
    key: (entry.split()[0], entry.split()[1]) for key, entry in enumerate(KAFKA.replace("\n", " ").split(","))
}

_SECURITY: Final = "absent: there is no SASL"
_ACLS: Final = "absent: there is no authorizer"
_TOKENS: Final = "absent: there are no delegation tokens"
_QUORUM: Final = "absent: between KRaft controllers; the metadata lie in SQLite"
_CONTROLLER: Final = "absent: between brokers and controllers, on Kafka's controller listener"
_SHARE: Final = "absent: share groups are not served"
_STREAMS: Final = "absent: the streams group protocol is not served"
ABSENT: Final[dict[int, str]] = {
    **dict.fromkeys((17, 36), _SECURITY),
    **dict.fromkeys((29, 30, 31), _ACLS),
    **dict.fromkeys((38, 39, 40, 41), _TOKENS),
    **dict.fromkeys((52, 53, 54, 59, 80, 81, 82), _QUORUM),
    **dict.fromkeys((56, 58, 62, 63, 67, 70, 73), _CONTROLLER),
    **dict.fromkeys((76, 77, 78, 79, 83, 84, 85, 86, 87, 90, 91, 92), _SHARE),
    **dict.fromkeys((88, 89), _STREAMS),
}
"""Why Kafka's other APIs are not served."""
NOTES: Final[dict[int, str]] = {
    0: "advertised from 0 on, as Kafka does, or older librdkafka would not compress (KAFKA-18659); 3 is the oldest that is answered; for a "
    "partition that one request names twice both batches are stored and answered, while Kafka drops the first and answers once",
    1: "last_fetched_epoch, which followers send and clients don't, is not looked at: there is never a diverging_epoch",
    34: "every partition stays where it is: another directory of the broker's is refused, an unknown one is LOG_DIR_NOT_FOUND",
    43: "ELECTION_NOT_NEEDED for every partition there is",
    45: "this node is the only one that can be assigned; cancelling is NO_REASSIGNMENT_IN_PROGRESS",
    46: "none is ever in progress",
    49: "quotas of IP addresses are kept and shown, without effect",
    51: "kept and shown; nobody is asked for a password: there is no SASL",
    55: "this node is the one voter; the offset is the revision of its metadata store",
    57: "the levels are those of the release: asking for another is INVALID_UPDATE_VERSION",
    64: "this broker can't be unregistered, and there is no other",
    71: "answered with no subscription, and not advertised, as on a Kafka without a plugin for it",
    72: "what is pushed all the same is dropped; not advertised",
}


def _served(key: int) -> str:
    api = API_BY_KEY.get(key)
    if api is None:
        return "-"
    first, last = api.versions
    return str(first) if first == last else f"{first}-{last}"


def _note(key: int, versions: str) -> str:
    if key in API_BY_KEY:
        return NOTES.get(key, "")
    return "absent: Kafka 4 has no version of it left" if versions == "-" else ABSENT[key]


def protocol() -> str:
    rows = [(str(key), name, versions, _served(key), _note(key, versions)) for key, (name, versions) in KAFKA_APIS.items()]
    served = sum(key in API_BY_KEY for key in KAFKA_APIS)
    return "\n".join(
        (
            "# The protocol",
            "",
            f"All {len(KAFKA_APIS)} API keys of Apache Kafka 4.3, with its stable versions, and what fastlog does with them.",
            f"{served} are served, each in every stable version that Kafka 4.3 serves.",
            "An absent one is not in ApiVersions, and a request of it closes its connection with a line in the log.",
            "",
            f"This page is made from the code by `{COMMAND}`; a test holds it to it.",
            "",
            *table(("key", "API", "Kafka 4.3", "fastlog", ""), rows),
            "",
        )
    )


def _default(key: Key) -> str:
    if key.default is None:
        return "none"
    return f"`{key.default}`" if key.default else '""'


def _settings(keys: Iterable[Key], *, changes: bool) -> Iterator[str]:
    head = ["name", "type", "default", *(["while it runs"] if changes else []), "meaning"]
    yield from table(
        head,
        (
            [
                f"`{key.name}`",
                key.type.name.lower(),
                _default(key),
                *(["-" if key.mode is Mode.READ_ONLY else "yes"] if changes else []),
                key.doc,
            ]
            for key in keys
        ),
    )


def configs() -> str:
    acting = [key for key in BROKER_KEYS.values() if not key.without_effect]
    idle = [key for key in BROKER_KEYS.values() if key.without_effect]
    return "\n".join(
        (
            "# Settings",
            "",
            "Names, types and defaults are Kafka 4.3's; those that begin with `fastlog.`, and `write.caching`, are fastlog's own. Values",
            "are checked as Kafka checks them.",
            "",
            f"This page is made from the code by `{COMMAND}`; a test holds it to it.",
            "",
            "## Of the broker",
            "",
            "Given at the start (`--set NAME=VALUE`, or a file), and changed while it runs, for this broker or for all",
            "(`kafka-configs --entity-type brokers`), where the table says so.",
            "",
            *_settings(acting, changes=True),
            "",
            "## Of topics",
            "",
            "Set when a topic is created and changed at any time; what a topic does not set counts as the broker has it.",
            "",
            *_settings(TOPIC_KEYS.values(), changes=False),
            "",
            "## Of groups",
            "",
            *_settings(GROUP_KEYS.values(), changes=False),
            "",
            "## Of subscriptions of client metrics",
            "",
            *_settings(CLIENT_METRICS_KEYS.values(), changes=False),
            "",
            "## Of clients: quotas",
            "",
            "`kafka-configs --entity-type clients|users|ips`. A client's connections are counted together, over `quota.window.num` windows",
            "of `quota.window.size.seconds`; what is too much is answered with how long to wait, and the connection is not read from",
            "meanwhile.",
            "There is no authentication: every client is the user ANONYMOUS.",
            "",
            *table(
                ("name", "of", "meaning"),
                (
                    ("`producer_byte_rate`", "clients, users", "Bytes of produce requests a second."),
                    ("`consumer_byte_rate`", "clients, users", "Bytes of fetch responses a second; what would be more is answered empty."),
                    (
                        "`request_percentage`",
                        "clients, users",
                        "Time that requests take, in per cent of a thread; waits are at most a window.",
                    ),
                    ("`controller_mutation_rate`", "clients, users", "Partitions created and deleted a second (KIP-599)."),
                    ("`connection_creation_rate`", "IP addresses", "Kept and shown; without effect."),
                ),
            ),
            "",
            "## Of Kafka's broker, without effect here",
            "",
            "Kept and shown, so that files and tools that set them work; `fastlog serve` names those that it is given. Where the table",
            "says that only the default can be set, another value is refused.",
            "",
            *_settings(idle, changes=True),
            "",
        )
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "protocol.md": protocol,
    "configs.md": configs,
    "compatibility.md": compatibility,
    **{f"api/{name}.md": partial(api.page, name) for name in api.CONTENTS},
}


def write() -> None:
    """Writes all of them."""
    (DOCS / "api").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    write()
