"""Users' passwords as SCRAM (RFC 5802) leaves them to a server: enough to check one, not enough to log in with.

In the text that Kafka has for them (ScramCredentialUtils). Kept by user and mechanism in `ConfigManager.users`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final

MECHANISMS: Final = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
"""Names by the protocol's numbers (KIP-554)."""
ITERATIONS: Final = range(4096, 16384 + 1)


def credential(*, salt: bytes, stored_key: bytes, server_key: bytes, iterations: int) -> str:
    salt_text, stored, server = (b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"salt={salt_text},stored_key={stored},server_key={server},iterations={iterations}"


def iterations_of(text: str) -> int:
    """Of what `credential` made."""
    return int(text.rpartition("=")[2])
