"""Fixtures for tests that need a broker: `fastlog_broker`, one for the whole run, and `fastlog_topic`, a new topic for each test."""

import uuid
from collections.abc import Iterator

import pytest

from fastlog.embedding import EmbeddedBroker, embedded


@pytest.fixture(scope="session")
def fastlog_broker() -> Iterator[EmbeddedBroker]:
    """A broker; `fastlog_broker.bootstrap_servers` is its address."""
    with embedded() as broker:
        yield broker


@pytest.fixture
def fastlog_topic(fastlog_broker: EmbeddedBroker) -> str:
    """The name of a topic of one partition that is the test's own."""
    from fastlog.client import Admin

    name = f"test-{uuid.uuid4().hex[:12]}"
    with Admin(fastlog_broker.bootstrap_servers) as admin:
        admin.create_topic(name, 1)
    return name
