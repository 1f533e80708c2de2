"""Group membership and committed offsets: pure state machines and their runtime.

The state machines (`classic`, `rebalance`, `joining`, `membership`, `offsets`, `shard`) know neither asyncio nor the log: they are driven
by an injected clock and timer queue. An operation reads state and returns the records to append and the response; the runtime (`runtime`,
`loader`, `service`) appends them, and only what the log has accepted is applied and answered.
"""
