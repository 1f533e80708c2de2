"""Transactions of producers (KIP-98, KIP-890): a pure state machine for each partition of `__transaction_state`, and what runs it.

`state` says what a transaction is and how it may change; `machine` decides, like the group coordinator's shard: an operation reads state
and returns records and a response; `service` appends the records through the coordinator's runtime, and sees to the markers that end a
transaction in each of its partitions.
"""
