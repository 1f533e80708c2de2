"""Why Kafka's tools print something else for fastlog than for Kafka: one entry for each difference that there is."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.compatibility.printed import Printed


@dataclass(frozen=True, slots=True)
class Explained:
    """`run`: a regular expression for the runs (`Run.name`), `line`: one for the lines, of either broker, that the reason covers."""

    run: str
    line: str
    reason: str

    def fits(self, run: str, line: str) -> bool:
        return re.fullmatch(self.run, run) is not None and re.fullmatch(self.line, line, re.DOTALL) is not None


_NODE: Final = (
    r"advertised\.listeners|broker\.id|controller\.(listener\.names|quorum\.voters)|inter\.broker\.listener\.name"
    r"|listener\.security\.protocol\.map|listeners|node\.id|process\.roles"
)
EXPLAINED: Final = [
    Explained("ConfigCommand .* --describe --all", r"(fastlog\.|write\.caching=).*", "settings that only fastlog has"),
    Explained(
        "ConfigCommand --entity-type brokers --entity-name 1 --describe --all",
        rf"({_NODE})=.*",
        "Kafka has to be told its number, its addresses and its controller's",
    ),
    Explained(
        "ConfigCommand --entity-type brokers --entity-name 1 --describe --all",
        r"offsets\.topic\.replication\.factor=1 .*",
        "the default is one replica, not three: there is one node",
    ),
    Explained(
        "BrokerApiVersionsCommand",
        r"(Sasl|DescribeAcls|CreateAcls|DeleteAcls|\w+DelegationToken|\w*Share\w+|StreamsGroup|\w+RaftVoter)\w*\(.*",
        "SASL, ACLs, delegation tokens, share and streams groups, and changes of the quorum are not served",
    ),
    Explained(
        "FeatureCommand describe",
        r"Feature: (share|streams)\.version .*",
        "features whose requests are not served stay at level 0",
    ),
    Explained(
        "FeatureCommand downgrade .*",
        "(.*group\\.version.*|1 out of 1 operation.*|exit [01])",
        "the consumer group protocol can't be taken away: there is no older release to go back to",
    ),
    Explained("AclCommand --list", ".*(SecurityDisabledException|UnsupportedVersionException).*", "ACLs are not served"),
]


def reasons(run: str, kafka: Printed, fastlog: Printed) -> tuple[list[Explained], list[str]]:
    """What explains the lines that only one of them has, and those that nothing explains (`-` Kafka's, `+` fastlog's)."""
    lines = [f"- exit {kafka.status}", f"+ exit {fastlog.status}"] if kafka.status != fastlog.status else []
    lines += [line for line in difflib.ndiff(kafka.lines, fastlog.lines) if line[:2] in {"- ", "+ "}]
    used: list[Explained] = []
    open_ones = []
    for line in lines:
        found = next((one for one in EXPLAINED if one.fits(run, line[2:])), None)
        if found is None:
            open_ones.append(line)
        elif found not in used:
            used.append(found)
    return used, open_ones
