"""A class for each of Kafka's error codes, named after it: UNKNOWN_TOPIC_OR_PARTITION is UnknownTopicOrPartitionError.

All derive from BrokerError, which is a ClientError; `retriable` is Kafka's. `error_for(code)` makes the one of a code. The classes, 134 of
them, are made when the first one is named or raised.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from fastlog.client.failures import ClientError

if TYPE_CHECKING:
    from fastlog.client.records import TopicPartition
    from fastlog.protocol.errors import Error


_CUT = """Records were read that the log does not have any more, and auto_offset_reset is "none" (KIP-320). An OffsetOutOfRangeError.

`partition`; `position`: what was read up to; `divergent_offset`: up to where the log is what was read; None: not known.
"""


class BrokerError(ClientError):
    """A broker refused a request, or a part of one."""

    number = -1

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(code or type(self).__dict__.get("kafka_name", "UNKNOWN_SERVER_ERROR"), message)


def class_name(error: "Error") -> str:
    """The name of a code's class."""
    words = error.name.removesuffix("_ERROR").removesuffix("_EXCEPTION")
    return "".join(word.title() for word in words.split("_")) + "Error"


@cache
def _by_code() -> dict[int, type[BrokerError]]:
    """The classes, which are the module's from now on."""
    from fastlog.protocol.errors import Error

    made: dict[int, type[BrokerError]] = {}
    for error in Error:
        if error is not Error.NONE:
            body = {
                "__module__": __name__,
                "__doc__": f"Kafka's {error.name} ({error.value}).",
                "number": error.value,
                "kafka_name": error.name,
                "retriable": error.retriable,
            }
            made[error.value] = type(class_name(error), (BrokerError,), body)
    cut = type("LogTruncationError", (made[1],), {"__module__": __name__, "__doc__": _CUT, "kafka_name": "LOG_TRUNCATION"})
    globals().update({one.__name__: one for one in (*made.values(), cut)})
    return made


def __getattr__(name: str) -> Any:
    if name == "BY_CODE":
        return _by_code()
    if name == "__all__":
        ours = ("BY_CODE", "BrokerError", "LogTruncationError", "class_name", "error_for", "truncated")
        return [*ours, *sorted(made.__name__ for made in _by_code().values())]
    if name.endswith("Error") and _by_code() and name in globals():
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def error_for(code: int, what: str, detail: str | None = None) -> BrokerError:
    """The error of a code that is not 0. `what` was tried; `detail`: the broker's own words."""
    known = _by_code().get(code)
    name = known.__dict__["kafka_name"] if known else f"error {code}"
    words = detail or name.removesuffix("_EXCEPTION").lower().replace("_", " ")
    return (known or _by_code()[-1])(f"{what}: {words}", name if known else "")


def truncated(partition: "TopicPartition", position: int, divergent_offset: int | None) -> BrokerError:
    """A LogTruncationError."""
    _by_code()
    there = "an offset that is not known" if divergent_offset is None else f"offset {divergent_offset}"
    made: BrokerError = globals()["LogTruncationError"](
        f"read {partition[0]} [{partition[1]}] at offset {position}: the log was cut to {there} after what is before it was read; "
        'auto_offset_reset is "none": seek to go on'
    )
    vars(made).update(partition=partition, position=position, divergent_offset=divergent_offset)
    return made
