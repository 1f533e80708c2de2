"""Fetch (API key 1, versions 4 to 18): sessions, long polls, reads by reference.

A request passes over its partitions and looks at their published positions. Where there is something to read, the owner gives
pointers into its memory, which stay pinned until the response was sent (`fetchread`, `fetchanswer`). Where there is nothing, the
request is parked: it watches its partitions, and the append that makes something visible wakes it (`fetchwait`).
"""
from fastlog.native.net cimport Request, Shard

cdef void fetch_init() noexcept nogil         # once, before the first request
cdef void fetch_start(Request *r) noexcept nogil
cdef void fetch_free(Shard *shard) noexcept nogil
