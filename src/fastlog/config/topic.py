"""The settings of a topic: all of Kafka 4.3's, and fastlog's own.

Those that this release keeps but does not act on say so: they are stored, checked and shown, so that tools that set them work.
"""

from __future__ import annotations

from typing import Final

from fastlog.config.keys import (
    INT64_MAX,
    ConfigError,
    Key,
    Type,
    at_least,
    between,
    between_or,
    one_of,
    throttled_replicas,
)

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
CODINGS: Final = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
NOT_YET: Final = " Kept and shown; not acted on yet."
ONE_NODE: Final = " Kept and shown; has no effect with one node."

_KEYS: Final = (
    Key(
        "cleanup.policy",
        Type.LIST,
        "delete",
        "What happens to old segments: delete drops them by time and size, compact keeps the newest record of each key, both may be "
        "given, none keeps everything. With compact every record needs a key.",
        one_of("compact", "delete"),
        (("log.cleanup.policy", 1),),
    ),
    Key(
        "compression.gzip.level",
        Type.INT,
        "-1",
        "Level for compression.type=gzip, 1 to 9; -1 is the library's own choice.",
        between_or(1, 9, -1),
        (("compression.gzip.level", 1),),
    ),
    Key(
        "compression.lz4.level",
        Type.INT,
        "9",
        "Level for compression.type=lz4, 1 to 17.",
        between(1, 17),
        (("compression.lz4.level", 1),),
    ),
    Key(
        "compression.type",
        Type.STRING,
        "producer",
        "How batches are stored: as the producer sent them, or recompressed to this coding.",
        one_of(*CODINGS),
        (("compression.type", 1),),
    ),
    Key(
        "compression.zstd.level",
        Type.INT,
        "3",
        "Level for compression.type=zstd, -131072 to 22.",
        between(-131072, 22),
        (("compression.zstd.level", 1),),
    ),
    Key(
        "delete.retention.ms",
        Type.LONG,
        "86400000",
        "How long compaction keeps the marker of a deleted key, so that a reader from the start sees that it is gone.",
        at_least(0),
        (("log.cleaner.delete.retention.ms", 1),),
    ),
    Key(
        "fastlog.fetch.verify.enable",
        Type.BOOLEAN,
        "true",
        "Check what is read from a disk, by the checksums of its batches, before it is sent: a consumer gets CORRUPT_MESSAGE instead of "
        "damaged bytes, and the broker's log names file and byte. What is still in memory was checked when it was produced.",
        None,
        (("fastlog.fetch.verify.enable", 1),),
    ),
    Key(
        "fastlog.record.validation.enable",
        Type.BOOLEAN,
        "true",
        "Look into every record batch, compressed ones too, before it is stored. Off: only its header and checksum are looked at, which "
        "is faster; a batch with damaged records then stops its consumers.",
        None,
        (("fastlog.record.validation.enable", 1),),
    ),
    Key(
        "file.delete.delay.ms",
        Type.LONG,
        "60000",
        "How long a segment's file stays after it was dropped from the log." + NOT_YET,
        at_least(0),
        (("log.segment.delete.delay.ms", 1),),
    ),
    Key(
        "flush.messages",
        Type.LONG,
        str(INT64_MAX),
        "Records after which what acks=1 producers wrote is put on stable storage too; 1 is after each batch.",
        at_least(1),
        (("log.flush.interval.messages", 1),),
    ),
    Key(
        "flush.ms",
        Type.LONG,
        str(INT64_MAX),
        "Milliseconds after which what acks=1 producers wrote is put on stable storage too.",
        at_least(0),
        (("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)),
    ),
    Key("follower.replication.throttled.replicas", Type.LIST, "", "Replicas whose copying is throttled." + ONE_NODE, throttled_replicas),
    Key(
        "index.interval.bytes",
        Type.INT,
        "4096",
        "Bytes of log between two entries of the offset index.",
        at_least(0),
        (("log.index.interval.bytes", 1),),
    ),
    Key("leader.replication.throttled.replicas", Type.LIST, "", "Replicas whose reading is throttled." + ONE_NODE, throttled_replicas),
    Key(
        "local.retention.bytes",
        Type.LONG,
        "-2",
        "Size kept here of a partition in tiered storage; -2 is retention.bytes. There is no tiered storage." + NOT_YET,
        at_least(-2),
        (("log.local.retention.bytes", 1),),
    ),
    Key(
        "local.retention.ms",
        Type.LONG,
        "-2",
        "Age kept here of a partition in tiered storage; -2 is retention.ms. There is no tiered storage." + NOT_YET,
        at_least(-2),
        (("log.local.retention.ms", 1),),
    ),
    Key(
        "max.compaction.lag.ms",
        Type.LONG,
        str(INT64_MAX),
        "Longest time that a record stays out of compaction.",
        at_least(1),
        (("log.cleaner.max.compaction.lag.ms", 1),),
    ),
    Key(
        "max.message.bytes",
        Type.INT,
        "1048588",
        "Largest record batch that is taken, in bytes, as the producer compressed it.",
        at_least(0),
        (("message.max.bytes", 1),),
    ),
    Key(
        "message.timestamp.after.max.ms",
        Type.LONG,
        "3600000",
        "How far ahead of the broker's clock a record's create time may be.",
        at_least(0),
        (("log.message.timestamp.after.max.ms", 1),),
    ),
    Key(
        "message.timestamp.before.max.ms",
        Type.LONG,
        str(INT64_MAX),
        "How far behind the broker's clock a record's create time may be.",
        at_least(0),
        (("log.message.timestamp.before.max.ms", 1),),
    ),
    Key(
        "message.timestamp.type",
        Type.STRING,
        "CreateTime",
        "Whose time a record has: CreateTime, the producer's, or LogAppendTime, the broker's.",
        one_of("CreateTime", "LogAppendTime"),
        (("log.message.timestamp.type", 1),),
    ),
    Key(
        "min.cleanable.dirty.ratio",
        Type.DOUBLE,
        "0.5",
        "Share of a log that is not compacted yet at which compaction starts.",
        between(0, 1),
        (("log.cleaner.min.cleanable.ratio", 1),),
    ),
    Key(
        "min.compaction.lag.ms",
        Type.LONG,
        "0",
        "Shortest time that a record stays out of compaction.",
        at_least(0),
        (("log.cleaner.min.compaction.lag.ms", 1),),
    ),
    Key(
        "min.insync.replicas",
        Type.INT,
        "1",
        "Replicas that must have a record before acks=all is answered." + ONE_NODE,
        at_least(1),
        (("min.insync.replicas", 1),),
    ),
    Key(
        "preallocate",
        Type.BOOLEAN,
        "false",
        "Whether a new segment's space is taken at once. The log keeps zeroed blocks ahead of its end in any case." + NOT_YET,
        None,
        (("log.preallocate", 1),),
    ),
    Key("remote.log.copy.disable", Type.BOOLEAN, "false", "No more copying to tiered storage, of which there is none." + NOT_YET),
    Key("remote.log.delete.on.disable", Type.BOOLEAN, "false", "Drop what is in tiered storage, of which there is none." + NOT_YET),
    Key("remote.storage.enable", Type.BOOLEAN, "false", "Tiered storage, of which there is none: only false can be set."),
    Key(
        "retention.bytes",
        Type.LONG,
        "-1",
        "Size to which a partition is kept, in bytes; -1 is without a limit.",
        None,
        (("log.retention.bytes", 1),),
    ),
    Key(
        "retention.ms",
        Type.LONG,
        "604800000",
        "Age to which records are kept, in milliseconds; -1 is without a limit.",
        at_least(-1),
        (("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)),
    ),
    Key(
        "segment.bytes",
        Type.INT,
        "1073741824",
        "Size at which a new segment is begun.",
        at_least(1024 * 1024),
        (("log.segment.bytes", 1),),
    ),
    Key(
        "segment.index.bytes",
        Type.INT,
        "10485760",
        "Largest index of a segment; when it is full a new segment is begun.",
        at_least(4),
        (("log.index.size.max.bytes", 1),),
    ),
    Key(
        "segment.jitter.ms",
        Type.LONG,
        "0",
        "Most that is taken from segment.ms by chance, so that not all partitions begin a segment at once.",
        at_least(0),
        (("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)),
    ),
    Key(
        "segment.ms",
        Type.LONG,
        "604800000",
        "Age at which a new segment is begun even when the old one is not full.",
        at_least(1),
        (("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)),
    ),
    Key(
        "unclean.leader.election.enable",
        Type.BOOLEAN,
        "false",
        "Whether a replica that lacks records may become leader." + ONE_NODE,
        None,
        (("unclean.leader.election.enable", 1),),
    ),
    Key(
        "write.caching",
        Type.BOOLEAN,
        "false",
        "Answer acks=all as soon as a record would survive the broker's death, before it is on stable storage: faster, and a power cut "
        "may lose what was acknowledged.",
        None,
        (("write.caching", 1),),
    ),
)

TOPIC_KEYS: Final[dict[str, Key]] = {key.name: key for key in _KEYS}


_JUDGED: Final = """
segment.bytes segment.ms segment.jitter.ms segment.index.bytes flush.messages flush.ms retention.bytes retention.ms max.message.bytes
index.interval.bytes delete.retention.ms min.compaction.lag.ms max.compaction.lag.ms file.delete.delay.ms min.cleanable.dirty.ratio
cleanup.policy unclean.leader.election.enable min.insync.replicas compression.type compression.gzip.level compression.lz4.level
compression.zstd.level preallocate message.timestamp.type message.timestamp.before.max.ms message.timestamp.after.max.ms
leader.replication.throttled.replicas follower.replication.throttled.replicas remote.storage.enable local.retention.ms
local.retention.bytes remote.log.copy.disable remote.log.delete.on.disable
"""
_RANK: Final = {name: rank for rank, name in enumerate(_JUDGED.split())}
"""Of several values that are wrong, Kafka names the one that comes first in this order, that of its own definitions."""


def check_topic_config(values: dict[str, str]) -> None:
    """All that a topic sets, together. Raises ConfigError."""
    for name in values:
        if name not in TOPIC_KEYS:
            raise ConfigError(f"Unknown topic config name: {name}")
    parsed = {name: TOPIC_KEYS[name].parse(values[name]) for name in sorted(values, key=lambda name: _RANK.get(name, len(_RANK)))}
    low, high = parsed.get("min.compaction.lag.ms", 0), parsed.get("max.compaction.lag.ms", INT64_MAX)
    if low > high:
        raise ConfigError(f"conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})")
    if parsed.get("remote.storage.enable"):
        raise ConfigError("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")
