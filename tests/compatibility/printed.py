"""What a tool printed, made comparable: without what no two brokers share."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.compatibility.scenario import Run


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run ended with: exit status, and the lines of both outputs."""

    status: int
    lines: tuple[str, ...]


_ANY_BROKER: Final = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>"),
    (r"(TopicId|ClusterId|Cluster ID): *\t*[\w-]{22}\b", r"\1: <id>"),
    (r"(?m)^(\d+\s+)[\w-]{22}(?=\s)", r"\1<id>"),  # of a node's directory
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[:,.]?\d*", "<time>"),
    (r"\b1[6-9]\d{11}\b", "<ms>"),
    (r"\(id: \d+ rack: null[^)]*\)", "(id: 1)"),
    (r"127\.0\.0\.1[:\s]+\d+", "<broker>"),
    (r"/127\.0\.0\.1\b", "/<host>"),
    (r"clientId=[\w-]+", "clientId=<id>"),
    (r"\bEpoch: \d+", "Epoch: <n>"),
)
_NOT_TOLD: Final = r"\s*at [\w.$/]+\(|\s*\.\.\. \d+ more|\[<time>\] (WARN|INFO)|OpenJDK|SLF4J|.* max latency\.$"


def normal(text: str, own: dict[str, str], run: Run) -> tuple[str, ...]:
    """The lines without addresses, ids and times; of stack traces only what they say; sorted where the order is of a hash table."""
    for name, by in own.items():
        text = text.replace(name, by)
    for pattern, by in _ANY_BROKER:
        text = re.sub(pattern, by, text)
    if run.numbers:
        text = re.sub(r"-?\d+(\.\d+)?|NaN", "<n>", text)
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines()]
    kept = [_sorted(line) for line in lines if line and not re.match(_NOT_TOLD, line) and not _of_another(line, run)]
    if run.numbers:
        return tuple(sorted(set(kept)))
    return tuple(sorted(kept) if run.unordered else kept)


def _of_another(line: str, run: Run) -> bool:
    """VerifiableProducer ends before its last record is acknowledged, and tells of it then."""
    return '"name":"producer_send_success"' in line and not run.tool.endswith("VerifiableProducer")


def _sorted(line: str) -> str:
    """JSON with its members and its arrays of objects in one order, and configs after "Configs:" likewise."""
    if line.startswith("{"):
        try:
            return json.dumps(_ordered(json.loads(re.sub(r"(?<=:)<(n|ms)>", r'"<\1>"', line))), sort_keys=True)
        except ValueError:
            return line
    head, mark, configs = line.partition("Configs: ")
    return head + mark + ",".join(sorted(configs.split(","))) if mark else line


def _ordered(value: object) -> object:
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_ordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value
