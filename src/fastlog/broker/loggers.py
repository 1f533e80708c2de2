"""The broker's loggers, whose levels can be changed while it runs (KIP-412). A change lasts until the broker ends."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastlog.config.keys import Source
from fastlog.protocol.errors import Error, KafkaError

ROOT: Final = "root"
_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "INFO": logging.INFO,
    "TRACE": logging.DEBUG - 5,
    "WARN": logging.WARNING,
}


def described(names: list[str]) -> list[dict[str, Any]]:
    """Loggers with the level that counts for each, as DescribeConfigs shows them: those of `names`, or all."""
    return [
        {
            "name": name,
            "value": _text(logger.getEffectiveLevel()),
            "read_only": False,
            "config_source": Source.DYNAMIC_BROKER_LOGGER,
            "is_sensitive": False,
            "synonyms": [],
            "config_type": 0,
            "documentation": "",
        }
        for name, logger in sorted(_loggers().items())
        if not names or name in names
    ]


def alter(changes: list[tuple[str, str | None]], *, validate_only: bool) -> None:
    """Sets (a level) or resets (None) levels: all of them or none. Raises KafkaError."""
    loggers = _loggers()
    for name, level in changes:
        if name not in loggers:
            raise KafkaError(Error.INVALID_CONFIG, f"Logger {name} does not exist!")
        if level is None and name == ROOT:
            raise KafkaError(Error.INVALID_REQUEST, "Removing the log level of the root logger is not allowed")
        if level is not None and level not in _LEVELS:
            raise KafkaError(
                Error.INVALID_CONFIG,
                f"Cannot set the log level of {name} to {level} as it is not a supported log level. "
                f"Valid log levels are {', '.join(_LEVELS)}",
            )
    for name, level in [] if validate_only else changes:
        loggers[name].setLevel(logging.NOTSET if level is None else _LEVELS[level])


def _loggers() -> dict[str, logging.Logger]:
    found = {
        name: logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "fastlog"
    }
    return {ROOT: logging.root, **found}


def _text(level: int) -> str:
    """The name of the highest level that is not above this one."""
    return max((number, name) for name, number in _LEVELS.items() if number <= max(level, _LEVELS["TRACE"]))[1]
