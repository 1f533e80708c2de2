"""The pages made from the code are those that it makes now, and what they say of Kafka is so."""

from __future__ import annotations

import json
import re
import zipfile

import pytest

from fastlog.config.broker import BROKER_KEYS
from fastlog.protocol.messages import API_BY_KEY
from tests.protocol import oracles

from . import api as client_api
from .pages import ABSENT, COMMAND, DOCS, KAFKA_APIS, NOTES, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), f"run {COMMAND}"


@pytest.mark.parametrize("name", client_api.CONTENTS)
def test_every_call_is_explained(name: str) -> None:
    for part in re.split(r"^##+ ", client_api.page(name), flags=re.MULTILINE)[1:]:
        title, _, said = part.partition("\n")
        assert re.sub(r"```python.*?```|^- .*$", "", said, flags=re.DOTALL | re.MULTILINE).strip(), f"{title} has no docstring"


def test_every_api_is_served_or_absent_with_a_reason() -> None:
    named = {key for key, (_, versions) in KAFKA_APIS.items() if versions != "-"}
    assert API_BY_KEY.keys() | ABSENT.keys() == named
    assert not API_BY_KEY.keys() & ABSENT.keys(), "take what is served now out of ABSENT"
    assert NOTES.keys() <= API_BY_KEY.keys()


def test_all_that_kafka_serves_of_an_api_is_served() -> None:
    for key, api in API_BY_KEY.items():
        name, versions = KAFKA_APIS[key]
        first, _, last = versions.partition("-")
        assert (api.name, api.versions) == (name, (int(first), int(last or first)))


@pytest.mark.skipif(not oracles.KAFKA.exists(), reason=f"no jars of Kafka in {oracles.KAFKA_LIBS}")
def test_kafka_has_these_apis() -> None:
    found = {}
    with zipfile.ZipFile(oracles.KAFKA) as archive:
        for path in archive.namelist():
            if re.fullmatch(r"common/message/\w+Request\.json", path):
                definition = json.loads(re.sub(r"^\s*//.*$", "", archive.read(path).decode(), flags=re.MULTILINE))
                first, _, last = definition["validVersions"].partition("-")
                if definition.get("latestVersionUnstable"):
                    last = str(int(last) - 1)
                versions = "-" if first == "none" else f"{first}-{last}" if last else first
                found[definition["apiKey"]] = (definition["name"].removesuffix("Request"), versions)
    assert found == KAFKA_APIS


def test_no_setting_is_both_acted_on_and_without_effect() -> None:
    from fastlog.config.kept import KEPT_KEYS

    assert [key.name for key in KEPT_KEYS if BROKER_KEYS[key.name] is not key] == [], "take these out of config/kept.py"
