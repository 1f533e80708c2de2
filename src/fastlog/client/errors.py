"""A class for each of Kafka's error codes, named after it: UNKNOWN_TOPIC_OR_PARTITION is UnknownTopicOrPartitionError.

All derive from BrokerError, which is a ClientError; `retriable` is Kafka's. `error_for(code)` makes the one of a code.
"""

from fastlog.client.failures import ClientError
from fastlog.protocol.errors import Error


class BrokerError(ClientError):
    """A broker refused a request, or a part of one."""

    number = -1

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(code or type(self).__dict__.get("kafka_name", "UNKNOWN_SERVER_ERROR"), message)


def class_name(error: Error) -> str:
    """The name of a code's class."""
    words = error.name.removesuffix("_ERROR").removesuffix("_EXCEPTION")
    return "".join(word.title() for word in words.split("_")) + "Error"


BY_CODE: dict[int, type[BrokerError]] = {}
for _error in Error:
    if _error is not Error.NONE:
        _made = type(
            class_name(_error),
            (BrokerError,),
            {
                "__module__": __name__,
                "__doc__": f"Kafka's {_error.name} ({_error.value}).",
                "number": _error.value,
                "kafka_name": _error.name,
                "retriable": _error.retriable,
            },
        )
        BY_CODE[_error.value] = globals()[_made.__name__] = _made

__all__ = ["BY_CODE", "BrokerError", "class_name", "error_for", *sorted(made.__name__ for made in BY_CODE.values())]  # noqa: PLE0604


def error_for(code: int, what: str, detail: str | None = None) -> BrokerError:
    """The error of a code that is not 0. `what` was tried; `detail`: the broker's own words."""
    known = BY_CODE.get(code)
    name = Error(code).name if known else f"error {code}"
    return (known or BY_CODE[-1])(f"{what}: {detail or name.lower().replace('_', ' ')}", name if known else "")
