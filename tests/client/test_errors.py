"""A class for each of Kafka's codes, in the module and in its stub."""

import re
from pathlib import Path

from fastlog.client import ClientError, errors
from fastlog.protocol.errors import Error


def test_every_code_has_its_class() -> None:
    assert set(errors.BY_CODE) == {e.value for e in Error} - {0}
    made = errors.error_for(3, "read", None)
    assert type(made).__name__ == "UnknownTopicOrPartitionError"
    assert isinstance(made, ClientError)
    assert (made.code, made.number, made.retriable) == ("UNKNOWN_TOPIC_OR_PARTITION", 3, True)
    assert str(made) == "read: unknown topic or partition"
    assert not errors.error_for(29, "x").retriable
    assert errors.error_for(999, "x").code == "UNKNOWN_SERVER_ERROR"


def test_they_are_the_modules_own() -> None:
    names: dict[str, object] = {}
    exec("from fastlog.client.errors import *", names)
    assert names["TopicAlreadyExistsError"] is errors.BY_CODE[36] is errors.TopicAlreadyExistsError
    assert not hasattr(errors, "NoSuchError")


def test_the_stub_has_them_all() -> None:
    stub = Path(errors.__file__).with_suffix(".pyi").read_text()
    found = set(re.findall(r"^class (\w+)\(BrokerError\)", stub, re.MULTILINE))
    assert found == {c.__name__ for c in errors.BY_CODE.values()}
