"""Fetch (API key 1, versions 4 to 18): sessions, long polls, reads by reference.

A request passes over its partitions and looks at their published positions. Where there is something to read, the owner gives
pointers into its memory, which stay pinned until the response was sent. Where there is nothing, the request is parked: it watches
its partitions, and the append that makes something visible wakes it.
"""
from fastlog.native.net cimport Request, Shard

cdef void fetch_init() noexcept nogil         # once, before the first request
cdef void fetch_start(Request *r) noexcept nogil
# Mail, on the owner's shard
cdef void fetch_read_here(Shard *owner, void *what) noexcept nogil
cdef void fetch_release_here(Shard *owner, void *what) noexcept nogil
cdef void fetch_watch_here(Shard *owner, void *what) noexcept nogil
cdef void fetch_unwatch_here(Shard *owner, void *what) noexcept nogil
# Mail, on the connection's shard
cdef void fetch_read_done(Shard *home, void *what) noexcept nogil
cdef void fetch_released(Shard *home, void *what) noexcept nogil
cdef void fetch_fired(Shard *home, void *what) noexcept nogil
cdef void fetch_unwatched(Shard *home, void *what) noexcept nogil
# The table of topics changed: parked requests look again.
cdef void fetch_recheck(Shard *shard) noexcept nogil
cdef void fetch_free(Shard *shard) noexcept nogil
