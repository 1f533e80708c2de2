"""What a topic may be called (Kafka's rules and words)."""

from __future__ import annotations

import re
from typing import Final

LENGTH_MAX: Final = 249  # a partition's directory is NAME-NUMBER, and deleting it appends more
INTERNAL: Final = frozenset(("__consumer_offsets", "__transaction_state", "__share_group_state"))
CLUSTER_METADATA: Final = "__cluster_metadata"
_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")


def why_invalid(name: str) -> str | None:
    """Why a topic can't have this name, or None."""
    if not name:
        return "Topic name is invalid: the empty string is not allowed"
    if name in (".", ".."):
        return f"Topic name is invalid: '{name}' is not allowed"
    if len(name) > LENGTH_MAX:
        return f"Topic name is invalid: the length of '{name}' is longer than the max allowed length {LENGTH_MAX}"
    if not _LEGAL.fullmatch(name):
        return f"Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    return None


def collision_key(name: str) -> str:
    """Equal for two names that can't both exist: metric names write '.' as '_'."""
    return name.replace(".", "_")
