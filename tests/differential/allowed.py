"""Differences between Kafka 4.3 and fastlog that stay, each with its reason. All others fail the test.

A rule names an API, a regular expression for the field's path, and what both said (regular expressions on their `repr`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.differential.compare import Difference


@dataclass(frozen=True, slots=True)
class Rule:
    """`api`: one name or several (`A|B`). `alike`: what both said has to agree in, where that is more than the expressions can tell."""

    api: str
    path: str
    kafka: str
    fastlog: str
    reason: str
    alike: Callable[[Any, Any], bool] | None = None

    def fits(self, difference: Difference) -> bool:
        return (
            difference.api in self.api.split("|")
            and re.fullmatch(self.path, difference.path) is not None
            and re.fullmatch(self.kafka, repr(difference.kafka), re.DOTALL) is not None
            and re.fullmatch(self.fastlog, repr(difference.fastlog), re.DOTALL) is not None
            and (self.alike is None or self.alike(difference.kafka, difference.fastlog))
        )

    def __str__(self) -> str:
        return f"{self.api} {self.path}: {self.reason}"


def _same_partitions(kafka: list[Any], fastlog: list[Any]) -> bool:
    """Whether two lists of partitions of Fetch say the same of those in both, but for the records, and no error of the others."""
    theirs, ours = ({partition["partition_index"]: partition for partition in side} for side in (kafka, fastlog))
    records = ("records", "aborted_transactions")
    return (
        len(theirs) == len(kafka)
        and len(ours) == len(fastlog)
        and all(
            theirs[index][name] == ours[index][name]
            for index in theirs.keys() & ours.keys()
            for name in theirs[index]
            if name not in records
        )
        and not any((theirs.get(index) or ours[index])["error_code"] for index in theirs.keys() ^ ours.keys())
    )


def _same_commits(kafka: list[Any], fastlog: list[Any]) -> bool:
    """Whether two lists of topics say the same of each partition, and the second names each topic and each partition once."""
    theirs, ours = (
        [(topic["name"], partition["partition_index"], partition["error_code"]) for topic in side for partition in topic["partitions"]]
        for side in (kafka, fastlog)
    )
    return set(theirs) == set(ours) and len(set(ours)) == len(ours) and len({topic["name"] for topic in fastlog}) == len(fastlog)


_ANY: Final = ".*"
_NUMBER: Final = r"-?\d+"
_OTHER_WRONG: Final = "of several things that are wrong in one request, another is said: Kafka looks at them in the order of a hash table"
_WRONG_CONFIG: Final = r"""['"](Invalid value .*|Can't (APPEND|SUBTRACT) .*|Unknown (topic|group) config name: .*|Null value .*)['"]"""
_UNKNOWN_CONFIG: Final = "['\"]Unknown topic config name: .*['\"]"
_WRONG_QUOTA: Final = r"'(Invalid configuration key .*|Quota .* must be greater than 0|.* cannot be a fractional value\.)'"
RULES: Final = [
    Rule("CreateTopics|DescribeConfigs", r".*\.configs\.(fastlog\..*|write\.caching)", "None", _ANY, "settings that only fastlog has"),
    Rule(
        "DescribeConfigs",
        r".*\.documentation",
        r"""['"].+['"]""",
        r"""['"].+['"]""",
        "the documentation of a setting is our own, and says what it does here",
    ),
    Rule(
        "DescribeConfigs",
        r"\.results\.configs\.node\.id\.(config_source|synonyms)",
        r"4|\[.*",
        r"5|\[.*",
        "Kafka has to be told its number; fastlog's is 1 unless it is told another",
    ),
    Rule(
        "AlterConfigs|IncrementalAlterConfigs",
        r"\.responses\.error_(code|message)",
        "0|None",
        "40|'Unknown broker config name: no\\.such\\.setting'",
        "Kafka takes settings of the broker that it does not know, for plugins of its own; there are none here",
    ),
    Rule(
        "ApiVersions",
        r"\.api_keys\.\d+",
        r"\{.*",
        "None",
        "docs/protocol.md lists the keys that are not served: SASL, tokens and ACLs, share and streams groups, replication",
    ),
    Rule(
        "ApiVersions",
        r"\.finalized_features",
        r"\[.*",
        r"\[.*",
        "features whose requests are not served (share and streams groups) stay at level 0",
    ),
    Rule("IncrementalAlterConfigs|AlterConfigs", r"\.responses\.error_message", _WRONG_CONFIG, _WRONG_CONFIG, _OTHER_WRONG),
    Rule("CreateTopics", r"\.topics\.error_message", _UNKNOWN_CONFIG, _UNKNOWN_CONFIG, _OTHER_WRONG),
    Rule(
        "IncrementalAlterConfigs|AlterConfigs",
        r"\.responses\.error_message",
        r"'requirement failed: log\.roll\.ms must be .*'",
        r"'Invalid value 0 for configuration log\.roll\.ms: .*'",
        "a bound that Kafka checks after it has read the setting is said as all others are",
    ),
    Rule(
        "IncrementalAlterConfigs|AlterConfigs",
        r"\.responses\.error_message",
        "'Unknown client metrics configuration: .*'",
        "'Unknown client metrics configuration: .*'",
        _OTHER_WRONG,
    ),
    Rule("AlterClientQuotas", r"\.entries\.error_message", _WRONG_QUOTA, _WRONG_QUOTA, _OTHER_WRONG),
    Rule(
        "AlterConfigs",
        "",
        "'no answer'",
        r"\{.*Each resource must appear at most once.*",
        "Kafka's controller fails on a resource named twice",
    ),
    Rule("Produce", "", "'no answer'", r"\{.*", "Kafka never answers some requests that it can't read"),
    Rule(
        "Produce",
        r"\.responses\.partition_responses\.(error_message|record_errors\.batch_index_error_message)",
        r"['\"].*['\"]|None",
        r"['\"].* .*['\"]",
        "why a batch is refused is said in words of our own, for each record in the same",
    ),
    Rule("Produce", r".*\.log_append_time_ms", "'<now>'", "-1", "Kafka tells the producer's own time of a batch that it had before"),
    Rule("Metadata", r"\.topics\.error_code", "-1", "42", "a topic without name and id makes Kafka fail"),
    Rule(
        "Fetch",
        r"\.responses\.partitions",
        r"\[.*",
        r"\[.*",
        "which partition comes first, with room for a batch of any size",
        _same_partitions,
    ),
    Rule("TxnOffsetCommit", r"\.topics", r"\[\{.*", r"\[\{.*", "a topic that is named twice is answered once", _same_commits),
    Rule(
        "FindCoordinator",
        r".*\.error_message",
        "'(This most likely occurs because of a request being malformed .*)?'",
        "'no coordinator of type .*",
        "ours names the type",
    ),
    Rule(
        "ListGroups",
        r"\.groups",
        r"\[.*",
        r"\[.*'protocol_type': ''.*",
        "a commit that took nothing makes a group in both; Kafka lists it only when something else has been stored beside it",
    ),
    Rule(
        "DescribeGroups",
        r"\.groups\.group_state",
        "'Dead'",
        "'Empty'",
        "a commit that took nothing makes a group in both; Kafka forgets it when nothing else has been stored beside it",
    ),
    Rule("OffsetFetch", r"\.groups\.error_code", "-1", "25", "an epoch without a member makes Kafka fail"),
    Rule(
        "ConsumerGroupHeartbeat",
        r"\.error_message",
        "'SubscribedTopicRegex .* is not a valid regular expression: .*'",
        "'SubscribedTopicRegex .* is not a valid regular expression: .*'",
        "RE2 and RE2/J word it differently",
    ),
    Rule("DescribeQuorum", r"\.nodes\.listeners\.port", _NUMBER, "'<port>'", "the controller has no port of its own"),
]


def rule_for(difference: Difference) -> Rule | None:
    """Why the difference stays, or None."""
    return next((rule for rule in RULES if rule.fits(difference)), None)
