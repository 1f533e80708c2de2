"""Producer state of a log that is being opened, from snapshots and the batches since. All return 0, or -1 with `error` and `why` set."""
from libc.stdint cimport int64_t
from fastlog.native.directory cimport Listing
from fastlog.native.recovery cimport Recovery

# As it is at an offset at which a segment starts or ends.
cdef int recover_producers(Recovery *r, Listing *l, int64_t offset) noexcept nogil
cdef int recover_check_durable(Recovery *r, const Listing *l, int64_t offset, const char *why) noexcept nogil
# Finds where the transactions that are under way begin.
cdef int recover_place_txns(Recovery *r) noexcept nogil
