"""Fixtures for all tests.

FASTLOG_TEST_BOOTSTRAP=HOST:PORT   run the tests that only need some broker against that one (Apache Kafka, to prove the tests themselves)
FASTLOG_TEST_IO=uring|epoll        only that engine (default: both)
FASTLOG_TEST_SERVE_ARGS="..."      further arguments of every broker started
FASTLOG_KAFKA_HOME=DIR             where Kafka's jars are, in DIR/libs (default: share/kafka of the environment)
"""

import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.process import Broker, BrokerFailedError, raise_descriptor_limit, uring_missing

OUTSIDE = os.environ.get("FASTLOG_TEST_BOOTSTRAP")
ENGINES = [os.environ["FASTLOG_TEST_IO"]] if os.environ.get("FASTLOG_TEST_IO") else ["uring", "epoll"]

Start = Callable[..., Broker]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESCRIPTORS] = raise_descriptor_limit()


DESCRIPTORS = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A test that says `one_engine` takes long and cares little for the engine: the second one is left to ./test --long.
    if not os.environ.get("FASTLOG_TEST_LONG"):
        spare = [i for i in items if i.get_closest_marker("one_engine") and _engine_of(i) in ENGINES[1:]]
        if spare:
            config.hook.pytest_deselected(items=spare)
            items[:] = [i for i in items if i not in spare]
    if os.geteuid() == 0:
        return
    for item in items:
        if mark := item.get_closest_marker("root"):
            why = mark.args[0] if mark.args else "see the test"
            item.add_marker(pytest.mark.skip(reason=f"needs root: {why}"))


def _engine_of(item: pytest.Item) -> str | None:
    """The engine that a test was made for by the fixture `engine`."""
    call = getattr(item, "callspec", None)
    return call.params.get("engine") if call else None


@pytest.fixture(scope="session")
def descriptors(pytestconfig: pytest.Config) -> int:
    """How many files this process, and each broker, may have open."""
    return pytestconfig.stash[DESCRIPTORS]


@pytest.fixture(scope="session", params=["outside"] if OUTSIDE else ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The I/O engine: each test that uses it runs once for each."""
    name: str = request.param
    if name == "uring" and (why := uring_missing()):
        pytest.skip(why)
    return name


def _end(broker: Broker) -> None:
    """Stops a broker; one that had died by itself fails the test, with its log."""
    if broker.process is None:
        return
    if not broker.alive():
        raise BrokerFailedError(f"the broker ended by itself, exit {broker.process.returncode}\n{broker.log[-8000:]}")
    broker.stop()


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Start]:
    """Starts brokers of the test's own: `start_broker(io=..., args=[...], name="a")`; all are stopped after it, cleanly."""
    started: list[Broker] = []

    def start(
        name: str = "data",
        *,
        io: str | None = None,
        args: Sequence[str] = (),
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Broker:
        if OUTSIDE:
            pytest.skip("needs a broker of its own")
        broker = Broker(tmp_path / name, io=io, args=args, env=env or {}, prefix=prefix)
        started.append(broker)
        return broker.start()

    yield start
    failures = []
    for broker in started:
        try:
            _end(broker)
        except BrokerFailedError as error:
            failures.append(str(error))
        broker.forget()
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


@pytest.fixture(scope="session")
def broker(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests that can share it, for each engine; its topics are each test's own."""
    if OUTSIDE:
        pytest.skip("needs fastlog itself, not a broker from outside")
    made = Broker(tmp_path_factory.mktemp(f"broker-{engine}") / "data", io=engine).start()
    yield made
    _end(made)


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest, engine: str) -> str:
    """HOST:PORT of a broker: the shared one of the engine, or the one from outside."""
    if OUTSIDE:
        return OUTSIDE
    broker: Broker = request.getfixturevalue("broker")
    assert broker.io == engine
    assert broker.alive(), f"the shared broker is gone\n{broker.log[-8000:]}"
    return broker.bootstrap


@pytest.fixture
def fresh_name(request: pytest.FixtureRequest) -> str:
    """A name that nothing had before, for a topic or a group, telling which test it belongs to."""
    test = re.sub(r"[^a-zA-Z0-9._-]+", "-", request.node.name)[:60].strip("-")
    return f"{test}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def kafka_classpath() -> str:
    """The class path of Apache Kafka's jars; tests that use it are skipped, with the reason, where there are none."""
    home = Path(os.environ.get("FASTLOG_KAFKA_HOME", Path(sys.prefix) / "share/kafka"))
    if not shutil.which("java") or not shutil.which("javac"):
        pytest.skip("needs a JDK (ci/bootstrap --profile test installs it)")
    if not list((home / "libs").glob("kafka-clients-*.jar")):
        pytest.skip(f"needs Apache Kafka's jars in {home}/libs (ci/bootstrap --profile test brings them)")
    return f"{home}/libs/*"


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], float], None]:
    """`eventually(condition, timeout_s)`: waits until it holds; fails the test when it does not in time."""

    def wait(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not so within {timeout_s} s"
            time.sleep(0.02)

    return wait
