"""The io_uring engine of a ring: see ring.pxd for the contract, ring_common.pxd for an engine's functions."""
from libc.stdint cimport int64_t, uint32_t
from fastlog.native.ring cimport Op, RingConfig, RingStats
from fastlog.native.ring_common cimport Wake

cdef struct Uring                   # opaque

# `without`: features (RingFeature) not to use although the kernel has them. Writes what is in use, or what failed, into `why`.
cdef int uring_open(Uring **out, const RingConfig *config, uint32_t without, Wake *wake, char *why, size_t why_len) noexcept nogil
cdef int uring_start(Uring *u) noexcept nogil
cdef void uring_close(Uring *u) noexcept nogil
cdef void uring_submit(Uring *u, Op *op) noexcept nogil
cdef void uring_cancel(Uring *u, Op *op) noexcept nogil
cdef int uring_wait(Uring *u, int64_t timeout_ns) noexcept nogil
cdef void uring_stats(const Uring *u, RingStats *out) noexcept nogil
