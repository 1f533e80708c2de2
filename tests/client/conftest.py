"""A topic of the test's own."""

from collections.abc import Callable, Iterator

import pytest

from fastlog.client import Admin


@pytest.fixture
def admin(bootstrap: str) -> Iterator[Admin]:
    with Admin(bootstrap) as made:
        yield made


@pytest.fixture
def make_topic(admin: Admin, fresh_name: str, eventually: Callable[[Callable[[], bool], float], None]) -> Callable[[int], str]:
    def make(partitions: int) -> str:
        admin.create_topic(fresh_name, partitions)
        eventually(lambda: fresh_name in {t.name for t in admin.topics()}, 10)
        return fresh_name

    return make


@pytest.fixture
def topic(make_topic: Callable[[int], str]) -> str:
    """With three partitions."""
    return make_topic(3)
