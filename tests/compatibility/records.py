"""What is kept of runs, so that the test suite and docs/compatibility.md need neither Kafka nor time. Files of JSON beside this one.

`kafka-4.3-tools.json.gz`: what Kafka's tools printed for Kafka, by run. `kafka-4.3-settings.json.gz`: what Kafka tells of its settings.
`kafka-4.3-versions.json.gz`: what became of each step of each client at each level of versions, on Kafka. `report.json`: what the last
whole run found.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tests.compatibility.printed import Printed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.compatibility.settings import Described

HERE: Final = Path(__file__).parent
TOOLS: Final = HERE / "kafka-4.3-tools.json.gz"
SETTINGS: Final = HERE / "kafka-4.3-settings.json.gz"
VERSIONS: Final = HERE / "kafka-4.3-versions.json.gz"
REPORT: Final = HERE / "report.json"


def save_tools(printed: Iterable[tuple[str, Printed]]) -> None:
    """Names of runs, and what each printed, in order."""
    _save(TOOLS, [[name, one.status, one.lines] for name, one in printed])


def load_tools() -> dict[str, Printed]:
    """By name of the run; one that comes again has a number behind it (`names`)."""
    return {name: Printed(status, tuple(lines)) for name, status, lines in _load(TOOLS)}


def save_settings(described: Described) -> None:
    _save(SETTINGS, described)


def load_settings() -> Described:
    found: Described = _load(SETTINGS)
    return found


Stories: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""Outcomes by level, client and step."""


def save_versions(stories: Stories) -> None:
    _save(VERSIONS, stories)


def load_versions() -> Stories:
    found: Stories = _load(VERSIONS)
    return found


def _save(path: Path, value: object) -> None:
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        file.write(json.dumps(value, indent=0).encode())


def _load(path: Path) -> Any:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


@dataclass
class Report:
    """`tools`: why each run printed something else than for Kafka, empty where it did not.

    `versions`: which of each API's each client sent, by client and API key, with spaces between.
    """

    tools: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def save(self) -> None:
        REPORT.write_text(json.dumps({"tools": self.tools, "versions": self.versions}, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls) -> Report:
        return cls(**json.loads(REPORT.read_text("utf-8")))
