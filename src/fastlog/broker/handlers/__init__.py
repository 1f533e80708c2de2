"""One module per API: `async def handle(ctx, request, message) -> Message`. The table is in `broker.dispatch`."""
