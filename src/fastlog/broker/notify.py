"""Tells systemd how the broker is doing (sd_notify(3)): a datagram to the socket that it names."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends e.g. "READY=1"; without systemd it does nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send(state.encode())
        except OSError:
            pass  # a supervisor that went away is no reason to fail
