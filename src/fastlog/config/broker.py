"""The settings of the broker: those of Kafka 4.3 that mean something here, and fastlog's own."""

from __future__ import annotations

from typing import Final

from fastlog.config.kept import KEPT_KEYS
from fastlog.config.keys import INT32_MAX, INT64_MAX, Check, ConfigError, Key, Mode, Type, at_least, between, invalid, one_of
from fastlog.config.topic import TOPIC_KEYS


def _assignors(name: str, value: list[str]) -> None:
    known = {
        "uniform",
        "range",
        "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
        "org.apache.kafka.coordinator.group.assignor.RangeAssignor",
    }
    for item in value:
        if item not in known:
            raise invalid(name, item, "Only uniform and range are there; assignors of one's own are not supported")
    if not value:
        raise invalid(name, value, "At least one assignor is needed")


def _migration(name: str, value: str) -> None:
    one_of("disabled", "upgrade", "downgrade", "bidirectional")(name, value.lower())


_FIXED: Final = (
    Key(
        "add.partitions.to.txn.retry.backoff.max.ms",
        Type.INT,
        "100",
        "How long a producer that begins a transaction waits for the one before to be complete.",
        at_least(0),
    ),
    Key("advertised.listeners", Type.LIST, None, "What clients are told to connect to, by listener (--advertise)."),
    Key("auto.create.topics.enable", Type.BOOLEAN, "true", "Create a topic when a client asks for the metadata of one that is not there."),
    Key("broker.rack", Type.STRING, None, "The rack that this broker stands in, as clients are told."),
    Key("connections.max.idle.ms", Type.LONG, "600000", "Close a connection after so long without a request."),
    Key("controller.quota.window.num", Type.INT, "11", "Samples kept of each client's changes of topics, for its quota.", at_least(1)),
    Key("controller.quota.window.size.seconds", Type.INT, "1", "Length of one of these samples.", at_least(1)),
    Key("default.replication.factor", Type.INT, "1", "Replicas of a topic that does not say. One node has one.", between(1, 1)),
    Key("delete.topic.enable", Type.BOOLEAN, "true", "Whether topics can be deleted."),
    Key("fetch.max.bytes", Type.INT, "57671680", "Most bytes that one fetch is answered with, whatever it asks for.", at_least(1024)),
    Key(
        "fastlog.connection.shards",
        Type.INT,
        "0",
        "Bit mask of the shards that new connections are dealt to; 0 is all. For tests and measurements.",
        at_least(0),
    ),
    Key(
        "fastlog.disk.reserve.bytes",
        Type.LONG,
        "1073741824",
        "Free bytes of each disk that producers leave to deletions, retention, metadata and committed offsets; at most a twentieth of it. "
        "Produce requests that would need some of it get KAFKA_STORAGE_ERROR.",
        at_least(0),
        mode=Mode.CLUSTER,
    ),
    Key(
        "fastlog.group.consumer.settling.heartbeat.interval.ms",
        Type.INT,
        "1000",
        "How often members of a consumer group send heartbeats while partitions move between them, unless they do so more often anyway.",
        at_least(1),
    ),
    Key(
        "fastlog.partition.shards",
        Type.INT,
        "0",
        "Bit mask of the shards that partitions are placed on; 0 is all. For tests and measurements.",
        at_least(0),
    ),
    Key(
        "fastlog.pinned.timeout.ms",
        Type.LONG,
        "10000",
        "How long a response may hold the log's memory while its client reads nothing of it; then it is copied.",
        at_least(1),
    ),
    Key(
        "fastlog.recovery.bytes.max",
        Type.LONG,
        "34359738368",
        "Bytes of all logs together that may lie past their checkpoints, which a start after a kill looks through. Above it, the logs with "
        "most get a checkpoint before it is due, which is every 128 MiB.",
        at_least(1 << 20),
    ),
    Key(
        "fastlog.segment.recycle.bytes",
        Type.LONG,
        "4294967296",
        "Bytes that removed segments may hold in each data directory, as space for next ones that need not be zeroed; 0 is none. They are "
        "given back when the disk is nearly full.",
        at_least(0),
        mode=Mode.CLUSTER,
    ),
    Key(
        "fastlog.shutdown.timeout.ms",
        Type.INT,
        "10000",
        "How long requests in progress may take to end after SIGTERM before their connections are cut.",
        at_least(0),
    ),
    Key(
        "group.consumer.assignment.interval.ms",
        Type.INT,
        "1000",
        "Least time between two target assignments of a consumer group.",
        at_least(0),
        mode=Mode.CLUSTER,
    ),
    Key(
        "group.consumer.assignors",
        Type.LIST,
        "uniform,range",
        "Server-side assignors that consumers may ask for; the first is that of groups that ask for none.",
        _assignors,
    ),
    Key("group.consumer.heartbeat.interval.ms", Type.INT, "5000", "How often members of consumer groups send heartbeats.", at_least(1)),
    Key("group.consumer.max.assignment.interval.ms", Type.INT, "15000", "Most that a group may set for itself.", at_least(0)),
    Key("group.consumer.max.heartbeat.interval.ms", Type.INT, "15000", "Most that a group may set for itself.", at_least(1)),
    Key("group.consumer.max.session.timeout.ms", Type.INT, "60000", "Most that a group may set for itself.", at_least(1)),
    Key("group.consumer.max.size", Type.INT, str(INT32_MAX), "Most members of one consumer group.", at_least(1)),
    Key(
        "group.consumer.migration.policy",
        Type.STRING,
        "bidirectional",
        "Which ways a group may change between the classic and the consumer protocol while it is in use.",
        _migration,
    ),
    Key("group.consumer.min.assignment.interval.ms", Type.INT, "0", "Least that a group may set for itself.", at_least(0)),
    Key("group.consumer.min.heartbeat.interval.ms", Type.INT, "5000", "Least that a group may set for itself.", at_least(1)),
    Key("group.consumer.min.session.timeout.ms", Type.INT, "45000", "Least that a group may set for itself.", at_least(1)),
    Key(
        "group.consumer.session.timeout.ms",
        Type.INT,
        "45000",
        "A member of a consumer group that was not heard of for so long is removed.",
        at_least(1),
    ),
    Key("group.initial.rebalance.delay.ms", Type.INT, "3000", "How long a new group waits for more members before its first rebalance."),
    Key("group.max.session.timeout.ms", Type.INT, "1800000", "Longest session time-out that a group's member may ask for."),
    Key("group.max.size", Type.INT, str(INT32_MAX), "Most members of one group.", at_least(1)),
    Key("group.min.session.timeout.ms", Type.INT, "6000", "Shortest session time-out that a group's member may ask for."),
    Key("listeners", Type.LIST, None, "Where the broker listens (--listen)."),
    Key(
        "log.cleaner.backoff.ms",
        Type.LONG,
        "15000",
        "How long the cleaner rests when it found no log to compact.",
        at_least(0),
        mode=Mode.CLUSTER,
    ),
    Key(
        "log.cleaner.dedupe.buffer.size",
        Type.LONG,
        "134217728",
        "Most memory for the keys of logs that are being compacted, over all the cleaner's threads: 27 bytes for a key. It is taken only "
        "while it is needed; a log with more keys than fit is compacted in several turns.",
        at_least(1 << 20),
        mode=Mode.CLUSTER,
    ),
    Key("log.cleaner.enable", Type.BOOLEAN, "true", "Whether logs of topics with cleanup.policy=compact are compacted."),
    Key(
        "log.cleaner.io.max.bytes.per.second",
        Type.DOUBLE,
        "1.7976931348623157E308",
        "Most bytes a second that the cleaner reads and writes, over all its threads.",
        at_least(1),
        mode=Mode.CLUSTER,
    ),
    Key("log.cleaner.threads", Type.INT, "1", "Threads of the cleaner: as many logs are compacted at once.", between(1, 16)),
    Key("log.dirs", Type.LIST, None, "The data directories (--data)."),
    Key("log.retention.check.interval.ms", Type.LONG, "300000", "Time between two looks for segments to drop.", at_least(1)),
    Key("log.retention.hours", Type.INT, "168", "retention.ms of topics that do not say, in hours."),
    Key("log.retention.minutes", Type.INT, None, "The same in minutes; counts before log.retention.hours."),
    Key("log.roll.hours", Type.INT, "168", "segment.ms of topics that do not say, in hours.", at_least(1)),
    Key("log.roll.jitter.hours", Type.INT, "0", "segment.jitter.ms of topics that do not say, in hours.", at_least(0)),
    Key("log.flush.scheduler.interval.ms", Type.LONG, str(INT64_MAX), "flush.ms of topics where log.flush.interval.ms is not set."),
    Key("max.connections", Type.INT, str(INT32_MAX), "Most connections at once; more are closed as they come.", at_least(0)),
    Key("max.incremental.fetch.session.cache.slots", Type.INT, "1000", "Most fetch sessions kept at once (KIP-227).", at_least(0)),
    Key("max.request.partition.size.limit", Type.INT, "2000", "Most partitions in one answer to DescribeTopicPartitions.", at_least(1)),
    Key("node.id", Type.INT, "1", "This broker's number.", at_least(0), (("broker.id", 1),)),
    Key("broker.id", Type.INT, "1", "The same as node.id.", at_least(0), (("node.id", 1),)),
    Key("num.partitions", Type.INT, "1", "Partitions of a topic that does not say.", at_least(1)),
    Key("offset.metadata.max.bytes", Type.INT, "4096", "Longest text that a committed offset may carry."),
    Key("offsets.commit.timeout.ms", Type.INT, "5000", "How long an offset commit may wait for the log.", at_least(1)),
    Key("offsets.load.buffer.size", Type.INT, "5242880", "Bytes read at a time while committed offsets are loaded.", at_least(1)),
    Key("offsets.retention.check.interval.ms", Type.LONG, "600000", "Time between two looks for committed offsets to drop.", at_least(1)),
    Key("offsets.retention.minutes", Type.INT, "10080", "How long offsets are kept after their group became empty.", at_least(1)),
    Key("offsets.topic.compression.codec", Type.INT, "0", "Coding of __consumer_offsets: 0, none, is the only one.", between(0, 0)),
    Key("offsets.topic.num.partitions", Type.INT, "50", "Partitions of __consumer_offsets, when it is made.", at_least(1)),
    Key("offsets.topic.replication.factor", Type.SHORT, "1", "Replicas of __consumer_offsets. One node has one.", between(1, 1)),
    Key("offsets.topic.segment.bytes", Type.INT, "104857600", "segment.bytes of __consumer_offsets, when it is made.", at_least(1)),
    Key(
        "producer.id.expiration.ms",
        Type.INT,
        "86400000",
        "How long an idle producer's id is known to partitions.",
        at_least(1),
        mode=Mode.CLUSTER,
    ),
    Key("quota.window.num", Type.INT, "11", "Samples kept of each client's bytes and time, for its quotas.", at_least(1)),
    Key("quota.window.size.seconds", Type.INT, "1", "Length of one of these samples.", at_least(1)),
    Key("socket.request.max.bytes", Type.INT, "104857600", "Longest request; a longer one closes its connection.", at_least(1)),
    Key(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Type.INT,
        "10000",
        "Time between two looks for transactions that have been open for longer than their producers said.",
        at_least(1),
    ),
    Key("transaction.max.timeout.ms", Type.INT, "900000", "Longest time-out that a transactional producer may ask for.", at_least(1)),
    Key(
        "transaction.partition.verification.enable",
        Type.BOOLEAN,
        "true",
        "Whether a producer's first write to a partition is checked to be part of its transaction.",
        mode=Mode.CLUSTER,
    ),
    Key(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Type.INT,
        "3600000",
        "Time between two looks for transactional ids to forget.",
        at_least(1),
    ),
    Key("transaction.state.log.load.buffer.size", Type.INT, "5242880", "Bytes read at a time while transactions are loaded.", at_least(1)),
    Key("transaction.state.log.num.partitions", Type.INT, "50", "Partitions of __transaction_state, when it is made.", at_least(1)),
    Key(
        "transaction.state.log.segment.bytes", Type.INT, "104857600", "segment.bytes of __transaction_state, when it is made.", at_least(1)
    ),
    Key(
        "transactional.id.expiration.ms", Type.INT, "604800000", "How long a transactional id that nobody uses is remembered.", at_least(1)
    ),
    Key("telemetry.max.bytes", Type.INT, "1048576", "Most bytes of metrics that a client may push at once (KIP-714).", at_least(1)),
)


