"""Every version of every API through real clients: brokers of each age are made of one by a relay, and clients tell their stories to each.

The same stories are told to Kafka, through the same relay: a step that a client can't take at some level, as it needs newer versions, fails
there in the same way. Which versions the clients sent is what docs/compatibility.md says of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from fastlog.protocol.messages import API_BY_KEY
from tests.compatibility.python_clients import Outcomes, aiokafka_client, kafka_python, librdkafka
from tests.support.java import java
from tests.support.relay import NEWEST_LEVEL, Relay, caps_of_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PROGRAM: Final = "EveryRequest"
JAVA_TIMEOUT_S: Final = 400.0
_PYTHON: Final[dict[str, Callable[[str, str, list[str], float], Outcomes]]] = {
    "librdkafka": librdkafka,
    "kafka-python": kafka_python,
    "aiokafka": aiokafka_client,
}
JAVA: Final = "Java"
CLIENTS: Final = (JAVA, *_PYTHON)
LEVELS: Final = range(NEWEST_LEVEL + 1)
# Clients can do next to nothing with a broker that does not tell which node makes topics (Metadata from version 1; Kafka's own client: 4),
# and no transactions with one whose FindCoordinator only knows the coordinators of groups (0). One client is told the oldest all the same.
_FLOORS: Final = {JAVA: {3: 4, 10: 1}, "librdkafka": {3: 1, 10: 1}, "kafka-python": {3: 1, 10: 1}}
# (API key, version) without which a step would only wait until its time is over, or librdkafka 2.16 end its process (it reads
# the cluster's id where Metadata had none).
_NEEDS: Final[dict[str, dict[str, tuple[int, int]]]] = {
    JAVA: {"consumer group": (3, 12), "consumer group by a pattern": (3, 12)},
    "librdkafka": {
        "consume in a consumer group": (3, 12),
        "consume as a static member": (11, 5),
        "transactions": (28, 3),
        "describe cluster": (3, 2),
    },
    "kafka-python": {"consume as a static member": (11, 5)},
}
SOURCE: Final = Path(__file__).parent / f"{PROGRAM}.java"
# (API key, versions, why no client sends them)
BYTES_ONLY: Final[list[tuple[int, range, str]]] = [
    (23, range(2, 4), "clients look after epochs only where Metadata tells them, from version 7 on, and ask in the newest version then"),
    (24, range(4, 6), "brokers send it to each other: clients ask in version 3, or not at all where EndTxn has version 5"),
    (71, range(1), "not advertised, as on a Kafka without a plugin for it"),
    (72, range(1), "not advertised, as on a Kafka without a plugin for it"),
]

Sent = dict[tuple[int, int], int]
"""How often a client sent each (API key, version) and was answered."""


def told(
    relay: Relay, program: str, levels: Iterable[int], clients: Iterable[str] = CLIENTS, settle_s: float = 0.0
) -> Iterator[tuple[int, str, Outcomes, Sent]]:
    """Each client's story at each level: what became of its steps, and what it sent.

    `program`: the class path with EveryRequest compiled. `relay`: running, before any broker.
    `settle_s`: how long the broker needs until all its parts know of a change.
    """
    for level in levels:
        for client in clients:
            caps = caps_of_level(level)
            caps |= {key: max(caps[key], floor) for key, floor in _FLOORS.get(client, {}).items()}
            relay.caps, relay.seen = caps, {}
            name = f"{client}-{level}-{uuid4().hex[:6]}".lower()
            left_out = [step for step, (key, version) in _NEEDS.get(client, {}).items() if caps[key] < version]
            if client == JAVA:
                outcomes = _by_java(program, relay.bootstrap, name, left_out)
            else:
                outcomes = _PYTHON[client](relay.bootstrap, name, left_out, settle_s)
            yield level, client, outcomes, {pair: sum(one.errors.values()) for pair, one in sorted(relay.seen.items()) if one.errors}


def _by_java(program: str, bootstrap: str, name: str, left_out: list[str]) -> Outcomes:
    lines = java(program, PROGRAM, bootstrap, name, *left_out, timeout_s=JAVA_TIMEOUT_S).splitlines()
    return dict(line.split("\t")[:2] for line in lines)


def parted(kafka: Outcomes, fastlog: Outcomes) -> list[str]:
    """A line for each step with another outcome."""
    steps = {**kafka, **fastlog}
    ended = [(step, kafka.get(step, "missing"), fastlog.get(step, "missing")) for step in steps]
    return [f"{step}: Kafka {theirs}, fastlog {ours}" for step, theirs, ours in ended if theirs != ours]


def unsent(versions: Mapping[str, Mapping[str, str]]) -> list[tuple[int, int]]:
    """(API key, version) of all that are served, sent by none of the clients, and without a reason for it."""
    sent = {(int(key), int(each)) for of in versions.values() for key, numbers in of.items() for each in numbers.split()}
    served = {(key, each) for key, api in API_BY_KEY.items() for each in range(api.versions[0], api.versions[1] + 1)}
    return sorted(served - sent - {(key, each) for key, numbers, _ in BYTES_ONLY for each in numbers})
