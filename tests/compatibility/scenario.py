"""The runs of Kafka's command-line tools: one story for a broker that is new."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOOLS: Final = "org.apache.kafka.tools."


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a tool.

    `given`: its standard input. `numbers`: what it measures is not compared, only the form of what it prints. `unordered`: it prints
    in the order of a hash table.
    """

    tool: str
    args: tuple[str, ...]
    given: str = ""
    numbers: bool = False
    unordered: bool = False

    @property
    def name(self) -> str:
        """The tool and its arguments as a reader knows them: without the broker's address and directories."""
        shown: list[str] = []
        for word in self.args:
            if re.fullmatch(r"127\.0\.0\.1:\d+", word):
                if shown[-1:] == ["--bootstrap-server"]:
                    shown.pop()
                continue
            shown.append(word.rpartition("/")[2] if word.startswith("/") else re.sub(r"127\.0\.0\.1:\d+", "...", word))
        return " ".join([self.tool.rpartition(".")[2], *shown])


def runs(bootstrap: str, files: Path) -> Iterator[Run]:
    """All tools that speak to a broker at `bootstrap`. `files`: where the files of JSON that they are given are written."""
    at = ("--bootstrap-server", bootstrap)

    def of(tool: str, **more: bool) -> Callable[..., Run]:
        whole = tool if tool.startswith("kafka.") else TOOLS + tool
        return lambda *words, given="": Run(whole, (*at, *words), given, **more)

    def file(name: str, content: object) -> str:
        (files / name).write_text(json.dumps(content))
        return str(files / name)

    yield from _topics(of("TopicCommand"))
    yield from _configs(of("kafka.admin.ConfigCommand", unordered=True))
    yield from _records(of, file)
    yield from _groups(of)
    yield from _partitions(of, file)
    yield from _cluster(of, bootstrap)
    yield from _transactions(of("TransactionsCommand"), of("TransactionsCommand", numbers=True))
    yield from _measured(of, bootstrap)
    yield from _deleted(of)


def _topics(topics: Callable[..., Run]) -> Iterator[Run]:
    yield topics("--create", "--topic", "orders", "--partitions", "3", "--config", "retention.ms=3600000")
    yield topics("--create", "--topic", "orders")
    yield topics("--create", "--topic", "orders", "--if-not-exists")
    yield topics("--create", "--topic", "too.many", "--replication-factor", "3")
    yield topics("--create", "--topic", "none", "--partitions", "0")
    yield topics("--create", "--topic", "wrong", "--config", "retention.ms=soon")
    yield topics("--create", "--topic", "wrong", "--config", "no.such.setting=1")
    yield topics("--create", "--topic", "placed", "--replica-assignment", "1,1")
    yield topics("--create", "--topic", "misplaced", "--replica-assignment", "1,7")
    yield topics("--create", "--topic", "bad name")
    yield topics("--create", "--topic", "or_ders.x")
    yield topics("--create", "--topic", "or.ders_x")
    yield topics("--list", "--exclude-internal")
    yield topics("--list", "--topic", "or.*", "--exclude-internal")
    yield topics("--describe", "--topic", "orders")
    yield topics("--alter", "--topic", "orders", "--partitions", "4")
    yield topics("--alter", "--topic", "orders", "--partitions", "2")
    yield topics("--alter", "--topic", "nothing", "--partitions", "2")
    yield topics("--describe", "--topic", "nothing")
    yield topics("--describe", "--topics-with-overrides", "--exclude-internal")
    yield topics("--describe", "--unavailable-partitions")
    yield topics("--describe", "--under-replicated-partitions")
    yield topics("--describe", "--at-min-isr-partitions", "--exclude-internal")
    yield topics("--describe", "--under-min-isr-partitions")