def _log_retention(name: str, value: int) -> None:
    at_least(-1)(name, value)
    if value == 0:
        raise ConfigError("requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1")


def _default_of(topic_key: str, name: str, *, unset: bool = False, check: Check | None = None) -> Key:
    """The broker's setting `name` that gives a topic setting its default: same type, bounds (or `check`), and default or (unset) none.

    Of one without a default, the settings that count in its place are its synonyms.
    """
    key = TOPIC_KEYS[topic_key]
    others = tuple((other, 1) for other, _ in key.synonyms if other != name) if unset else ()
    doc = f"{topic_key} of topics that do not say."
    return Key(name, key.type, None if unset else key.default, doc, check or key.check, others, Mode.CLUSTER)


_DEFAULTS: Final = (
    _default_of("cleanup.policy", "log.cleanup.policy"),
    _default_of("compression.gzip.level", "compression.gzip.level"),
    _default_of("compression.lz4.level", "compression.lz4.level"),
    _default_of("compression.type", "compression.type"),
    _default_of("compression.zstd.level", "compression.zstd.level"),
    _default_of("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    _default_of("fastlog.fetch.verify.enable", "fastlog.fetch.verify.enable"),
    _default_of("fastlog.record.validation.enable", "fastlog.record.validation.enable"),
    _default_of("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    _default_of("flush.messages", "log.flush.interval.messages"),
    _default_of("flush.ms", "log.flush.interval.ms", unset=True),
    _default_of("index.interval.bytes", "log.index.interval.bytes"),
    _default_of("local.retention.bytes", "log.local.retention.bytes"),
    _default_of("local.retention.ms", "log.local.retention.ms"),
    _default_of("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    _default_of("max.message.bytes", "message.max.bytes"),
    _default_of("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    _default_of("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    _default_of("message.timestamp.type", "log.message.timestamp.type"),
    _default_of("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    _default_of("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    _default_of("min.insync.replicas", "min.insync.replicas"),
    _default_of("preallocate", "log.preallocate"),
    _default_of("retention.bytes", "log.retention.bytes"),
    _default_of("retention.ms", "log.retention.ms", unset=True, check=_log_retention),
    _default_of("segment.bytes", "log.segment.bytes"),
    _default_of("segment.index.bytes", "log.index.size.max.bytes"),
    _default_of("segment.jitter.ms", "log.roll.jitter.ms", unset=True),
    _default_of("segment.ms", "log.roll.ms", unset=True),
    _default_of("unclean.leader.election.enable", "unclean.leader.election.enable"),
    _default_of("write.caching", "write.caching"),
)

BROKER_KEYS: Final[dict[str, Key]] = {key.name: key for key in sorted((*KEPT_KEYS, *_FIXED, *_DEFAULTS), key=lambda key: key.name)}


def check_broker_config(values: dict[str, str]) -> None:
    """What is given at the start (--set, the file). Raises ConfigError, with the names that were likely meant."""
    for name, text in values.items():
        key = BROKER_KEYS.get(name)
        if key is None:
            raise ConfigError(f"there is no broker setting {name}{_meant(name)}")
        key.parse(text)
    if "node.id" in values and "broker.id" in values and values["node.id"].strip() != values["broker.id"].strip():
        raise ConfigError("node.id and broker.id are the same setting and must not differ")


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, BROKER_KEYS, 3, 0.7)
    topic = TOPIC_KEYS.get(name)
    if topic is not None and topic.synonyms:
        return f": it is a topic's; the broker's default for it is {topic.synonyms[0][0]}"
    return f": did you mean {' or '.join(near)}?" if near else ""
