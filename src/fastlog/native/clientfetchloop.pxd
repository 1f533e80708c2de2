"""The fetcher's thread: sends and receives for all brokers."""
from fastlog.native.clientfetch cimport Fetcher

# 0, or an error number when there is no thread to be had.
cdef int fetcher_start(Fetcher *f) noexcept nogil
cdef void fetcher_stop(Fetcher *f) noexcept nogil
