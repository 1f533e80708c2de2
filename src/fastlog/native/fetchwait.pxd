"""Fetch requests that wait: parked until a watch of one of their partitions fires, time is up, or the table of topics changes."""
from fastlog.native.fetchwork cimport FetchWork
from fastlog.native.net cimport Shard

cdef void fetch_park(FetchWork *work) noexcept nogil        # `unwatched` may be called in here
# Takes all watches back, if it is parked; `unwatched` is called when the last one is.
cdef void fetch_unpark(FetchWork *work) noexcept nogil
# The table of topics changed: parked requests look again.
cdef void fetch_recheck(Shard *shard) noexcept nogil
# Mail, on the owner's shard
cdef void fetch_watch_here(Shard *owner, void *what) noexcept nogil
cdef void fetch_unwatch_here(Shard *owner, void *what) noexcept nogil
# Mail, on the connection's shard
cdef void fetch_fired(Shard *home, void *what) noexcept nogil
cdef void fetch_unwatched(Shard *home, void *what) noexcept nogil
