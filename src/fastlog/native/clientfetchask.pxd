"""Which partitions are asked for next, and the requests; with the fetcher's lock held."""
from libc.stdint cimport int64_t
from fastlog.native.clientfetch cimport Fetcher, Source

# Makes requests for brokers that have none under way. When to look again, at the latest.
cdef int64_t fetch_plan(Fetcher *f, int64_t now) noexcept nogil
# The connection is gone, and its request with it.
cdef void fetch_lose(Fetcher *f, Source *s, int64_t now) noexcept nogil
