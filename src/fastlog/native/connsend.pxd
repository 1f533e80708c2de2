"""Sending: responses in the order of their requests, and the end of requests and connections once nothing holds them."""
from fastlog.native.net cimport Shard

# Sends what is ready, goes on parsing where it can, frees what is finished: once per turn.
cdef void conns_turn(Shard *shard) noexcept nogil
