"""A shard: one thread, pinned to one core, that owns a ring, connections, partitions and memory, and runs them in turns.

A turn: wait for completions (which receive, parse and start requests) -> mail of other shards and of the control plane -> finished
jobs -> timers -> the store's gathered writes -> responses. Nothing in it blocks but the wait.
"""
from libc.stdint cimport int64_t, uint64_t
from fastlog.native.net cimport Shard

cdef struct ShardConfig:
    uint64_t buffers_max            # bytes of receive buffers
    uint64_t accept_mask            # shards that connections are dealt to, by bit

cdef int shard_init(Shard *shard, const ShardConfig *config) noexcept nogil        # before the thread: 0 or -ENOMEM
cdef void shard_run(Shard *shard, const ShardConfig *config) noexcept nogil        # the thread's life; its ring and store are open
cdef void shard_free(Shard *shard) noexcept nogil
# From any thread: wakes the shard if it sleeps.
cdef void shard_wake(Shard *shard) noexcept nogil
