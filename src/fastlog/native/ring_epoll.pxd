"""The epoll engine of a ring: see ring.pxd for the contract, ring_common.pxd for an engine's functions."""
from libc.stdint cimport int64_t
from fastlog.native.ring cimport Op, RingConfig, RingStats
from fastlog.native.ring_common cimport Wake

cdef struct Epoll                   # opaque

# Writes what is in use, or what failed, into `why`. 0 or -errno.
cdef int epoll_open(Epoll **out, const RingConfig *config, Wake *wake, char *why, size_t why_len) noexcept nogil
cdef void epoll_close(Epoll *e) noexcept nogil
cdef void epoll_submit(Epoll *e, Op *op) noexcept nogil
cdef void epoll_cancel(Epoll *e, Op *op) noexcept nogil
cdef int epoll_wait(Epoll *e, int64_t timeout_ns) noexcept nogil
cdef void epoll_stats(const Epoll *e, RingStats *out) noexcept nogil
