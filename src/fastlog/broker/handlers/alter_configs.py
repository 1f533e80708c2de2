"""AlterConfigs v0-2: replaces all that a topic or broker sets (KIP-133). Clients should use IncrementalAlterConfigs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlog.broker.resources import alter, alter_all
from fastlog.protocol.errors import Error, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlog.broker.context import Context, RequestContext
    from fastlog.config.keys import Key
    from fastlog.protocol.messages import Message


async def handle(ctx: Context, request: RequestContext, message: Message) -> Message:
    async def one(resource: Message) -> None:
        def replace(own: dict[str, str], keys: Mapping[str, Key]) -> dict[str, str]:
            missing = [config["name"] for config in resource["configs"] if config["value"] is None]
            if missing:
                raise KafkaError(Error.INVALID_REQUEST, f"Null value not supported for : {','.join(missing)}")
            return {config["name"]: config["value"] for config in resource["configs"]}

        await alter(ctx, resource["resource_type"], resource["resource_name"], replace, validate_only=message["validate_only"])

    return {"responses": await alter_all(message["resources"], one)}
