"""UpdateFeatures v0-2: levels of the cluster's features (KIP-584). Each is what this release serves, so that none can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.handlers.api_versions import FINALIZED, SUPPORTED
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from fastlog.broker.context import Context, RequestContext
    from fastlog.protocol.messages import Message

_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE = 1, 2, 3


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    for update in message["feature_updates"]:
        why = _why_not(ctx, request.version, update)
        if why is not None:
            name, level = update["feature"], update["max_version_level"]
            raise KafkaError(
                Error.INVALID_UPDATE_VERSION,
                "The update failed for all features since the following feature had an error: "
                f"Invalid update version {level} for feature {name}. {why}",
            )
    results = [
        {"feature": update["feature"], "error_code": Error.NONE, "error_message": Error.NONE.name} for update in message["feature_updates"]
    ]
    return {"error_code": Error.NONE, "error_message": None} | ({"results": results} if request.version < 2 else {})


def _why_not(ctx: Context, version: int, update: Message) -> str | None:
    """Why a feature can't have the level that is asked for, or None: it has it already."""
    name, level, kind = update["feature"], update["max_version_level"], update["upgrade_type"]
    if version == 0:
        kind = _UNSAFE_DOWNGRADE if update["allow_downgrade"] else _UPGRADE
    if kind not in (_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if level < 0:
        return "A feature version cannot be less than 0."
    if name not in SUPPORTED:
        return f"Local controller {ctx.cluster.node_id} does not support this feature."
    low, high = SUPPORTED[name]
    if level != 0 and not low <= level <= high:
        return f"Local controller {ctx.cluster.node_id} only supports versions {low}-{high}"
    now = FINALIZED.get(name, 0)
    if level < now and kind == _UPGRADE:
        return "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
    return None if level == now else f"This release serves it at level {now} only."
