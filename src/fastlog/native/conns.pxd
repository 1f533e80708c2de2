"""The connections of a shard: their beginning, and the look at all of them that finds idle and stuck ones."""
from libc.stdint cimport uint32_t
from fastlog.native.net cimport Shard

# Takes over the descriptor. Closes it when the shard has no room.
cdef void conn_open(Shard *shard, int fd, uint32_t listener) noexcept nogil
# Closes idle ones and takes back the buffers of quiet ones; once per second or so.
cdef void conns_sweep(Shard *shard) noexcept nogil