def _configs(configs: Callable[..., Run]) -> Iterator[Run]:
    topic = ("--entity-type", "topics", "--entity-name", "orders")
    yield configs(*topic, "--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]")
    yield configs(*topic, "--alter", "--add-config", "segment.bytes=-1")
    yield configs(*topic, "--alter", "--add-config", "no.such.setting=1")
    yield configs(*topic, "--describe")
    yield configs(*topic, "--describe", "--all")
    yield configs(*topic, "--alter", "--delete-config", "cleanup.policy")
    yield configs(*topic, "--alter", "--delete-config", "no.such.setting")
    yield configs("--entity-type", "topics", "--entity-name", "nothing", "--describe")
    yield configs("--entity-type", "topics", "--entity-name", "nothing", "--alter", "--add-config", "retention.ms=1")
    broker = ("--entity-type", "brokers", "--entity-name", "1")
    yield configs(*broker, "--alter", "--add-config", "log.retention.ms=999000")
    yield configs(*broker, "--describe")
    yield configs(*broker, "--describe", "--all")
    yield configs(*broker, "--alter", "--add-config", "log.dirs=/tmp")
    yield configs(*broker, "--alter", "--add-config", "num.io.threads=0")
    yield configs(*broker, "--alter", "--delete-config", "log.retention.ms")
    yield configs("--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "log.retention.ms=888000")
    yield configs("--entity-type", "brokers", "--entity-default", "--describe")
    yield configs("--entity-type", "brokers", "--entity-default", "--alter", "--delete-config", "log.retention.ms")
    yield configs("--entity-type", "brokers", "--entity-name", "7", "--describe")
    yield configs("--entity-type", "brokers", "--entity-name", "some", "--describe")
    group = ("--entity-type", "groups", "--entity-name", "billing")
    yield configs(*group, "--alter", "--add-config", "consumer.session.timeout.ms=50000")
    yield configs(*group, "--alter", "--add-config", "consumer.session.timeout.ms=1")
    yield configs(*group, "--describe")
    yield configs(*group, "--alter", "--delete-config", "consumer.session.timeout.ms")
    loggers = ("--entity-type", "broker-loggers", "--entity-name", "1")
    yield configs(*loggers, "--alter", "--add-config", "no.such.logger=DEBUG")
    yield configs(*loggers, "--alter", "--add-config", "root=LOUD")
    client = ("--entity-type", "clients", "--entity-name", "loader")
    yield configs(*client, "--alter", "--add-config", "producer_byte_rate=1000000,request_percentage=200")
    yield configs(*client, "--alter", "--add-config", "no_such_rate=1")
    yield configs(*client, "--describe")
    yield configs("--entity-type", "clients", "--describe")
    yield configs(*client, "--alter", "--delete-config", "producer_byte_rate,request_percentage")
    yield configs(*client, "--describe")
    yield configs("--entity-type", "clients", "--entity-default", "--alter", "--add-config", "consumer_byte_rate=1000000000")
    yield configs("--entity-type", "clients", "--entity-default", "--describe")
    user = ("--entity-type", "users", "--entity-name", "ann")
    yield configs(*user, "--alter", "--add-config", "consumer_byte_rate=1000000,controller_mutation_rate=50")
    yield configs(*user, "--entity-type", "clients", "--entity-name", "loader", "--alter", "--add-config", "consumer_byte_rate=2000000")
    yield configs("--entity-type", "users", "--describe")
    yield configs("--entity-type", "users", "--entity-name", "nobody", "--describe")
    yield configs("--entity-type", "ips", "--entity-name", "127.0.0.1", "--alter", "--add-config", "connection_creation_rate=1000")
    yield configs("--entity-type", "ips", "--describe")
    yield configs("--entity-type", "ips", "--entity-name", "127.0.0.1", "--alter", "--delete-config", "connection_creation_rate")
    yield configs("--entity-type", "client-metrics", "--describe")


def _records(of: Callable[..., Callable[..., Run]], file: Callable[[str, object], str]) -> Iterator[Run]:
    orders = ("--topic", "orders")
    yield of("ConsoleProducer")(*orders, "--reader-property", "parse.key=true", given="a\tone\nb\ttwo\nc\tthree\n")
    shown = ("--from-beginning", "--max-messages", "3", "--timeout-ms", "20000", "--formatter-property", "print.key=true")
    yield of("consumer.ConsoleConsumer", unordered=True)(*orders, "--group", "billing", *shown)
    one = ("--partition", "0", "--offset", "0", "--max-messages", "1", "--timeout-ms", "20000")
    yield of("consumer.ConsoleConsumer")(*orders, *one, "--formatter-property", "print.offset=true")
    offsets = of("GetOffsetShell")
    yield offsets(*orders)
    yield of("GetOffsetShell", numbers=True)(*orders, "--time", "max-timestamp")
    for time in ("earliest", "earliest-local", "latest-tiered", "earliest-pending-upload", "0", "4102444800000"):
        yield offsets(*orders, "--time", time)
    yield offsets("--topic-partitions", "orders:0-2", "--time", "latest")
    yield offsets("--topic", "nothing")
    delete = of("DeleteRecordsCommand")
    for name, offset in (("delete.json", -1), ("beyond.json", 1000)):
        wanted = {"version": 1, "partitions": [{"topic": "orders", "partition": 0, "offset": offset}]}
        yield delete("--offset-json-file", file(name, wanted))
    yield offsets(*orders, "--time", "earliest")


def _groups(of: Callable[..., Callable[..., Run]]) -> Iterator[Run]:
    groups = of("consumer.group.ConsumerGroupCommand", unordered=True)
    billing = ("--group", "billing")
    yield groups("--list")
    yield groups("--list", "--state")
    yield groups("--list", "--state", "stable")
    yield groups("--list", "--type")
    yield groups("--describe", *billing)
    yield groups("--describe", *billing, "--state", "--verbose")
    yield groups("--describe", *billing, "--members", "--verbose")
    yield groups("--describe", "--all-groups", "--offsets", "--verbose")
    yield groups("--describe", "--group", "nobody")
    yield groups("--describe", "--group", "nobody", "--members")
    for how in (
        ("--to-earliest", "--execute"),
        ("--to-latest", "--dry-run"),
        ("--shift-by", "5", "--dry-run"),
        ("--to-offset", "1000", "--dry-run"),
        ("--by-duration", "P1D", "--dry-run"),
        ("--to-datetime", "2020-01-01T00:00:00.000", "--dry-run"),
        ("--to-earliest", "--export", "--dry-run"),
    ):
        yield groups(*billing, "--topic", "orders", "--reset-offsets", *how)
    yield groups(*billing, "--topic", "orders:0", "--reset-offsets", "--to-current", "--dry-run")
    yield groups(*billing, "--topic", "nothing", "--reset-offsets", "--to-earliest", "--dry-run")
    yield groups(*billing, "--topic", "orders", "--delete-offsets")
    yield groups(*billing, "--topic", "nothing", "--delete-offsets")
    yield groups(*billing, "--delete")
    yield groups(*billing, "--delete")
    read = ("--topic", "orders", "--group", "modern", "--max-messages", "1", "--timeout-ms", "20000", "--from-beginning")
    yield of("consumer.ConsoleConsumer", numbers=True)(*read, "--consumer-property", "group.protocol=consumer")
    yield groups("--describe", "--group", "modern", "--state")
    yield of("GroupsCommand", unordered=True)("--list")
    yield of("GroupsCommand", unordered=True)("--list", "--consumer")


def _partitions(of: Callable[..., Callable[..., Run]], file: Callable[[str, object], str]) -> Iterator[Run]:
    yield of("LogDirsCommand")("--describe", "--topic-list", "orders")
    yield of("LogDirsCommand")("--describe", "--topic-list", "nothing")
    yield of("LogDirsCommand")("--describe", "--broker-list", "7")
    reassign = of("reassign.ReassignPartitionsCommand")

    def plan(name: str, replicas: list[int], topic: str = "orders", **more: object) -> tuple[str, str]:
        moved = {"version": 1, "partitions": [{"topic": topic, "partition": 0, "replicas": replicas} | more]}
        return "--reassignment-json-file", file(name, moved)

    topics = file("topics.json", {"version": 1, "topics": [{"topic": "orders"}]})
    yield reassign("--topics-to-move-json-file", topics, "--broker-list", "1", "--generate")
    yield reassign(*plan("move.json", [1]), "--execute")
    yield reassign(*plan("move.json", [1]), "--verify")
    yield reassign(*plan("move.json", [1]), "--cancel")
    yield reassign(*plan("away.json", [7]), "--execute")
    yield reassign(*plan("missing-topic.json", [1], "nothing"), "--execute")
    yield reassign(*plan("nowhere.json", [1], log_dirs=["/no/such/directory"]), "--execute")
    yield reassign("--list")
    elect = of("LeaderElectionCommand")
    for kind in ("preferred", "unclean"):
        yield elect("--election-type", kind, "--topic", "orders", "--partition", "0")
    yield elect("--election-type", "preferred", "--topic", "nothing", "--partition", "0")
    yield elect("--election-type", "preferred", "--all-topic-partitions")


def _cluster(of: Callable[..., Callable[..., Run]], bootstrap: str) -> Iterator[Run]:
    yield of("BrokerApiVersionsCommand")()
    features = of("FeatureCommand")
    yield features("describe")
    yield features("version-mapping")
    yield features("upgrade", "--feature", "metadata.version=30")
    yield features("upgrade", "--feature", "no.such.feature=1")
    yield features("downgrade", "--feature", "group.version=0", "--dry-run")
    quorum = of("MetadataQuorumCommand", numbers=True)
    yield quorum("describe", "--status")
    yield quorum("describe", "--replication")
    for words in (("cluster-id",), ("list-endpoints",), ("list-endpoints", "--include-fenced-brokers"), ("unregister", "--id", "7")):
        command, *more = words
        yield Run(f"{TOOLS}ClusterTool", (command, "--bootstrap-server", bootstrap, *more))
    metrics = of("ClientMetricsCommand", unordered=True)
    yield metrics("--list")
    yield metrics("--alter", "--name", "some", "--metrics", "org.apache.kafka.producer.", "--interval", "60000")
    yield metrics("--alter", "--name", "some", "--interval", "1")
    yield metrics("--alter", "--name", "some", "--match", "nobody=x")
    yield metrics("--list")
    yield metrics("--describe", "--name", "some")
    yield metrics("--describe", "--name", "other")
    yield metrics("--delete", "--name", "some")
    yield metrics("--list")
    yield of("AclCommand")("--list")
    yield of("DelegationTokenCommand")("--describe")


def _transactions(transactions: Callable[..., Run], counted: Callable[..., Run]) -> Iterator[Run]:
    yield transactions("list")
    yield transactions("list", "--duration-filter", "1000")
    yield transactions("describe", "--transactional-id", "nobody")
    yield counted("describe-producers", "--topic", "orders", "--partition", "0")
    yield transactions("find-hanging", "--broker-id", "1")
    yield transactions("abort", "--topic", "orders", "--partition", "0", "--start-offset", "0")
    yield transactions("forceTerminateTransaction", "--transactionalId", "nobody")


def _measured(of: Callable[..., Callable[..., Run]], bootstrap: str) -> Iterator[Run]:
    placed = ("--topic", "placed")
    measured = ("--num-records", "2000", "--record-size", "100", "--throughput", "-1")
    producer = ("--producer-props", f"bootstrap.servers={bootstrap}", "acks=all")
    yield Run(f"{TOOLS}ProducerPerformance", (*placed, *measured, *producer), numbers=True)
    transactional = ("--transactional-id", "perf", "--transaction-duration-ms", "100")
    yield Run(f"{TOOLS}ProducerPerformance", (*placed, *measured, *transactional, *producer), numbers=True)
    yield of("TransactionsCommand", numbers=True)("describe", "--transactional-id", "perf")
    yield of("ConsumerPerformance", numbers=True)(*placed, "--num-records", "2000", "--timeout", "20000")
    yield Run(f"{TOOLS}EndToEndLatency", (bootstrap, "measured", "20", "all", "100"), numbers=True)
    yield of("VerifiableProducer", numbers=True)(*placed, "--max-messages", "5", "--throughput", "10")
    yield of("VerifiableConsumer", numbers=True)(*placed, "--group-id", "verified", "--max-messages", "5")


def _deleted(of: Callable[..., Callable[..., Run]]) -> Iterator[Run]:
    topics = of("TopicCommand")
    yield topics("--delete", "--topic", "orders")
    yield topics("--delete", "--topic", "orders")
    yield topics("--delete", "--topic", "nothing", "--if-exists")
    yield topics("--list", "--exclude-internal")
