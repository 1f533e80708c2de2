"""What the handlers of group and offset requests have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.coordinator.operation import Client

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.coordinator.service import GroupService

ALL_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
"""What may be done with a group when nothing is forbidden: bits of AclOperation READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS."""


def coordinator_of(ctx: Context) -> GroupService:
    service: GroupService = ctx.coordinator
    return service


def client_of(request: RequestContext) -> Client:
    return Client(request.version, request.client_id or "", host_of(request.peer))


def host_of(peer: str) -> str:
    """The client host as Kafka shows it: "/127.0.0.1" for the peer "127.0.0.1:51234", "/unix" for one on a Unix socket."""
    host, _, _ = peer.rpartition(":")
    return "/" + (host.strip("[]") or peer)
