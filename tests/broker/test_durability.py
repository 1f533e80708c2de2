"""What the description of a topic says about its durability."""

import pytest

from fastlog.config.durability import describe_durability

DEFAULT = "acks=all is on stable storage; acks=1 survives a killed broker, not a power cut"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, f"{DEFAULT}; acks=0 is not waited for"),
        ({"flush.messages": "1"}, "acks=all and acks=1 are on stable storage (flush.messages=1); acks=0 is not waited for"),
        (
            {"flush.messages": "500", "flush.ms": "1000"},
            f"{DEFAULT}; flushed every 500 messages or after 1000 ms; acks=0 is not waited for",
        ),
        (
            {"write.caching": "true"},
            "acks=all and acks=1 survive a killed broker, not a power cut (write.caching=true); acks=0 is not waited for",
        ),
    ],
)
def test_a_topic_says_what_it_promises(settings: dict[str, str], said: str) -> None:
    assert describe_durability(settings) == said
