"""What Kafka answered to a set of sequences, kept so that the test suite needs no Kafka. A file of JSON, one sequence a line, gzip."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.differential.symbols import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.differential.target import Step

FILE = Path(__file__).parent / "kafka-4.3.jsonl.gz"


@dataclass
class Recorded:
    """A sequence, and Kafka's outcome of each step."""

    theme: str
    seed: int
    token: str
    steps: list[Step] = field(default_factory=list)
    kafka: list[Any] = field(default_factory=list)


def save(path: Path, sequences: Iterable[Recorded]) -> None:
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        for one in sequences:
            said = {"theme": one.theme, "seed": one.seed, "token": one.token, "steps": to_json(one.steps), "kafka": one.kafka}
            file.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")


def load(path: Path = FILE) -> Iterator[Recorded]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            said = json.loads(line)
            yield Recorded(said["theme"], said["seed"], said["token"], from_json(said["steps"]), said["kafka"])
